"""Makes the model to train: from random weights, or from the useful part of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoTokenizer, BertModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from configuration_ultralight import UltraLightConfig
from modeling_ultralight import UltraLightForImplicitLabelPrediction, UltraLightModel
from ultralight.evidence import TrainingRows, gather_evidence
from ultralight.linear_part import fit_linear_part
from ultralight.ngrams import select_ngrams
from ultralight.problems import InputError, Problems
from ultralight.schema import LabelSchema
from ultralight.settings import BASE, SCRATCH, TrainSettings
from ultralight.vocabulary import build_tokenizer, extend_tokenizer, prune_tokenizer

logger = logging.getLogger(__name__)
Model = TypeVar("Model", bound=PreTrainedModel)

# Rows for n-grams at most, if nothing else is asked for; a prime.
NGRAM_ROWS = 3821
# Costs nothing in the deployed graph.
ACTIVATION = "relu"
BASE_FOLDER = Path(__file__).parent.parent / BASE
# Fields of a configuration that settings call otherwise.
SETTINGS_OF = {
    "embedding_size": "embedding_dim",
    "hidden_size": "hidden_dim",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "intermediate_size": "intermediate_dim",
    "hidden_dropout_prob": "dropout",
}
# By the type that a checkpoint's configuration names.
LOADERS = {"bert": (BertModel, AutoTokenizer), UltraLightConfig.model_type: (UltraLightModel, PreTrainedTokenizerFast)}


def initializer_range(hidden_size: int) -> float:
    """Standard deviation of random weights: BERT's 0.02 suits a width of 768, narrower layers need more (Glorot and Bengio, 2010)."""
    return 0.05 * (128 / hidden_size) ** 0.5


def make_model(
    settings: TrainSettings, rows: TrainingRows, schema: LabelSchema, lesson: TrainingRows | None = None
) -> tuple[UltraLightForImplicitLabelPrediction, PreTrainedTokenizerFast]:
    """Makes the model that the settings ask for, with its tokenizer; errors as in `from_checkpoint`.

    Args:
        settings: shape of the model, and what it starts from.
        rows: training rows, to which the vocabulary is fitted.
        schema: the labels.
        lesson: the rows by which n-grams are chosen and the linear part is fitted, if not the same: those and what teachers say of others.
    """
    model, tokenizer = _make_plain(settings, rows["query"], schema)
    ngram_rows = settings.ngram_rows
    if ngram_rows is None and model.config.ngram_rows > NGRAM_ROWS:  # what a general encoder has, a task needs less of
        ngram_rows = NGRAM_ROWS
    model.config.linear_share = settings.linear_share
    if ngram_rows is not None or settings.linear_share:
        evidence = gather_evidence(tokenizer, rows if lesson is None else lesson, schema)
        if ngram_rows is not None:
            select_ngrams(model, evidence, ngram_rows)
        if settings.linear_share:
            fit_linear_part(model, evidence, schema)
    return model, tokenizer


def _make_plain(
    settings: TrainSettings, texts: Iterable[str], schema: LabelSchema
) -> tuple[UltraLightForImplicitLabelPrediction, PreTrainedTokenizerFast]:
    shape: dict[str, Any] = {
        "pooling": settings.pooling,
        "label_attention": settings.label_attention,
        "projection_dim": settings.projection_dim,
        "embedding_bits": settings.embedding_bits,
        "layer_bits": settings.layer_bits,
        "hidden_dropout_prob": settings.dropout,
        "attention_probs_dropout_prob": settings.dropout,
        "classifier_dropout": settings.dropout,
        "embedding_size": settings.embedding_dim,
        "hidden_size": settings.hidden_dim,
        "num_attention_heads": settings.num_heads,
        "intermediate_size": settings.intermediate_dim,
        "hidden_act": settings.activation,
    }
    if settings.model_name != SCRATCH:
        return from_checkpoint(settings.model_name, texts, schema, settings.max_seq_length, settings.num_layers, **shape)
    hidden = settings.hidden_dim or 128
    defaults = {"hidden_size": hidden, "num_attention_heads": 2, "intermediate_size": 4 * hidden, "hidden_act": ACTIVATION}
    shape |= {field: value for field, value in defaults.items() if shape[field] is None}
    return from_scratch(texts, schema, settings.max_seq_length, num_hidden_layers=settings.num_layers, **shape)


