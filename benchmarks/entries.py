"""What is compared. An entry says what must be trained for it, which runtime answers, and which files it ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ultra_light_predictor import FP32_GRAPH
from ultralight.experiment import DEPLOYABLE
from ultralight.problems import InputError, nearest


@dataclass(frozen=True)
class Entry:
    """One line of the tables.

    Args:
        name: on the command line and in the results.
        title: in tables and plots.
        product: what is trained, and the folder of it.
        runtime: module in benchmarks.runtimes.
        files: what must ship, in the entry's folder.
        options: of the runtime.
        subfolder: of the product's folder, where the entry has one of its own.
        trained: random weights are not scored, and not asked for batches.
        everywhere: trained on every dataset, not on the first alone.
        extra: left out unless asked for: it costs a long training of its own.
        needs: a package of requirements-benchmarks.txt.
    """

    name: str
    title: str
    product: str
    runtime: str
    files: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    subfolder: str = ""
    trained: bool = True
    everywhere: bool = True
    extra: bool = False
    needs: str | None = None

    def folder(self, product_folder: Path) -> Path:
        """Where the entry's files are."""
        return product_folder / self.subfolder

    def size(self, product_folder: Path) -> int:
        """Bytes of all that must ship."""
        return sum((self.folder(product_folder) / name).stat().st_size for name in self.files)


MICRO, NANO, OLD_RECIPE = "micro_int8", "nano_int8", "old_recipe"
# Product -> module in benchmarks.peers that trains it. Those that take longest come first: jobs are started in this order.
PEERS = {
    "micro": "ultra_light",
    "nano": "ultra_light",
    "tiny": "ultra_light",
    "unpruned": "ultra_light",
    "old_recipe": "bert",
    "fasttext": "fast_text",
    "tfidf": "tfidf",
    "static": "static",
    "bert": "bert",
    "bert_light": "bert",
}
PACKED = "model.onnx.gz"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_BERT = ("config.json", "labels.json", *_TOKENIZER)
_TORCH = ("model.safetensors", "config.json", *_TOKENIZER, "configuration_ultralight.py", "modeling_ultralight.py")
_FP32 = tuple(str(FP32_GRAPH) if name.endswith(".onnx") else name for name in DEPLOYABLE)

ENTRIES = (
    Entry(
        OLD_RECIPE,
        "Old recipe: bert-tiny, torch INT8",
        "old_recipe",
        "bert",
        ("quantized.pt", *_BERT),
        {"quantized": True, "padding": "max_length"},
    ),
    Entry("bert", "BERT, 12 layers (random weights)", "bert", "bert", ("model.safetensors", *_BERT), trained=False, everywhere=False),
    Entry(
        "bert_light",
        "BERT, 6 layers (random weights)",
        "bert_light",
        "bert",
        ("model.safetensors", *_BERT),
        trained=False,
        everywhere=False,
    ),
    Entry("fasttext", "fastText", "fasttext", "fast_text", ("model.bin", "labels.json"), needs="fasttext"),
    Entry(
        "fasttext_ftz",
        "fastText, quantised (.ftz)",
        "fasttext",
        "fast_text",
        ("model.ftz", "labels.json"),
        {"quantized": True},
        subfolder="quantized",
        needs="fasttext",
    ),
    Entry("tfidf", "TF-IDF + LR, scikit-learn", "tfidf", "tfidf", ("model.joblib", "labels.json")),
    Entry("tfidf_onnx", "TF-IDF + LR, ONNX", "tfidf", "tfidf_onnx", ("model.onnx", "labels.json"), needs="skl2onnx"),
    Entry("static", "Static embeddings (as Model2Vec)", "static", "static", ("weights.npz", "tokenizer.json", "labels.json")),
    Entry("micro_torch", "UltraLight micro, PyTorch fp32", "micro", "ultralight_torch", _TORCH),
    Entry("micro_fp32", "UltraLight micro, ONNX fp32", "micro", "ultralight_onnx", _FP32, {"quantize": False}),
    Entry("unpruned_int8", "UltraLight micro unpruned, INT8", "unpruned", "ultralight_onnx", DEPLOYABLE, everywhere=False, extra=True),
    Entry(MICRO, "UltraLight micro, INT8 (ships)", "micro", "ultralight_onnx", DEPLOYABLE),
    Entry("micro_gz", "UltraLight micro, INT8, one .gz file", "micro", "ultralight_onnx", (PACKED,), {"file": PACKED}),
    Entry(NANO, "UltraLight nano, INT8", "nano", "ultralight_onnx", DEPLOYABLE),
    Entry("tiny_int8", "UltraLight tiny, INT8", "tiny", "ultralight_onnx", DEPLOYABLE),
)


def choose_entries(names: Sequence[str] | None, extra: bool = False) -> list[Entry]:
    """The named entries, or all, those that are extra only where they are wanted.

    Raises:
        InputError: a name is unknown, or a package that an entry needs is not installed.
    """
    known = {entry.name: entry for entry in ENTRIES}
    for name in names or ():
        if name not in known:
            raise InputError(f"--only {name}: no such entry; {nearest(name, known)}")
    chosen = [entry for entry in ENTRIES if (entry.name in names if names else extra or not entry.extra)]
    missing = {entry.needs: entry.name for entry in chosen if entry.needs and find_spec(entry.needs) is None}
    if missing:
        raise InputError(
            f"{', '.join(map(str, missing))}: not installed, but {', '.join(missing.values())} need it;"
            " accepted: pip install -r requirements-benchmarks.txt, or --only with the others"
        )
    return chosen
