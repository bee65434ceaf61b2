"""Settings of a training run, from a YAML file and flags; `--help` is made of the texts here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import HfArgumentParser

from ultralight.command_line import HelpFormatter, add_output_flags
from ultralight.dataset import CONTRADICTIONS
from ultralight.files import read_utf8
from ultralight.problems import InputError, Problems, nearest

# The encoder that the repository ships, and no checkpoint to start from.
BASE, SCRATCH = "base", "scratch"
# Training steps that a few thousand queries need, which are read again and again, but not for ever.
LEAST_STEPS, EPOCHS_RANGE = 2400, (3, 60)
# Epochs of more queries, and the steps that tens of thousands do with. A network without encoder layers learns more slowly, and its
# steps cost half as much.
EPOCHS, MOST_STEPS = 8, 4000
EPOCHS_WITHOUT_LAYERS, MOST_STEPS_WITHOUT_LAYERS = 12, 14_000
# A stream is evaluated, and can be resumed, so often: its epochs may be long. Patience is counted in such parts where epochs are shorter.
EVALUATIONS = 20
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
  python train.py --dataset my_data --distillation true        learns from teachers, too: 5 times as long, better where labels are few

Every setting is a flag and a key of the YAML file. A flag overrides the file, which overrides the defaults below."""


def flag(default: Any, text: str, **more: Any) -> Any:
    """A setting with its default and what `--help` says of it."""
    return field(default=default, metadata={"help": text, **more})


@dataclass
class ScriptSettings:
    """What a script takes: `usage` begins its help, `parts` are the groups of its flags."""

    usage: ClassVar[str]
    parts: ClassVar[tuple[type, ...]]

    def refuse(self, problems: Problems, wrong: Callable[[Any], bool], accepted: str, *names: str) -> None:
        """Adds a problem for each of the named settings that has a value, and a wrong one."""
        for name in names:
            value = getattr(self, name)
            if value is not None and wrong(value):
                problems.add(f"--{name} {value}", f"accepted: {accepted}")


# The settings of a run stand in parts, which are also the groups of `--help`; HfArgumentParser reads their `_argument_group_name`.
@dataclass
class DataSettings:
    """What is learnt, and where the model goes."""

    _argument_group_name: ClassVar[str] = "data"

    dataset: str = flag(
        "data/car_queries", "a .json, .jsonl, .csv or .parquet file, a folder with train.* (validation.*, test.*), or a Hub dataset id"
    )
    config: str | None = flag(None, "the labels file, {label: [absent value, value, ...]}; default: QueryLabels.json beside the dataset")
    output_dir: str | None = flag(None, "folder for the trained model; default: outputs/ and the dataset's name")
    contradictions: str = flag(
        "stop", "a text that stands twice with different labels: stop, keep the first, or drop all", choices=list(CONTRADICTIONS)
    )
    split_seed: int = flag(42, "decides which training rows become a missing validation or test split, a tenth each")
    streaming: bool = flag(
        False,
        "read the training rows (.jsonl, .csv, .parquet or a Hub dataset) anew every epoch instead of keeping them in memory; rows are not"
        " compared with each other then, and --distillation is not possible",
    )
    num_proc: int | None = flag(None, "processes that tokenise; default: one for every 100,000 queries, at most one a core")


@dataclass
class ModelSettings:
    """What the model is like."""

    _argument_group_name: ClassVar[str] = "model"

    model_name: str = flag(
        BASE,
        "BERT or UltraLight checkpoint to start from, Hub id or folder; base: the encoder in base/; scratch: random weights and a character"
        " vocabulary",
    )
    max_seq_length: int = flag(32, "longest query in tokens, longer ones are cut")
    num_layers: int = flag(2, "encoder layers; of a checkpoint, its first ones; 0: labels look at the embeddings alone")
    hidden_dim: int | None = flag(None, "width of the encoder; default: 128, or the checkpoint's")
    embedding_dim: int | None = flag(
        None,
        "width of the embeddings, widened to hidden_dim by a matrix; default: the checkpoint's, which is reduced to this, or hidden_dim",
    )
    ngram_rows: int | None = flag(
        None,
        "pairs of neighbouring tokens that get an embedding of their own, those that tell most about the labels (a prime places them best);"
        " 0: none; default: the checkpoint's own table, or 3,821 where that has more, as base has",
    )
    num_heads: int | None = flag(None, "attention heads a layer; default: 2, or the checkpoint's")
    intermediate_dim: int | None = flag(None, "width of the feed-forward part; default: 4 x hidden_dim, or the checkpoint's")
    activation: str | None = flag(
        None,
        "of the feed-forward part; default: relu, which costs nothing in the deployed graph, or, of a BERT checkpoint, its own",
        choices=["relu", "gelu"],
    )
    pooling: str = flag("mean+max", "how tokens become a query vector: cls, mean or max, or several joined by +")
    label_attention: bool = flag(True, "each label also looks at the tokens with an attention of its own")
    projection_dim: int = flag(64, "width of the reduced representation that all labels share")
    linear_share: float = flag(
        0.5, "weight, against the network, of a linear part that scores each token and n-gram by itself, fitted before training; 0: none"
    )
    embedding_bits: int = flag(
        4, "bits of each embedding weight in the deployed graph; training rounds what it reads to them", choices=[4, 8]
    )
    layer_bits: int = flag(
        8, "bits of each weight of the encoder's layers there; training rounds what it multiplies with to 4", choices=[4, 8]
    )
    dropout: float = flag(0.1, "dropout of encoder and heads")


