"""Settings of a training run, from a YAML file and flags; `--help` is made of the texts here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from transformers import HfArgumentParser

from ultralight.command_line import HelpFormatter, add_output_flags
from ultralight.dataset import CONTRADICTIONS
from ultralight.files import read_utf8
from ultralight.problems import InputError, Problems, nearest

# The encoder that the repository ships, and no checkpoint to start from.
BASE, SCRATCH = "base", "scratch"
# What 3,000 to 8,000 queries need; few queries are read again and again, but not for ever.
STEPS = 2400
EPOCHS_RANGE = (8, 60)
# Processors that Optimum has an INT8 recipe for.
ARCHITECTURES = ("avx512_vnni", "avx2", "arm64")

# What `--report_to` takes: where the curves of a run can be watched, and the package that it needs.
REPORTS = ("none", "tensorboard", "trackio")

TRAIN_USAGE = """\
Trains an implicit label predictor: labels file + labelled queries -> a model folder with an INT8 ONNX graph of about 1 MB.

Such a model says on the device itself what a short query implies of each of your labels ("fits a pram" -> space: large). It starts
from the encoder in base/, so a few thousand queries and a few minutes on a laptop are enough. The folder holds all that
AutoModel, Optimum and predict.py need, metrics.json and plots/.

examples:
  python train.py                                              the embedded car queries (configs/car_queries.yaml)
  python train.py --dataset my_data                            your own: train.jsonl and QueryLabels.json in my_data/
  python train.py configs/car_queries_distilled.yaml --epochs 10    settings of another YAML file, one of them changed
  python train.py --dataset my_data --distillation true        learns from teachers, too: 5 times as long, and better

Every setting is a flag and a key of the YAML file. A flag overrides the file, which overrides the defaults below."""

PRETRAIN_USAGE = """\
Pre-trains an encoder by masked language modelling on text files, one sentence a line.

Worth it when your queries are of a language or a field that the encoder in base/ has not read: text without labels is cheap, and
an encoder that has read the words needs fewer labelled queries.

examples:
  python pretrain.py --corpus my_texts/ --output_dir my_base
  python pretrain.py configs/pretrain.yaml --steps 100000 --bf16 true
  python train.py --model_name my_base --dataset my_data           then starts from it

