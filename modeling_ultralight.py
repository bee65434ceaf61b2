"""UltraLight in PyTorch: a two-layer BERT, one reduced representation that all labels share, one head per label.

    query -> embeddings -> encoder -> pooling -> projection -> shared representation -> heads -> log-odds within each label

Travels to the Hub with the weights: imports its configuration and nothing else of the project, and loads with
transformers 4.57 and 5 alike.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import MaskedLMOutput, SequenceClassifierOutput
from transformers.models.bert.modeling_bert import BertModel, BertOnlyMLMHead, BertPreTrainedModel

try:  # inside a package: how transformers loads remote code
    from .configuration_ultralight import UltraLightConfig
except ImportError:  # as a top-level file: how the project's own scripts load it
    from configuration_ultralight import UltraLightConfig

CODE_FILES = ("configuration_ultralight.py", "modeling_ultralight.py")
# A score that leaves no probability, and that is finite: infinities would turn into NaN in gradients.
NEVER = -1e9


def copy_code(folder: str | Path) -> None:
    """Copies the two Python files that `trust_remote_code=True` needs into `folder`."""
    for name in CODE_FILES:
        source, target = Path(__file__).resolve().with_name(name), Path(folder).resolve() / name
        if source != target:
            shutil.copyfile(source, target)


class _SavesItsCode:
    """Puts the code that loads a model beside its weights, also when it was itself loaded as remote code."""

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Saves weights, configuration and the code that loads them."""
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        copy_code(save_directory)


class UltraLightModel(_SavesItsCode, BertModel):
    """The encoder: transformers' own BERT modules under an `UltraLightConfig`, without BERT's pooler."""

    config_class = UltraLightConfig

    def __init__(self, config: UltraLightConfig) -> None:
        super().__init__(config, add_pooling_layer=False)


class UltraLightForMaskedLM(_SavesItsCode, BertPreTrainedModel):
    """The encoder with BERT's head for masked language modelling, to pre-train it."""

    config_class = UltraLightConfig
    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    def __init__(self, config: UltraLightConfig) -> None:
        super().__init__(config)
        self.bert = UltraLightModel(config)
        self.cls = BertOnlyMLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The output layer, tied to the token embeddings."""
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the output layer."""
        self.cls.predictions.decoder = new_embeddings
        self.cls.predictions.bias = new_embeddings.bias

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> MaskedLMOutput | tuple[Tensor, ...]:
        """Predicts masked tokens.

        Args:
            input_ids: token ids (batch, seq_len).
            attention_mask: 1 for tokens, 0 for padding (batch, seq_len).
            token_type_ids: segment ids (batch, seq_len).
            labels: the right token where one is to be predicted, -100 elsewhere (batch, seq_len).
            return_dict: False returns a tuple.

        Returns:
            Without labels, `logits` of all places (batch, seq_len, vocab_size). With labels, `logits` of the labelled
            places alone (labelled places, vocab_size), in reading order, and their mean cross-entropy as `loss`: six
            times less to compute than the logits of all.
        """
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        if labels is None:
            logits = self.cls(states)
            return (logits,) if return_dict is False else MaskedLMOutput(logits=logits)
        wanted = labels != -100
        logits = self.cls(states[wanted])
        loss = cross_entropy(logits, labels[wanted])
        return (loss, logits) if return_dict is False else MaskedLMOutput(loss=loss, logits=logits)


