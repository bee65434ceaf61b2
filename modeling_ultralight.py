"""UltraLight in PyTorch: a two-layer BERT, one reduced representation that all labels share, one head per label.

    query -> embeddings -> encoder -> pooling -> projection -> shared representation -> heads -> log-odds within each label

Travels to the Hub with the weights: imports its configuration and nothing else of the project, and loads with
transformers 4.57 and 5 alike.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import reduce
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
# Keeps the logarithm of a share finite, and leaves the smallest that counts alone.
TINY = 1e-30
# Of integers that stand for weights: half precision has little below.
SMALLEST_SCALE = 2.0**-14


def copy_code(folder: str | Path) -> None:
    """Copies the Python files that `trust_remote_code=True` needs into `folder`."""
    for name in CODE_FILES:
        source, target = Path(__file__).resolve().with_name(name), Path(folder).resolve() / name
        if source != target:
            shutil.copyfile(source, target)


def round_rows(rows: Tensor, bits: int) -> Tensor:
    """Rows (..., embedding_size) as integers of `bits` bits with a scale for each row would give them back.

    Gradients pass as if nothing was rounded (Bengio et al., 2013, "straight-through"): training finds weights that bear it.
    """
    exact, largest = rows.detach(), 2 ** (bits - 1) - 1
    scales = (exact.abs().amax(-1, keepdim=True) / largest).clamp(min=SMALLEST_SCALE)
    # Eight significant bits: their products with 4-bit integers are exact in half precision, which `save_pretrained` makes use of.
    scales = scales.bfloat16().float()
    return rows + ((exact / scales).round().clamp(-largest, largest) * scales - exact)


class NgramEmbedding(nn.Embedding):
    """A row for each of the n-grams of tokens that were chosen for it; others have none.

    It gives a small encoder the words and phrases that characters alone would have to be composed to. An n-gram is found at one
    of its hashes (Pagh and Rodler, 2004, "Cuckoo hashing"), which are linear in the token ids, modulo the number of rows (Carter and
    Wegman, 1979): two operators of a graph. `owners` holds the key of the n-gram that each row belongs to; row 0, which is zero,
    belongs to nobody.
    """

    # Factors of the last, the one before and the one before that token; a row of factors for each hash.
    FACTORS = ((7919, 104729, 15485863), (6133, 86243, 22801763), (9241, 69031, 28657013), (3571, 47701, 17624813))
    NOBODY = -1

    def __init__(self, config: UltraLightConfig) -> None:
        super().__init__(config.ngram_rows, config.embedding_size, padding_idx=0)
        self.sizes, self.hashes = config.ngram_sizes, config.ngram_hashes
        hashes = [(size, factors) for size in self.sizes for factors in self.FACTORS[: self.hashes]]
        # One column for each hash; an n-gram shorter than the longest ignores the tokens further back.
        self.factors = [[factors[back] * (back < size) for size, factors in hashes] for back in range(max(self.sizes))]
        self.offsets = [size for size, _ in hashes]
        self.bits = config.embedding_bits
        self.owners: Tensor
        self.register_buffer("owners", torch.full((config.ngram_rows,), self.NOBODY))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Sum of the vectors of the n-grams that end at each token (batch, seq_len, embedding_size), from ids (batch, seq_len)."""
        return self.look_up(self.keys(input_ids))

    def rows(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Rows of the n-grams that end at each token, one tensor (batch, seq_len) for each size, from ids (batch, seq_len)."""
        return self._find(self.keys(input_ids))

    def keys(self, input_ids: Tensor) -> Tensor:
        """Hashes, before they are reduced to the number of rows, of the n-grams that end at each token (batch, seq_len, sizes * hashes)."""
        ids = input_ids.unsqueeze(-1)
        keys = ids * self._constant(self.factors[0], ids) + self._constant(self.offsets, ids)
        for back, factors in enumerate(self.factors[1:], start=1):
            keys = keys + nn.functional.pad(ids, (0, 0, back, -back)) * self._constant(factors, ids)
        return keys

    def look_up(self, keys: Tensor) -> Tensor:
        """Sum of the vectors of n-grams (..., embedding_size), from their keys (..., sizes * hashes)."""
        # One by one: in a deployed graph, a sum over an axis inside takes twice as long.
        return reduce(Tensor.add, (self._read(rows) for rows in self._find(keys)))

    def _find(self, keys: Tensor) -> tuple[Tensor, ...]:
        rows = keys % self.num_embeddings
        # Of an n-gram's rows one at most is its own, the others count as row 0.
        own = torch.where(self.owners[rows] == keys, rows, 0)
        by_size = own.split(self.hashes, dim=-1) if len(self.sizes) > 1 else (own,)
        return tuple(part.amax(-1) for part in by_size)

    def _read(self, rows: Tensor) -> Tensor:
        vectors = super().forward(rows)
        return round_rows(vectors, self.bits) if self.training else vectors

    @staticmethod
    def _constant(numbers: list[int], like: Tensor) -> Tensor:
        return torch.tensor(numbers, device=like.device)


class RoundedLinear(nn.Linear):
    """A linear layer that learns weights which bear being rounded to a few bits, with a scale for each output."""

    bits = 4

    def forward(self, states: Tensor) -> Tensor:
        """States (..., in_features) to (..., out_features); in training by rounded weights."""
        return nn.functional.linear(states, round_rows(self.weight, self.bits) if self.training else self.weight, self.bias)


def _round_layers(encoder: nn.Module) -> None:
    """Makes the linear layers inside learn weights of a few bits."""
    for parent in list(encoder.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, RoundedLinear(layer.in_features, layer.out_features))


class UltraLightEmbeddings(BertEmbeddings):
    """BERT's embeddings, narrower than the encoder where configured, and with n-grams."""

    def __init__(self, config: UltraLightConfig) -> None:
        super().__init__(config)
        self.bits = config.embedding_bits
        self.ngram_embeddings = NgramEmbedding(config) if config.ngram_rows else None
        self.widening = None
        if config.embedding_size != config.hidden_size:
            self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
            self.widening = nn.Linear(config.embedding_size, config.hidden_size, bias=False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values_length: int = 0,
    ) -> Tensor:
        """Embeds token ids (batch, seq_len), or takes `inputs_embeds` (batch, seq_len, embedding_size) for their sum with the n-grams'.

        Where there is one segment only, places and segment are one table, and its first rows a slice: constants of an exported graph.
        """
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
            if self.training:
                inputs_embeds = round_rows(inputs_embeds, self.bits)
            if self.ngram_embeddings is not None:
                inputs_embeds = inputs_embeds + self.ngram_embeddings(input_ids)
        if self.widening is not None:
            inputs_embeds = self.widening(inputs_embeds)
        places, segments = self.position_embeddings.weight, self.token_type_embeddings.weight
        if token_type_ids is None or len(segments) == 1:
            places = places + segments[0]
        else:
            inputs_embeds = inputs_embeds + self.token_type_embeddings(token_type_ids)
        start, end = past_key_values_length, past_key_values_length + inputs_embeds.shape[1]
        where = places[start:end] if position_ids is None else nn.functional.embedding(position_ids, places)
        return self.dropout(self.LayerNorm(inputs_embeds + where))


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

    def save_pretrained(self, save_directory: str | Path, state_dict: dict[str, Tensor] | None = None, **kwargs: Any) -> None:
        """Saves weights, configuration and the code that loads them, also when that was itself loaded as remote code.

        Weights that half precision holds exactly, as it does rounded embeddings, are stored in it; loading makes them what they were.
        """
        state_dict = self.state_dict() if state_dict is None else state_dict  # type: ignore[attr-defined]
        stored = {name: _smallest_exact(weights) for name, weights in state_dict.items()}
        super().save_pretrained(save_directory, state_dict=stored, **kwargs)  # type: ignore[misc]
        copy_code(save_directory)


def _smallest_exact(weights: Tensor) -> Tensor:
    """The same numbers in half precision, where that changes none of them."""
    if weights.dtype != torch.float32:
        return weights
    half = weights.half()
    return half if torch.equal(half.float(), weights) else weights


class UltraLightModel(_UltraLightMixin, BertModel):
    """The encoder: transformers' own BERT layers over `UltraLightEmbeddings`, without BERT's pooler."""

    def __init__(self, config: UltraLightConfig) -> None:
        super().__init__(config, add_pooling_layer=False)
        self.embeddings = UltraLightEmbeddings(config)
        if config.layer_bits == RoundedLinear.bits:
            _round_layers(self.encoder)
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

    def forward(self, states: Tensor, embedded: Tensor, padding: Tensor) -> Tensor:
        """Reads what the encoder made of the tokens, and beside it their embeddings: the words themselves are evidence, too.

        Args:
            states: what the encoder made of the tokens (batch, seq_len, hidden_size).
            embedded: what it was given (batch, seq_len, hidden_size).
            padding: 0 for tokens, a large negative number for padding (batch, seq_len).

        Returns:
            One vector for each label (batch, labels, projection_dim).
        """
        relevance = self.relevance(states).transpose(1, 2) + padding.unsqueeze(1)  # (batch, labels, seq_len)
        return self.projection(relevance.softmax(-1) @ torch.cat([states, embedded], dim=-1))


class LinearPart(nn.Module):
    """What tokens and n-grams say each by itself, beside the network that reads them together (Cheng et al., 2016, "Wide & Deep").

    Fitted before the network is trained, and constant from then on. The network knows what words have in common, a linear model the
    rare word that settles a label: they err differently.

    Args:
        config: the model's configuration.
        sizes: how many values each label has.
    """

    tokens: Tensor
    ngrams: Tensor
    bias: Tensor

    def __init__(self, config: UltraLightConfig, sizes: Sequence[int]) -> None:
        super().__init__()
        self.share = config.linear_share
        # Scores against absence, which need no column for an absent value.
        self.register_buffer("tokens", torch.zeros(config.vocab_size, sum(sizes) - len(sizes)))
        self.register_buffer("ngrams", torch.zeros(config.ngram_rows, sum(sizes) - len(sizes)))
        self.register_buffer("bias", torch.zeros(sum(sizes)))
        widest, cells, before = max(sizes), [], 0
        for size in sizes:
            cells.append([before + column if 0 < column < size else 0 for column in range(widest)])
            before += size - 1
        self.cells = cells

    def forward(self, input_ids: Tensor, ngram_rows: Sequence[Tensor]) -> Tensor:
        """Scores in a grid (batch, labels, most values of a label), without the bias and multiplied by their share.

        Takes token ids (batch, seq_len), and rows of chosen n-grams in tensors of that shape; padding has row 0, which is zero.
        """
        found = nn.functional.embedding(input_ids, self.share * self.tokens)
        for rows in ngram_rows:
            found = found + nn.functional.embedding(rows, self.share * self.ngrams)
        # The first column stands for absence, and for cells that no value fills.
        return nn.functional.pad(found.sum(1), (1, 0))[:, torch.tensor(self.cells, device=found.device)]


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
        self.linear = LinearPart(config, sizes) if config.linear_share else None
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
            attention_mask: 1 for tokens, 0 for padding (batch, seq_len); where left out, padding tokens are what is padding.
            token_type_ids: segment ids (batch, seq_len); zeros where left out.
            inputs_embeds: token embeddings instead of `input_ids` (batch, seq_len, hidden_size).
            labels: index of the right value within each label (batch, labels); -100 is ignored.
            return_dict: False returns a tuple.

        Returns:
            `logits` (batch, sum of values): log-odds of each value within its label, so that `sigmoid(logits)` sums to 1
            over the values of a label; `loss`, where `labels` are given: the cross-entropy, averaged over labels and queries.
        """
        if attention_mask is None:
            attention_mask = self._mask(input_ids, inputs_embeds)
        elif input_ids is not None:
            input_ids = torch.where(attention_mask.bool(), input_ids, self.config.pad_token_id)
        encoded = self.bert(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            output_hidden_states=True,
        )
        states, embedded = encoded.last_hidden_state, encoded.hidden_states[0]  # both (batch, seq_len, hidden_size)
        padding = torch.where(attention_mask.bool(), 0.0, -MASKED).to(states.dtype)  # (batch, seq_len)
        shared = self.projection(self._pool(states, padding))  # (batch, 1, projection_dim)
        if self.label_attention is not None:
            shared = shared + self.label_attention(states, embedded, padding)  # (batch, labels, projection_dim)
        shared = self.dropout(self.activation(shared))
        # Not in training: a linear model knows its training queries by heart, and would leave the network nothing to learn from them.
        if self.linear is None or input_ids is None or self.training:
            scores = self._scores(shared, self.heads.weight, self.heads.bias)
        else:
            share, rest = self.linear.share, 1 - self.linear.share
            scores = self._scores(shared, rest * self.heads.weight, rest * self.heads.bias + share * self.linear.bias)
            scores = scores + self.linear(input_ids, self.chosen_ngrams(input_ids))
        loss = None if labels is None else self._loss(scores, labels)
        logits = self._log_odds(scores)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def chosen_ngrams(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Rows (batch, seq_len) of the chosen n-grams that end at each token, one tensor for each size; 0 for others."""
        table = self.bert.embeddings.ngram_embeddings
        return () if table is None else table.rows(input_ids)

    def _mask(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """True for tokens, False for padding (batch, seq_len)."""
        if input_ids is None:
            return torch.ones_like(inputs_embeds[..., 0], dtype=torch.bool)  # type: ignore[index]
        return input_ids != self.config.pad_token_id

    def _pool(self, states: Tensor, padding: Tensor) -> Tensor:
        """Reduces token states (batch, seq_len, hidden_size) with `padding` (batch, seq_len) to (batch, 1, poolings * hidden_size)."""
        pooled = []
        for kind in self.poolings:
            if kind == "cls":
                pooled.append(states[:, :1])
            elif kind == "mean":
                pooled.append(padding.unsqueeze(1).softmax(-1) @ states)
            else:
                pooled.append((states + padding.unsqueeze(-1)).amax(1, keepdim=True))
        return torch.cat(pooled, dim=-1)

    def _scores(self, shared: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Raw scores in a grid (batch, labels, most values of a label), `NEVER` in cells that no value fills.

        `shared` is one representation (batch, 1, projection_dim) or one for each label (batch, labels, projection_dim). Each head, a row
        of `weight` (sum of values, projection_dim) and `bias`, reads the representation of its own label only.
        """
        index, missing = self._grid(shared.device)
        weights = weight[index].transpose(1, 2)  # (labels, projection_dim, most values of a label)
        # Labels first: as many multiplications as there are labels, whatever the number of queries.
        return (shared.transpose(0, 1) @ weights).transpose(0, 1) + (bias[index] + missing)

    def _grid(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Which value stands in each cell of a (labels, most values of a label) grid, and `NEVER` where none does, 0 elsewhere."""
        widest = max(self.values_per_label)
        index, missing, start = [], [], 0
        for size in self.values_per_label:
            index.append([start + min(column, size - 1) for column in range(widest)])
            missing.append([0.0 if column < size else NEVER for column in range(widest)])
            start += size
        # Built anew instead of kept as buffers: constants in an exported graph, and nothing that loading could garble.
        return torch.tensor(index, device=device), torch.tensor(missing, device=device)

    def _log_odds(self, scores: Tensor) -> Tensor:
        """Log p - log(1 - p) of every value, p being the softmax within its label: (batch, sum of values), from a grid of raw scores.

        1 - p is the sum of the others' shares: subtracting p from 1 would leave a sure value no digits.
        """
        widest = max(self.values_per_label)
        shares = scores.log_softmax(-1)
        others = shares.exp() @ (1 - torch.eye(widest, dtype=scores.dtype, device=scores.device))
        cells = [row * widest + column for row, size in enumerate(self.values_per_label) for column in range(size)]
        return (shares - (others + TINY).log()).flatten(1).index_select(1, torch.tensor(cells, device=scores.device))

    def _loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy within each label, averaged over queries and labels (class-weighted where configured)."""
        labels = labels.to(scores.device)
        known = labels >= 0
        chosen = scores.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)  # (batch, labels)
        weights = known.to(scores.dtype)
        if self.config.class_weights is not None:
            starts = torch.tensor([sum(self.values_per_label[:i]) for i in range(len(self.values_per_label))], device=labels.device)
            per_value = torch.tensor(self.config.class_weights, dtype=scores.dtype, device=labels.device)
            weights = weights * per_value[starts + labels.clamp(min=0)]
        return -(weights * chosen).sum() / known.sum().clamp(min=1)