@dataclass
class OptimizationSettings:
    """How it is trained."""

    _argument_group_name: ClassVar[str] = "training"

    epochs: int | None = flag(
        None,
        "training epochs at most; default: 8, or as many as make 2,400 to 4,000 steps, 3 to 60 (without encoder layers: 12, 14,000 steps)",
    )
    steps: int | None = flag(None, "training steps at most, instead of --epochs")
    early_stopping_patience: int = flag(
        6,
        "epochs without a better validation micro-F1 after which training stops (twentieths of the training where it has more epochs"
        " than 20, and with --streaming); 0: never",
    )
    batch_size: int = flag(32, "queries a step, of all processes together")
    learning_rate: float = flag(3.0e-3, "peak learning rate of AdamW; warms up over 6 %% of the steps, then falls linearly")
    encoder_rate: float = flag(
        0.3,
        "learning rate of the encoder's layers in multiples of that of embeddings and heads, which have more to learn from fewer queries",
    )
    weight_decay: float = flag(0.01, "weight decay of AdamW")
    class_balance: float = flag(
        0.0, "0: all values weigh alike in the loss; 1: a value weighs as the inverse of its frequency; between: a power of that"
    )
    joining: float = flag(
        0.3, "share of the training queries that are read together with another one that they do not contradict, anew every epoch"
    )
    embedding_pruning: float = flag(0.0, "share of the embedding weights, the smallest, driven to zero during training, such as 0.3")
    seed: int = flag(42, "seed of weights and batches")
    bf16: bool = flag(False, "compute in bfloat16 where it pays: recent GPUs and processors")
    fp16: bool = flag(False, "compute in half precision where it pays: older GPUs")
    resume: bool = flag(False, "go on from the last checkpoint of an interrupted run in the output folder")
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

    distillation: bool = flag(False, "learn from teachers as well as from the labels")
    teacher: list[str] = field(
        default_factory=list,
        metadata={
            "help": "folder(s) of trained models; of several, the mean is taught; default: teachers are trained first, by cross-fitting"
        },
    )
    teacher_folds: int = flag(4, "teachers to train, each without a part of the training queries, which it then labels")
    linear_teacher: float = flag(0.5, "weight of a linear model over character n-grams among the trained teachers, 0 to 1")
    transfer: list[str] = field(
        default_factory=list,
        metadata={"help": "text files, one a line, for the trained teachers to label: unlabelled queries of your domain"},
    )
    distillation_weight: float = flag(0.5, "weight of the teachers against the labels, 0 to 1")
    distillation_temperature: float = flag(1.0, "softens the teachers' and the model's distributions")


@dataclass
class ExportSettings:
    """What ships."""

    _argument_group_name: ClassVar[str] = "export"

    export_onnx: bool = flag(False, "export to ONNX after training")
    quantize: bool = flag(False, "also write the INT8 graph, score it on the test split and report both")
    architecture: str = flag(
        "avx512_vnni", "processor that the INT8 graph is made for; it runs on the others too", choices=list(ARCHITECTURES)
    )


@dataclass
class HubSettings:
    """What is published, and what its card says."""

    _argument_group_name: ClassVar[str] = "hub"

    push_to_hub: bool = flag(False, "push the finished folder to the Hugging Face Hub, in one commit; needs --hub_model_id")
    hub_model_id: str | None = flag(None, "repository to push to, such as someone/model; made if it does not exist")
    hub_private_repo: bool = flag(False, "make that repository private")
    license: str = flag("apache-2.0", "licence of the trained model as its card says it, an identifier of the Hub's list")
    language: str = flag("zh", "language of the queries as the card says it, an ISO 639 code")
    card_query: str | None = flag(None, "query that the card shows an answer to; default: made of value names, no query of the dataset")


