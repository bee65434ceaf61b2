"""Settings of a pre-training run; `--help` is made of the texts here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ultralight.problems import Problems
from ultralight.settings import SCRATCH, ScriptSettings, flag

PRETRAIN_USAGE = """\
Pre-trains an encoder by masked language modelling on text files, one sentence a line.

Worth it when your queries are of a language or a field that the encoder in base/ has not read: text without labels is cheap, and
an encoder that has read the words needs fewer labelled queries.

examples:
  python pretrain.py --corpus my_texts/ --output_dir my_base
  python pretrain.py --model_name base --corpus my_texts/ --output_dir my_base     goes on from the encoder in base/
  python pretrain.py configs/pretrain.yaml --steps 100000 --bf16 true
  python train.py --model_name my_base --dataset my_data           then starts from it

Every setting is a flag and a key of the YAML file. A flag overrides the file, which overrides the defaults below."""


@dataclass
class TextSettings:
    """What is read, and where the encoder goes."""

    _argument_group_name: ClassVar[str] = "text"

    corpus: list[str] = field(default_factory=list, metadata={"help": "text files, or folders of .txt files, one sentence a line"})
    weights: list[str] = field(
        default_factory=list, metadata={"help": "NAME=NUMBER: draw a file's lines so much oftener (0: leave it out)"}
    )
    exclude: list[str] = field(default_factory=list, metadata={"help": "datasets whose queries must not be read, such as test files"})
    output_dir: str = flag("outputs/base", "folder for the encoder and its tokenizer")


@dataclass
class EncoderSettings:
    """What the encoder is like."""

    _argument_group_name: ClassVar[str] = "encoder"

    model_name: str = flag(
        SCRATCH,
        "encoder to go on from, with its tokenizer and its shape, a folder or Hub id; base: the one in base/; scratch: random weights",
    )
    max_seq_length: int | None = flag(None, "longest line in tokens, longer ones are cut; default: 64")
    vocab_size: int | None = flag(None, "rows of the vocabulary; default: 3,400")
    embedding_dim: int | None = flag(None, "width of the token embeddings, widened to hidden_dim by a matrix; default: hidden_dim")
    ngram_rows: int | None = flag(
        None,
        "the most frequent n-grams of the texts get so many embeddings of their own, which are added to the tokens' (a prime places them"
        " best); 0: none; default: none; of an encoder to go on from, those it has, or as many others as this says",
    )
    ngram_sizes: list[int] | None = field(default=None, metadata={"help": "which n-grams: of 2 tokens, 3 or both; default: 2"})
    num_layers: int | None = flag(None, "encoder layers; default: 2")
    hidden_dim: int | None = flag(None, "width of the encoder; default: 128")
    num_heads: int | None = flag(None, "attention heads a layer; default: 2")
    intermediate_dim: int | None = flag(None, "width of the feed-forward part; default: 4 x hidden_dim")
    dropout: float | None = flag(None, "dropout; default: 0, text is plenty, a tiny encoder does not overfit it")


@dataclass
class MaskedTrainingSettings:
    """How it is trained."""

    _argument_group_name: ClassVar[str] = "training"

    steps: int = flag(20_000, "training steps")
    batch_size: int = flag(128, "lines a step, of like length")
    learning_rate: float = flag(2.0e-3, "peak learning rate of AdamW; warms up over 2 %% of the steps, then falls as a cosine")
    weight_decay: float = flag(0.01, "weight decay of AdamW")
    num_proc: int = flag(2, "processes that tokenise the corpus")
    mask_share: float = flag(0.2, "share of the tokens to mask, in spans of 1 to 4")
    bf16: bool = flag(False, "compute in bfloat16 where it pays: recent processors and GPUs")
    seed: int = flag(42, "seed of weights, order and masks")
    resume: bool = flag(False, "go on from the last checkpoint in the output folder")


@dataclass
class PretrainSettings(MaskedTrainingSettings, EncoderSettings, TextSettings, ScriptSettings):
    """What `pretrain.py` takes; every field is a flag and a key of the YAML file."""

    usage: ClassVar[str] = PRETRAIN_USAGE
    parts: ClassVar[tuple[type, ...]] = (TextSettings, EncoderSettings, MaskedTrainingSettings)

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            InputError: lists the settings that are out of range.
        """
        problems = Problems("settings")
        shape = ("vocab_size", "embedding_dim", "num_layers", "hidden_dim", "num_heads", "intermediate_dim")
        self.refuse(problems, lambda value: value < 3, "at least 3, [CLS] and [SEP] take two", "max_seq_length")
        self.refuse(problems, lambda value: value < 1, "at least 1", *shape, "steps", "batch_size", "num_proc")
        self.refuse(problems, lambda value: value < 0, "at least 0", "ngram_rows", "weight_decay")
        self.refuse(problems, lambda value: value <= 0, "above 0", "learning_rate")
        self.refuse(problems, lambda value: not 0 <= value < 1, "at least 0 and below 1", "dropout")
        self.refuse(problems, lambda value: not 0 < value < 1, "between 0 and 1", "mask_share")
        if not self.corpus:
            problems.add("--corpus", "names no text; accepted: files or folders")
        problems.raise_if_any()