def build(kind: type[Model], config: UltraLightConfig) -> Model:
    """A model with random weights, to be trained.

    On a processor and for short texts plain attention trains 40 % faster than PyTorch's fused one.
    """
    return kind._from_config(config, attn_implementation="sdpa" if torch.cuda.is_available() else "eager")


def from_scratch(
    texts: Iterable[str], schema: LabelSchema, max_seq_length: int, **shape: Any
) -> tuple[UltraLightForImplicitLabelPrediction, PreTrainedTokenizerFast]:
    """Makes a model with random weights and a character vocabulary.

    Args:
        texts: training queries, for the vocabulary.
        schema: the labels.
        max_seq_length: longest query in tokens.
        shape: further fields of `UltraLightConfig`.
    """
    tokenizer = build_tokenizer(texts, max_seq_length)
    shape.setdefault("initializer_range", initializer_range(shape.get("hidden_size", 128)))
    config = UltraLightConfig(
        vocab_size=len(tokenizer),
        max_seq_length=max_seq_length,
        max_position_embeddings=max_seq_length,
        label_schema=schema.to_dict(),
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    return build(UltraLightForImplicitLabelPrediction, config), tokenizer


def from_checkpoint(
    name: str, texts: Iterable[str], schema: LabelSchema, max_seq_length: int, num_hidden_layers: int, **shape: Any
) -> tuple[UltraLightForImplicitLabelPrediction, PreTrainedTokenizerFast]:
    """Takes over a checkpoint's first layers, its embeddings and its tokenizer.

    Of a BERT's vocabulary, what can be reached; an UltraLight one has nothing to spare and gets the characters it lacks.

    Args:
        name: Hub id or folder of a BERT checkpoint, or of an UltraLight one; "base": the encoder in base/.
        texts: training queries: the vocabulary is fitted to them.
        schema: the labels.
        max_seq_length: longest query in tokens.
        num_hidden_layers: layers to take, the first ones.
        shape: further fields of `UltraLightConfig`; the widths follow the checkpoint.

    Raises:
        InputError: the checkpoint cannot be read, is no BERT, has fewer layers or positions than asked for, or a width
            that `shape` contradicts.
    """
    encoder, tokenizer = load_checkpoint(name)
    source = encoder.config
    is_ours = source.model_type == UltraLightConfig.model_type
    _check_fit(name, source, max_seq_length, num_hidden_layers, shape)
    if is_ours:
        fitted, rows = extend_tokenizer(tokenizer, texts, max_seq_length)
    else:
        fitted, rows = prune_tokenizer(tokenizer, texts, max_seq_length)
        logger.info("%s: %d of %d vocabulary rows taken over", name, len(rows), source.vocab_size)
    config = UltraLightConfig(
        **{field: getattr(source, field) for field in _FOLLOWED if hasattr(source, field)},
        embedding_size=shape.pop("embedding_size", None) or getattr(source, "embedding_size", source.hidden_size),
        hidden_act=shape.pop("hidden_act", None) or (ACTIVATION if is_ours else source.hidden_act),
        vocab_size=len(fitted),
        initializer_range=initializer_range(source.hidden_size),
        num_hidden_layers=num_hidden_layers,
        max_seq_length=max_seq_length,
        max_position_embeddings=max_seq_length,
        label_schema=schema.to_dict(),
        pad_token_id=fitted.pad_token_id,
        **{key: value for key, value in shape.items() if key not in _FOLLOWED},
    )
    model = build(UltraLightForImplicitLabelPrediction, config)
    _copy_weights(encoder, model, rows, max_seq_length)
    return model, fitted


# Fields of the configuration that a checkpoint decides.
_FOLLOWED = (
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "layer_norm_eps",
    "ngram_rows",
    "ngram_sizes",
    "ngram_hashes",
)


def load_checkpoint(name: str) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """Loads a checkpoint's encoder and tokenizer with classes that are at hand: nothing that it brings along is run.

    Args:
        name: Hub id or folder of a BERT checkpoint, or of an UltraLight one; "base": the encoder in base/.

    Raises:
        InputError: it cannot be read, or is neither.
    """
    folder = str(BASE_FOLDER) if name == BASE else name
    try:
        kind = PretrainedConfig.get_config_dict(folder)[0].get("model_type")
        if kind not in LOADERS:
            raise InputError(f"--model_name {name}: a {kind} model; accepted: {' or '.join(LOADERS)}")
        model_class, tokenizer_class = LOADERS[kind]
        return model_class.from_pretrained(folder).float(), tokenizer_class.from_pretrained(folder)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--model_name {name}: no checkpoint can be read from there ({error})") from error


def _check_fit(name: str, source: Any, max_seq_length: int, num_hidden_layers: int, shape: dict[str, Any]) -> None:
    if num_hidden_layers > source.num_hidden_layers:
        raise InputError(f"--num_layers {num_hidden_layers}: {name} has {source.num_hidden_layers}")
    if max_seq_length > source.max_position_embeddings and source.model_type != UltraLightConfig.model_type:
        raise InputError(f"--max_seq_length {max_seq_length}: {name} reads at most {source.max_position_embeddings} tokens")
    widest = getattr(source, "embedding_size", source.hidden_size)
    if (shape.get("embedding_size") or widest) > widest:
        raise InputError(f"--embedding_dim {shape['embedding_size']}: {name} has {widest}; accepted: at most that")
    refuse_other_shape(name, source, {field: asked for field, asked in shape.items() if field in _FOLLOWED})


def refuse_other_shape(name: str, source: PretrainedConfig, shape: dict[str, Any]) -> None:
    """Compares what was asked for with what a checkpoint has.

    Args:
        name: of the checkpoint.
        source: its configuration.
        shape: fields of a configuration, None where nothing was asked for.

    Raises:
        InputError: lists what contradicts the checkpoint.
    """
    problems = Problems("settings")
    for field, asked in shape.items():
        has = getattr(source, field)
        if asked not in (None, has):
            problems.add(f"--{SETTINGS_OF.get(field, field)} {asked}", f"{name} has {has}; leave it out, it follows the checkpoint")
    problems.raise_if_any()


def _copy_weights(encoder: BertModel, model: UltraLightForImplicitLabelPrediction, rows: list[int], positions: int) -> None:
    """Copies what the new encoder has a place for: the vocabulary's `rows`, reachable positions, the first layers.

    Vocabulary rows beyond those that the checkpoint has keep their random weights; places beyond its last begin like the last.
    """
    state, wanted = encoder.state_dict(), model.bert.state_dict()
    if model.config.embedding_size < getattr(encoder.config, "embedding_size", encoder.config.hidden_size):
        _narrow_embeddings(state, model.config.embedding_size)
    words, places, segments = (f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type"))
    state[words] = torch.cat([state[words][torch.tensor(rows)], wanted[words][len(rows) :]])
    state[places] = state[places][torch.arange(positions).clamp(max=len(state[places]) - 1)]
    state[segments] = state[segments][: len(wanted[segments])]  # a query is one segment, the first
    model.bert.load_state_dict({key: state[key] for key in wanted})


def _narrow_embeddings(state: dict[str, torch.Tensor], width: int) -> None:
    """Reduces the tables that are looked up to `width` columns, so that what the encoder is given changes least, in place.

    The truncated singular value decomposition of the tables times the matrix that widens them (Eckart and Young, 1936).
    """
    names = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "ngram") if f"embeddings.{kind}_embeddings.weight" in state]
    tables, widening = torch.cat([state[name] for name in names]), state.get("embeddings.widening.weight")
    left, sizes, right = torch.linalg.svd(tables if widening is None else tables @ widening.T, full_matrices=False)
    narrow = (left * sizes)[:, :width].split([len(state[name]) for name in names])
    state.update(zip(names, narrow, strict=True))
    state["embeddings.widening.weight"] = right[:width].T.contiguous()