class UltraLightForImplicitLabelPrediction(_SavesItsCode, BertPreTrainedModel):
    """Says for every label of the schema which of its values a query implies.

    Args:
        config: a configuration whose `label_schema` is set.

    Raises:
        ValueError: `config.label_schema` is missing.
    """

    config_class = UltraLightConfig

    def __init__(self, config: UltraLightConfig) -> None:
        super().__init__(config)
        if config.label_schema is None:
            raise ValueError("the configuration has no label_schema: without labels there is nothing to predict")
        sizes = [len(values) for _, values in config.label_schema]
        self.values_per_label = sizes
        self.bert = UltraLightModel(config)
        self.projection = nn.Linear(config.hidden_size * len(config.pooling.split("+")), config.projection_dim)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(config.classifier_dropout)
        # One head per label. Their rows are stacked in one matrix: a single multiplication, whatever the number of labels.
        self.heads = nn.Linear(config.projection_dim, sum(sizes))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Predicts all labels of a batch of queries.

        Args:
            input_ids: token ids (batch, seq_len).
            attention_mask: 1 for tokens, 0 for padding (batch, seq_len); all ones where left out.
            token_type_ids: segment ids (batch, seq_len); zeros where left out.
            inputs_embeds: token embeddings instead of `input_ids` (batch, seq_len, hidden_size).
            labels: index of the right value within each label (batch, labels); -100 is ignored.
            return_dict: False returns a tuple.

        Returns:
            `logits` (batch, sum of values): log-odds of each value within its label, so that `sigmoid(logits)` sums to 1
            over the values of a label; `loss`, where `labels` are given: the cross-entropy, averaged over labels and queries.
        """
        states = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, inputs_embeds=inputs_embeds
        ).last_hidden_state  # (batch, seq_len, hidden_size)
        shared = self.dropout(self.activation(self.projection(self._pool(states, attention_mask))))  # (batch, projection_dim)
        log_probs = self._log_softmax_within_labels(self.heads(shared))  # (batch, labels, most values of a label)
        loss = None if labels is None else self._loss(log_probs, labels)
        logits = self._log_odds(log_probs)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _pool(self, states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Reduces token states (batch, seq_len, hidden_size) to query vectors (batch, poolings * hidden_size)."""
        pooled = []
        mask = None if attention_mask is None else attention_mask.unsqueeze(-1).to(states.dtype)  # (batch, seq_len, 1)
        for kind in self.config.pooling.split("+"):
            if kind == "cls":
                pooled.append(states[:, 0])
            elif kind == "mean":
                pooled.append(states.mean(1) if mask is None else (states * mask).sum(1) / mask.sum(1))
            else:
                pooled.append((states if mask is None else states + (mask - 1) * 1e4).amax(1))
        return torch.cat(pooled, dim=-1)

    def _padded_index(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Where each value sits in a (labels, most values of a label) grid, and which cells of that grid are padding."""
        widest = max(self.values_per_label)
        index, padding, start = [], [], 0
        for size in self.values_per_label:
            index += [start + min(offset, size - 1) for offset in range(widest)]
            padding += [0.0 if offset < size else NEVER for offset in range(widest)]
            start += size
        # Built anew instead of kept as buffers: constants in an exported graph, and nothing that loading could garble.
        return torch.tensor(index, device=device), torch.tensor(padding, device=device)

    def _log_softmax_within_labels(self, scores: Tensor) -> Tensor:
        """Log-probabilities within each label (batch, labels, most values of a label) of raw scores (batch, sum of values)."""
        index, padding = self._padded_index(scores.device)
        grid = scores.index_select(1, index) + padding.to(scores.dtype)
        return grid.view(-1, len(self.values_per_label), max(self.values_per_label)).log_softmax(-1)

    def _log_odds(self, log_probs: Tensor) -> Tensor:
        """Log p - log(1 - p) of every value, padding dropped: (batch, sum of values).

        1 - p of a label's likeliest value is the sum of the others: subtracting p from 1 would leave it no digits.
        """
        widest = max(self.values_per_label)
        is_top = torch.arange(widest, device=log_probs.device) == log_probs.argmax(-1, keepdim=True)
        others_of_top = log_probs.masked_fill(is_top, NEVER).logsumexp(-1, keepdim=True)
        log_complement = torch.where(is_top, others_of_top, torch.log(1 - log_probs.exp().masked_fill(is_top, 0)))
        cells = [row * widest + column for row, size in enumerate(self.values_per_label) for column in range(size)]
        return (log_probs - log_complement).flatten(1).index_select(1, torch.tensor(cells, device=log_probs.device))

    def _loss(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy within each label, averaged over queries and labels (class-weighted where configured)."""
        labels = labels.to(log_probs.device)
        known = labels >= 0
        chosen = log_probs.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)  # (batch, labels)
        weights = known.to(log_probs.dtype)
        if self.config.class_weights is not None:
            starts = torch.tensor([sum(self.values_per_label[:i]) for i in range(len(self.values_per_label))], device=labels.device)
            per_value = torch.tensor(self.config.class_weights, dtype=log_probs.dtype, device=labels.device)
            weights = weights * per_value[starts + labels.clamp(min=0)]
        return -(weights * chosen).sum() / known.sum().clamp(min=1)
