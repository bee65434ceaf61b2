"""UltraLight in PyTorch: a two-layer BERT, one reduced representation that all labels share, one head per label.

    query -> embeddings -> encoder -> pooling -> projection -> shared representation -> heads -> log-odds within each label

Travels to the Hub with the weights: imports its configuration and nothing else of the project, and loads with
transformers 4.57 and 5 alike.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import MaskedLMOutput, SequenceClassifierOutput
from transformers.models.albert.modeling_albert import AlbertMLMHead
from transformers.models.bert.modeling_bert import BertEmbeddings, BertModel, BertPreTrainedModel

try:  # inside a package: how transformers loads remote code
    from .configuration_ultralight import UltraLightConfig
except ImportError:  # as a top-level file: how the project's own scripts load it
    from configuration_ultralight import UltraLightConfig

if TYPE_CHECKING:  # transformers reads, but never runs it: the pipeline then lies beside this file wherever that is loaded from
    from .pipeline_ultralight import ImplicitLabelPipeline  # noqa: F401

CODE_FILES = ("configuration_ultralight.py", "modeling_ultralight.py", "pipeline_ultralight.py")
# A score that leaves no probability, and that is finite: infinities would turn into NaN in gradients.
NEVER = -1e9
# Taken from what padding would contribute to a maximum or a softmax: beyond any state, and within half precision.
MASKED = 1e4


def copy_code(folder: str | Path) -> None:
    """Copies the Python files that `trust_remote_code=True` needs into `folder`."""
    for name in CODE_FILES:
        source, target = Path(__file__).resolve().with_name(name), Path(folder).resolve() / name
        if source != target:
            shutil.copyfile(source, target)


class NgramEmbedding(nn.Embedding):
    """One table for all n-grams of tokens, read at hashed rows (Svenstrup et al., 2017, "Hash Embeddings").

    It gives a small encoder the words and phrases that characters alone would have to be composed to. The hashes are
    linear in the token ids, modulo the number of rows (Carter and Wegman, 1979): two operators of a graph.
    """

    # Factors of the last, the one before and the one before that token; a row of factors for each hash.
    FACTORS = ((7919, 104729, 15485863), (6133, 86243, 22801763), (9241, 69031, 28657013), (3571, 47701, 17624813))

    def __init__(self, config: UltraLightConfig) -> None:
        super().__init__(config.ngram_rows, config.embedding_size)
        self.factors = [self.FACTORS[number][:size] for size in config.ngram_sizes for number in range(config.ngram_hashes)]

    def forward(self, input_ids: Tensor) -> Tensor:
        """Sum of the rows of the n-grams that end at each token (batch, seq_len, embedding_size), from ids (batch, seq_len)."""
        length = input_ids.shape[1]
        shifted = [input_ids, *(nn.functional.pad(input_ids, (back, 0))[:, :length] for back in (1, 2))]
        looked_up = [super(NgramEmbedding, self).forward(self._rows(shifted, factors)) for factors in self.factors]
        return sum(looked_up[1:], start=looked_up[0])

    def _rows(self, shifted: list[Tensor], factors: tuple[int, ...]) -> Tensor:
        keys = shifted[0] * factors[0] + len(factors)
        for ids, factor in zip(shifted[1:], factors[1:], strict=False):
            keys = keys + ids * factor
        return keys % self.num_embeddings


class UltraLightEmbeddings(BertEmbeddings):
    """BERT's embeddings, narrower than the encoder where configured, and with hashed n-grams."""

    def __init__(self, config: UltraLightConfig) -> None:
        super().__init__(config)
        self.ngram_embeddings = NgramEmbedding(config) if config.ngram_rows else None
        self.widening = None
        if config.embedding_size != config.hidden_size:
            self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
            self.widening = nn.Linear(config.embedding_size, config.hidden_size, bias=False)

    def forward(self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **more: Any) -> Tensor:
        """Embeds token ids (batch, seq_len), or takes `inputs_embeds` (batch, seq_len, embedding_size) for their sum with the n-grams'."""
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
            if self.ngram_embeddings is not None:
                inputs_embeds = inputs_embeds + self.ngram_embeddings(input_ids)
        if self.widening is not None:
            inputs_embeds = self.widening(inputs_embeds)
        return super().forward(inputs_embeds=inputs_embeds, **more)