Every setting is a flag and a key of the YAML file. A flag overrides the file, which overrides the defaults below."""


def _flag(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": text, **more})


# The settings of a run stand in parts, which are also the groups of `--help`; HfArgumentParser reads their `_argument_group_name`.
@dataclass
class DataSettings:
    """What is learnt, and where the model goes."""

    _argument_group_name: ClassVar[str] = "data"

    dataset: str = _flag(
        "data/car_queries", "a .json, .jsonl, .csv or .parquet file, a folder with train.* (validation.*, test.*), or a Hub dataset id"
    )
    config: str | None = _flag(None, "the labels file, {label: [absent value, value, ...]}; default: QueryLabels.json beside the dataset")
    output_dir: str | None = _flag(None, "folder for the trained model; default: outputs/ and the dataset's name")
    contradictions: str = _flag(
        "stop", "a text that stands twice with different labels: stop, keep the first, or drop all", choices=list(CONTRADICTIONS)
    )
    split_seed: int = _flag(42, "decides which training rows become a missing validation or test split, a tenth each")


@dataclass
class ModelSettings:
    """What the model is like."""

    _argument_group_name: ClassVar[str] = "model"

    model_name: str = _flag(
        BASE,
        "BERT or UltraLight checkpoint to start from, Hub id or folder; base: the encoder in base/; scratch: random weights and a character"
        " vocabulary",
    )
    max_seq_length: int = _flag(32, "longest query in tokens, longer ones are cut")
    num_layers: int = _flag(2, "encoder layers; of a checkpoint, its first ones")
    hidden_dim: int | None = _flag(None, "width of the encoder; default: 128, or the checkpoint's")
    num_heads: int | None = _flag(None, "attention heads a layer; default: 2, or the checkpoint's")
    intermediate_dim: int | None = _flag(None, "width of the feed-forward part; default: 4 x hidden_dim, or the checkpoint's")
    pooling: str = _flag("mean+max", "how tokens become a query vector: cls, mean or max, or several joined by +")
    label_attention: bool = _flag(True, "each label also looks at the tokens with an attention of its own")
    projection_dim: int = _flag(64, "width of the reduced representation that all labels share")
    dropout: float = _flag(0.1, "dropout of encoder and heads")


@dataclass
class OptimizationSettings:
    """How it is trained."""

    _argument_group_name: ClassVar[str] = "training"

    epochs: int | None = _flag(None, "training epochs at most; default: as many as make 2,400 steps, but 8 to 60")
    early_stopping_patience: int = _flag(6, "epochs without a better validation micro-F1 after which training stops; 0: never")
    batch_size: int = _flag(32, "queries a step")
    learning_rate: float = _flag(3.0e-3, "peak learning rate of AdamW; warms up over 6 %% of the steps, then falls linearly")
    encoder_rate: float = _flag(
        0.3,
        "learning rate of the encoder's layers in multiples of that of embeddings and heads, which have more to learn from fewer queries",
    )
    weight_decay: float = _flag(0.01, "weight decay of AdamW")
    class_balance: float = _flag(
        0.0, "0: all values weigh alike in the loss; 1: a value weighs as the inverse of its frequency; between: a power of that"
    )
    joining: float = _flag(
        0.3, "share of the training queries that are read together with another one that they do not contradict, anew every epoch"
    )
    embedding_pruning: float = _flag(0.0, "share of the embedding weights, the smallest, driven to zero during training, such as 0.3")
    seed: int = _flag(42, "seed of weights and batches")
    resume: bool = _flag(False, "go on from the last checkpoint of an interrupted run in the output folder")
    report_to: list[str] = field(
        default_factory=list,
        metadata={
            "help": "where to watch the curves during training: tensorboard (files in OUTPUT_DIR/runs), trackio (both: "
            "requirements-report.txt) or none, the default",
            "choices": list(REPORTS),
        },
    )


@dataclass
class DistillationSettings:
    """What it learns from other models."""

    _argument_group_name: ClassVar[str] = "distillation"

    distillation: bool = _flag(False, "learn from teachers as well as from the labels")
    teacher: list[str] = field(
        default_factory=list,
        metadata={
            "help": "folder(s) of trained models; of several, the mean is taught; default: teachers are trained first, by cross-fitting"
        },
    )
    teacher_folds: int = _flag(4, "teachers to train, each without a part of the training queries, which it then labels")
    linear_teacher: float = _flag(0.5, "weight of a linear model over character n-grams among the trained teachers, 0 to 1")
    transfer: list[str] = field(
        default_factory=list,
        metadata={"help": "text files, one a line, for the trained teachers to label: unlabelled queries of your domain"},
    )
    distillation_weight: float = _flag(0.5, "weight of the teachers against the labels, 0 to 1")
    distillation_temperature: float = _flag(1.0, "softens the teachers' and the model's distributions")


@dataclass
class ExportSettings:
    """What ships."""

    _argument_group_name: ClassVar[str] = "export"

    export_onnx: bool = _flag(False, "export to ONNX after training")
    quantize: bool = _flag(False, "also write the INT8 graph, score it on the test split and report both")
    architecture: str = _flag(
        "avx512_vnni", "processor that the INT8 graph is made for; it runs on the others too", choices=list(ARCHITECTURES)
    )


@dataclass
class TrainSettings(ExportSettings, DistillationSettings, OptimizationSettings, ModelSettings, DataSettings):
    """What `train.py` takes; every field is a flag and a key of the YAML file."""

    usage: ClassVar[str] = TRAIN_USAGE
    parts: ClassVar[tuple[type, ...]] = (DataSettings, ModelSettings, OptimizationSettings, DistillationSettings, ExportSettings)

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            InputError: lists the settings that are out of range.
        """
        problems = Problems("settings")
        for name in ("max_seq_length", "num_layers", "projection_dim", "batch_size"):
            if getattr(self, name) < 1:
                problems.add(f"--{name} {getattr(self, name)}", "accepted: at least 1")
        for name in ("hidden_dim", "num_heads", "intermediate_dim", "epochs"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                problems.add(f"--{name} {getattr(self, name)}", "accepted: at least 1")
        for name in ("dropout", "embedding_pruning", "distillation_weight", "linear_teacher", "class_balance", "joining"):
            if not 0 <= getattr(self, name) <= 1:
                problems.add(f"--{name} {getattr(self, name)}", "accepted: 0 to 1")
        if self.max_seq_length < 3:
            problems.add(f"--max_seq_length {self.max_seq_length}", "accepted: at least 3, [CLS] and [SEP] take two")
        for name in ("learning_rate", "encoder_rate", "distillation_temperature"):
            if getattr(self, name) <= 0:
                problems.add(f"--{name} {getattr(self, name)}", "accepted: above 0")
        if not self.distillation and (self.teacher or self.transfer):
            problems.add("--teacher or --transfer", "without --distillation nothing would be learnt from it; accepted: with --distillation")
        if self.teacher_folds < 2:
            problems.add(f"--teacher_folds {self.teacher_folds}", "accepted: at least 2")
        if self.quantize and not self.export_onnx:
            problems.add("--quantize", "the INT8 graph is made from the ONNX one; accepted: with --export_onnx")
        self.report_to = [name for name in self.report_to if name != "none"]
        for name in self.report_to:
            if name not in REPORTS:
                problems.add(f"--report_to {name}", nearest(name, REPORTS))
            elif find_spec(name) is None:
                problems.add(f"--report_to {name}", "is not installed; accepted: after `pip install -r requirements-report.txt`")
        problems.raise_if_any()
        if self.output_dir is None:
            self.output_dir = str(Path("outputs") / Path(self.dataset.rstrip("/")).stem)

    def epochs_for(self, rows: int) -> int:
        """Training epochs at most for a number of training rows."""
        if self.epochs is not None:
            return self.epochs
        fewest, most = EPOCHS_RANGE
        return min(most, max(fewest, round(STEPS * self.batch_size / rows)))


@dataclass
class TextSettings:
    """What is read, and where the encoder goes."""

    _argument_group_name: ClassVar[str] = "text"

    corpus: list[str] = field(default_factory=list, metadata={"help": "text files, or folders of .txt files, one sentence a line"})
    weights: list[str] = field(
        default_factory=list, metadata={"help": "NAME=NUMBER: draw a file's lines so much oftener (0: leave it out)"}
    )
    exclude: list[str] = field(default_factory=list, metadata={"help": "datasets whose queries must not be read, such as test files"})
    output_dir: str = _flag("outputs/base", "folder for the encoder and its tokenizer")


@dataclass
class EncoderSettings:
    """What the encoder is like."""

    _argument_group_name: ClassVar[str] = "encoder"

    max_seq_length: int = _flag(64, "longest line in tokens, longer ones are cut")
    vocab_size: int = _flag(3400, "rows of the vocabulary")
    embedding_dim: int | None = _flag(None, "width of the token embeddings, widened to hidden_dim by a matrix; default: hidden_dim")
    ngram_rows: int = _flag(0, "rows of a table of hashed n-grams that is added to the token embeddings, a prime; 0: none")
    ngram_sizes: list[int] = field(default_factory=lambda: [2], metadata={"help": "which n-grams are looked up there: 2, 3 or both"})
    num_layers: int = _flag(2, "encoder layers")
    hidden_dim: int = _flag(128, "width of the encoder")
    num_heads: int = _flag(2, "attention heads a layer")
    intermediate_dim: int | None = _flag(None, "width of the feed-forward part; default: 4 x hidden_dim")
    dropout: float = _flag(0.0, "dropout; text is plenty, a tiny encoder does not overfit it")


@dataclass
class MaskedTrainingSettings:
    """How it is trained."""

    _argument_group_name: ClassVar[str] = "training"

    steps: int = _flag(20_000, "training steps")
    batch_size: int = _flag(128, "lines a step, of like length")
    learning_rate: float = _flag(2.0e-3, "peak learning rate of AdamW; warms up over 2 %% of the steps, then falls as a cosine")
    weight_decay: float = _flag(0.01, "weight decay of AdamW")
    num_proc: int = _flag(2, "processes that tokenise the corpus")
    mask_share: float = _flag(0.2, "share of the tokens to mask, in spans of 1 to 4")
    bf16: bool = _flag(False, "compute in bfloat16 where it pays: recent processors and GPUs")
    seed: int = _flag(42, "seed of weights, order and masks")
    resume: bool = _flag(False, "go on from the last checkpoint in the output folder")


@dataclass
class PretrainSettings(MaskedTrainingSettings, EncoderSettings, TextSettings):
    """What `pretrain.py` takes; every field is a flag and a key of the YAML file."""

    usage: ClassVar[str] = PRETRAIN_USAGE
    parts: ClassVar[tuple[type, ...]] = (TextSettings, EncoderSettings, MaskedTrainingSettings)

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            InputError: lists the settings that are out of range.
        """
        problems = Problems("settings")
        for name in ("num_layers", "hidden_dim", "num_heads", "steps", "batch_size"):
            if getattr(self, name) < 1:
                problems.add(f"--{name} {getattr(self, name)}", "accepted: at least 1")
        if not 0 < self.mask_share < 1:
            problems.add(f"--mask_share {self.mask_share}", "accepted: between 0 and 1")
        if not self.corpus:
            problems.add("--corpus", "names no text; accepted: files or folders")
        problems.raise_if_any()


Settings = TypeVar("Settings", bound=TrainSettings | PretrainSettings)


def settings_parser(kind: type[Settings], default_yaml: str | None) -> HfArgumentParser:
    """The flags of a script, and the YAML file that its first argument names."""
    # The usage that argparse would make lists all flags, before every error.
    usage = "%(prog)s [SETTINGS.yaml] [--SETTING VALUE ...] [--quiet] [--debug]"
    parser = HfArgumentParser(kind.parts, usage=usage, description=kind.usage, formatter_class=HelpFormatter)
    parser.add_argument(
        "settings_yaml", nargs="?", default=default_yaml, metavar="SETTINGS.yaml", help="YAML file with any of these settings"
    )
    return add_output_flags(parser)


def parse_settings(arguments: Sequence[str], default_yaml: str | None, kind: type[Settings]) -> Settings:
    """Reads flags, and the YAML file that the first argument names (`default_yaml`, if any, where it names none).

    Raises:
        InputError: the file cannot be read, holds an unknown key, or a setting is out of range.
    """
    parser = settings_parser(kind, default_yaml)
    path = parser.parse_args(arguments).settings_yaml
    names = [item.name for item in dataclasses.fields(kind)]
    # As flags, so that a YAML value passes through the same type conversion: YAML reads 1e-3 as a string.
    values = vars(parser.parse_args([*_as_flags(_read_yaml(Path(path), names) if path else {}), *arguments]))
    return kind(**{name: values[name] for name in names})


def _read_yaml(path: Path, names: list[str]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_utf8(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; accepted: settings, one `name: value` a line")
    problems = Problems(str(path))
    for key in content:
        if key not in names:
            problems.add(str(path), f"unknown setting {key!r}; {nearest(str(key), names)}")
    problems.raise_if_any()
    return content


def _as_flags(values: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in values.items():
        if value is not None and value != []:
            flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return flags
