"""Configuration of UltraLight models. Travels to the Hub with the weights and imports nothing of the project."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

POOLINGS = ("cls", "mean", "max")
NGRAM_SIZES = (2, 3)
WEIGHT_BITS = (4, 8)
# Probability of its absent value from which on a label is absent, where the configuration names none.
DEFAULT_THRESHOLD = 0.5


def custom_pipelines() -> dict[str, dict[str, Any]]:
    """What `transformers.pipeline` needs to know of the task that classifiers are made for."""
    options = {"impl": "pipeline_ultralight.ImplicitLabelPipeline", "pt": ["AutoModelForSequenceClassification"]}
    return {"implicit-label-prediction": options}


class UltraLightConfig(PretrainedConfig):
    """Shape, label schema and decision thresholds of an UltraLight model.

    Args:
        vocab_size: rows of the token-embedding table.
        embedding_size: width of the token embeddings, which a matrix widens to `hidden_size` (Lan et al., 2020, "ALBERT"); None: as
            wide as the encoder, without that matrix.
        ngram_rows: rows of the table of n-grams that is added to the token embeddings, each with one of its own; 0: none.
        ngram_sizes: which n-grams are looked up there, of 2 and 3 tokens.
        ngram_hashes: rows where an n-gram may stand.
        embedding_bits: bits, 4 or 8, in which token and n-gram embeddings will be deployed; training rounds what it reads to them.
        layer_bits: the same of the weights of the encoder's layers, with a scale for each output; 8 need no such training.
        hidden_size: width of the encoder.
        num_hidden_layers: encoder layers.
        num_attention_heads: attention heads per layer; divides `hidden_size`.
        intermediate_size: width of the feed-forward part of a layer.
        max_position_embeddings: longest sequence the encoder can read, in tokens.
        max_seq_length: length that queries are cut to, in tokens ([CLS] and [SEP] included).
        pooling: how token states become one query vector; several of "cls", "mean", "max" joined by "+" are concatenated.
        label_attention: each label also looks at the tokens with an attention of its own (Mullenbach et al., 2018, "Explainable
            Prediction of Medical Codes"), and so has a representation of its own; all share the space that they lie in.
        projection_dim: width of the representation that all labels share.
        linear_share: weight, 0 to 1, of scores that are linear in tokens and n-grams, against those of the network; 0: there are none.
        label_schema: label -> its values, the absent value first; kept as [label, values] pairs, because a configuration
            file sorts the keys of an object, and the order of the labels is the order of the logits.
        thresholds: label -> probability of the absent value from which on the label is absent (0.5 where left out).
        class_weights: one loss weight per value, in the order of the logits; None weighs all alike.
        training_facts: what the model was trained on and how, for the model card; never read by the model.

    Raises:
        ValueError: an unknown pooling, n-gram size or number of bits; a label schema that is empty or has a label of fewer than two values.
    """

    model_type = "ultralight"

    def __init__(
        self,
        vocab_size: int = 4000,
        embedding_size: int | None = None,
        ngram_rows: int = 0,
        ngram_sizes: Sequence[int] = (2,),
        ngram_hashes: int = 2,
        embedding_bits: int = 8,
        layer_bits: int = 8,
        hidden_size: int = 128,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 2,
        intermediate_size: int = 512,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        classifier_dropout: float = 0.1,
        max_position_embeddings: int = 32,
        max_seq_length: int = 32,
        type_vocab_size: int = 1,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        pooling: str = "mean+max",
        label_attention: bool = False,
        projection_dim: int = 64,
        linear_share: float = 0.0,
        label_schema: dict[str, list[str]] | list[tuple[str, list[str]]] | None = None,
        thresholds: dict[str, float] | None = None,
        class_weights: list[float] | None = None,
        training_facts: dict[str, Any] | None = None,
        pad_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        unknown = [part for part in pooling.split("+") if part not in POOLINGS]
        if unknown:
            raise ValueError(f"pooling={pooling!r}: {unknown[0]!r} is not one of {', '.join(POOLINGS)}")
        if not set(ngram_sizes) <= set(NGRAM_SIZES):
            raise ValueError(f"ngram_sizes={list(ngram_sizes)}: accepted: of {', '.join(map(str, NGRAM_SIZES))}")
        for name, bits in (("embedding_bits", embedding_bits), ("layer_bits", layer_bits)):
            if bits not in WEIGHT_BITS:
                raise ValueError(f"{name}={bits}: accepted: {' or '.join(map(str, WEIGHT_BITS))}")
        self.vocab_size = vocab_size
        self.embedding_size = hidden_size if embedding_size is None else embedding_size
        self.ngram_rows = ngram_rows
        self.ngram_sizes = list(ngram_sizes)
        self.ngram_hashes = ngram_hashes
        self.embedding_bits = embedding_bits
        self.layer_bits = layer_bits
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.classifier_dropout = classifier_dropout
        self.max_position_embeddings = max_position_embeddings
        self.max_seq_length = max_seq_length
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.pooling = pooling
        self.label_attention = label_attention
        self.projection_dim = projection_dim
        self.linear_share = linear_share
        self.label_schema = None if label_schema is None else [[label, list(values)] for label, values in dict(label_schema).items()]
        self.thresholds = dict(thresholds or {})
        self.class_weights = class_weights
        self.training_facts = dict(training_facts or {})
        # transformers' Bert modules read these; transformers 5 no longer gives them to every config.
        self.position_embedding_type = "absolute"
        self.chunk_size_feed_forward = 0
        self.is_decoder = False
        self.add_cross_attention = False
        self.use_cache = False
        self.tie_word_embeddings = kwargs.pop("tie_word_embeddings", True)
        for name in ("position_embedding_type", "chunk_size_feed_forward", "is_decoder", "add_cross_attention", "use_cache"):
            kwargs.pop(name, None)
        if self.label_schema is not None:
            kwargs.update(self._classification_fields(self.label_schema))
        # The whole map, not only the class being saved: AutoModel must load a folder that holds a head as well.
        kwargs["auto_map"] = {
            "AutoConfig": "configuration_ultralight.UltraLightConfig",
            "AutoModel": "modeling_ultralight.UltraLightModel",
            "AutoModelForMaskedLM": "modeling_ultralight.UltraLightForMaskedLM",
            "AutoModelForSequenceClassification": "modeling_ultralight.UltraLightForImplicitLabelPrediction",
        }
        super().__init__(pad_token_id=pad_token_id, **kwargs)

    def to_json_string(self, use_diff: bool = True) -> str:
        """The configuration as JSON, a line for each field: half the bytes of the usual layout, which gives every value a line."""
        fields = json.loads(super().to_json_string(use_diff))
        lines = (f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @staticmethod
    def _classification_fields(label_schema: list[list[Any]]) -> dict[str, Any]:
        """`id2label` such as {0: "价位=none", 1: "价位=经济"}, and what pipelines go by: the stock one applies a sigmoid, then."""
        if not label_schema or any(len(values) < 2 for _, values in label_schema):
            raise ValueError("label_schema needs at least one label, each with the absent value and one more")
        names = [f"{label}={value}" for label, values in label_schema for value in values]
        return {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
            "problem_type": "multi_label_classification",
            "custom_pipelines": custom_pipelines(),
        }