class _UltraLightMixin:
    """What all models share: their configuration, how weights begin, and that the code that loads them travels with them."""

    config_class = UltraLightConfig

    def _init_weights(self, module: nn.Module) -> None:
        """N-grams begin at zero: one that training never meets then says nothing, instead of noise."""
        super()._init_weights(module)  # type: ignore[misc]
        if isinstance(module, NgramEmbedding):
            nn.init.zeros_(module.weight)
        elif isinstance(module, AlbertMLMHead):
            nn.init.zeros_(module.bias)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Saves weights, configuration and the code that loads them, also when that was itself loaded as remote code."""
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        copy_code(save_directory)


class UltraLightModel(_UltraLightMixin, BertModel):
    """The encoder: transformers' own BERT layers over `UltraLightEmbeddings`, without BERT's pooler."""

    def __init__(self, config: UltraLightConfig) -> None:
        super().__init__(config, add_pooling_layer=False)
        self.embeddings = UltraLightEmbeddings(config)
        self.post_init()


class UltraLightForMaskedLM(_UltraLightMixin, BertPreTrainedModel):
    """The encoder with a head for masked language modelling, to pre-train it."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    }

    def __init__(self, config: UltraLightConfig) -> None:
        super().__init__(config)
        self.bert = UltraLightModel(config)
        self.predictions = AlbertMLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The output layer, tied to the token embeddings."""
        return self.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the output layer."""
        self.predictions.decoder = new_embeddings
        self.predictions.bias = new_embeddings.bias

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
            logits = self.predictions(states)
            return (logits,) if return_dict is False else MaskedLMOutput(logits=logits)
        wanted = labels != -100
        logits = self.predictions(states[wanted])
        loss = cross_entropy(logits, labels[wanted])
        return (loss, logits) if return_dict is False else MaskedLMOutput(loss=loss, logits=logits)


class LabelAttention(nn.Module):
    """What each label sees when it looks at the tokens that matter to it, in the space that all labels share.

    Args:
        config: the model's configuration.
        labels: how many labels there are.
    """

    def __init__(self, config: UltraLightConfig, labels: int) -> None:
        super().__init__()
        self.relevance = nn.Linear(config.hidden_size, labels, bias=False)
        self.projection = nn.Linear(2 * config.hidden_size, config.projection_dim, bias=False)

    def forward(self, states: Tensor, embedded: Tensor, mask: Tensor) -> Tensor:
        """Reads what the encoder made of the tokens, and beside it their embeddings: the words themselves are evidence, too.

        Args:
            states: what the encoder made of the tokens (batch, seq_len, hidden_size).
            embedded: what it was given (batch, seq_len, hidden_size).
            mask: 1 for tokens, 0 for padding (batch, seq_len).

        Returns:
            One vector for each label (batch, labels, projection_dim).
        """
        relevance = self.relevance(states) + (mask.unsqueeze(-1) - 1) * MASKED  # (batch, seq_len, labels)
        return self.projection(relevance.softmax(1).transpose(1, 2) @ torch.cat([states, embedded], dim=-1))


class UltraLightForImplicitLabelPrediction(_UltraLightMixin, BertPreTrainedModel):
    """Says for every label of the schema which of its values a query implies.

    Args:
        config: a configuration whose `label_schema` is set.

    Raises:
        ValueError: `config.label_schema` is missing.
    """

    def __init__(self, config: UltraLightConfig) -> None:
        super().__init__(config)
        if config.label_schema is None:
            raise ValueError("the configuration has no label_schema: without labels there is nothing to predict")
        sizes = [len(values) for _, values in config.label_schema]
        self.values_per_label = sizes
        self.bert = UltraLightModel(config)
        self.poolings = config.pooling.split("+")
        self.projection = nn.Linear(config.hidden_size * len(self.poolings), config.projection_dim)
        self.label_attention = LabelAttention(config, len(sizes)) if config.label_attention else None
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
        encoded = self.bert(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            output_hidden_states=True,
        )
        states, embedded = encoded.last_hidden_state, encoded.hidden_states[0]  # both (batch, seq_len, hidden_size)
        mask = torch.ones_like(states[..., 0]) if attention_mask is None else attention_mask.to(states.dtype)
        shared = self.projection(self._pool(states, mask.unsqueeze(-1)))  # (batch, projection_dim)
        if self.label_attention is not None:
            shared = shared.unsqueeze(1) + self.label_attention(states, embedded, mask)  # (batch, labels, projection_dim)
        scores = self._scores(self.dropout(self.activation(shared)))  # (batch, sum of values)
        log_probs = self._log_softmax_within_labels(scores)  # (batch, labels, most values of a label)
        loss = None if labels is None else self._loss(log_probs, labels)
        logits = self._log_odds(log_probs)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """Reduces token states (batch, seq_len, hidden_size) under a mask (batch, seq_len, 1) to (batch, poolings * hidden_size)."""
        pooled = []
        for kind in self.poolings:
            if kind == "cls":
                pooled.append(states[:, 0])
            elif kind == "mean":
                pooled.append((states * mask).sum(1) / mask.sum(1))
            else:
                pooled.append((states + (mask - 1) * MASKED).amax(1))
        return torch.cat(pooled, dim=-1)

    def _scores(self, shared: Tensor) -> Tensor:
        """Raw scores of all values (batch, sum of values), from one representation of the query or from one for each label."""
        if self.label_attention is None:
            return self.heads(shared)
        # Each head reads the representation of its own label only.
        owners = [label for label, size in enumerate(self.values_per_label) for _ in range(size)]
        own = shared.index_select(1, torch.tensor(owners, device=shared.device))  # (batch, sum of values, projection_dim)
        return (own * self.heads.weight).sum(-1) + self.heads.bias

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