@dataclass
class TrainSettings(HubSettings, ExportSettings, DistillationSettings, OptimizationSettings, ModelSettings, DataSettings, ScriptSettings):
    """What `train.py` takes; every field is a flag and a key of the YAML file."""

    usage: ClassVar[str] = TRAIN_USAGE
    parts: ClassVar[tuple[type, ...]] = (
        DataSettings,
        ModelSettings,
        OptimizationSettings,
        DistillationSettings,
        ExportSettings,
        HubSettings,
    )

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            InputError: lists the settings that are out of range.
        """
        problems = Problems("settings")
        counts = ("projection_dim", "batch_size", "hidden_dim", "embedding_dim", "num_heads", "intermediate_dim")
        self.refuse(problems, lambda value: value < 1, "at least 1", *counts, "epochs", "steps", "num_proc")
        shares = ("dropout", "embedding_pruning", "distillation_weight", "linear_teacher", "class_balance", "joining")
        self.refuse(problems, lambda value: not 0 <= value <= 1, "0 to 1", *shares)
        self.refuse(problems, lambda value: not 0 <= value < 1, "at least 0 and below 1", "linear_share")
        self.refuse(problems, lambda value: value < 0, "at least 0", "num_layers", "ngram_rows")
        self.refuse(problems, lambda value: value < 3, "at least 3, [CLS] and [SEP] take two", "max_seq_length")
        self.refuse(problems, lambda value: value <= 0, "above 0", "learning_rate", "encoder_rate", "distillation_temperature")
        if not self.distillation and (self.teacher or self.transfer):
            problems.add("--teacher or --transfer", "without --distillation nothing would be learnt from it; accepted: with --distillation")
        self.refuse(problems, lambda value: value < 2, "at least 2", "teacher_folds")
        if self.quantize and not self.export_onnx:
            problems.add("--quantize", "the INT8 graph is made from the ONNX one; accepted: with --export_onnx")
        self._check_combinations(problems)
        self._check_hub_name(problems)
        self._check_reports(problems)
        problems.raise_if_any()
        if self.output_dir is None:
            self.output_dir = str(Path("outputs") / Path(self.dataset.rstrip("/")).stem)

    def _check_combinations(self, problems: Problems) -> None:
        if self.epochs is not None and self.steps is not None:
            problems.add("--epochs and --steps", "both say when training ends; accepted: one of them")
        if self.bf16 and self.fp16:
            problems.add("--bf16 and --fp16", "accepted: one of them")
        if self.streaming and self.distillation:
            problems.add("--streaming", "teachers' answers to all rows would be kept in memory; accepted: without --distillation")
        if self.streaming and self.contradictions != "stop":
            problems.add(
                f"--contradictions {self.contradictions}", "rows that are streamed are not compared; accepted: without --streaming"
            )

    def _check_hub_name(self, problems: Problems) -> None:
        if self.push_to_hub and self.hub_model_id is None:
            problems.add("--push_to_hub", "it does not say where to; accepted: with --hub_model_id someone/model")
        if self.hub_model_id is not None:
            try:
                validate_repo_id(self.hub_model_id)
            except HFValidationError as error:
                problems.add(f"--hub_model_id {self.hub_model_id}", f"{error}; accepted: a name such as someone/model")

    def _check_reports(self, problems: Problems) -> None:
        self.report_to = [name for name in self.report_to if name != "none"]
        for name in self.report_to:
            if name not in REPORTS:
                problems.add(f"--report_to {name}", nearest(name, REPORTS))
            elif find_spec(name) is None:
                problems.add(f"--report_to {name}", "is not installed; accepted: after `pip install -r requirements-report.txt`")

    def epochs_for(self, rows: int) -> int:
        """Training epochs at most for a number of training rows."""
        if self.epochs is not None:
            return self.epochs
        fewest, most = EPOCHS_RANGE
        if self.streaming:  # what is too much to be kept need not be read again and again
            fewest = 1
        epoch = rows / self.batch_size
        epochs, most_steps = (EPOCHS, MOST_STEPS) if self.num_layers else (EPOCHS_WITHOUT_LAYERS, MOST_STEPS_WITHOUT_LAYERS)
        return min(most, max(fewest, round(LEAST_STEPS / epoch), min(epochs, int(most_steps / epoch))))

    def steps_for(self, rows: int) -> int:
        """Training steps at most for a number of training rows."""
        return self.steps or self._steps_an_epoch(rows) * self.epochs_for(rows)

    def patience_for(self, rows: int) -> int:
        """Evaluations without a better one after which training stops, for a number of training rows; 0: never."""
        epochs = self.steps_for(rows) / self._steps_an_epoch(rows)
        longer = 1.0 if self.streaming else max(1.0, epochs / EVALUATIONS)
        return round(self.early_stopping_patience * longer)

    def _steps_an_epoch(self, rows: int) -> int:
        return -(-rows // self.batch_size)


Settings = TypeVar("Settings", bound=ScriptSettings)


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


def assigned_flags(assignments: Sequence[str]) -> list[str]:
    """Flags for `parse_settings` from assignments such as "epochs=3", or "transfer=one.txt,two.txt" where a setting takes several."""
    return [part for name, _, values in (item.partition("=") for item in assignments) for part in (f"--{name}", *values.split(","))]


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
