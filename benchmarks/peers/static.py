"""A static model as Model2Vec's (van Dongen and Tulkens, 2024): embeddings of tokens, their mean, linear heads; own weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from benchmarks.peers.job import Job, search, write_labels
from benchmarks.peers.torch_training import TorchScorer, fit
from benchmarks.runtimes.static import WEIGHTS
from ultralight.vocabulary import SPECIAL_TOKENS

# Steps are cheap, what surrounds them is not.
BATCH = 128


@dataclass(frozen=True)
class Setting:
    """One point of the grid."""

    vocabulary: int
    learning_rate: float
    width: int = 64
    epochs: int = 30


GRID = tuple(Setting(vocabulary, rate) for vocabulary in (4_000, 8_000) for rate in (1e-2, 3e-2))


class MeanOfEmbeddings(nn.Module):
    """Mean of the tokens' embeddings -> one linear head a label.

    Args:
        rows: of the vocabulary.
        width: of the embeddings.
        sizes: number of values of each label.
        dropout: on the mean.
    """

    def __init__(self, rows: int, width: int, sizes: list[int], dropout: float = 0.2) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(rows, width)
        self.heads = nn.Linear(width, sum(sizes))
        self.dropout = nn.Dropout(dropout)
        self.sizes = sizes

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Raw scores of all values (batch, sum of values), and the loss where labels (batch, labels) are given."""
        mask = attention_mask.unsqueeze(-1).float()
        mean = (self.embeddings(input_ids) * mask).sum(1) / mask.sum(1)
        logits = self.heads(self.dropout(mean))
        if labels is None:
            return {"logits": logits}
        losses = [nn.functional.cross_entropy(part, labels[:, column]) for column, part in enumerate(logits.split(self.sizes, dim=-1))]
        return {"loss": torch.stack(losses).mean(), "logits": logits}


def recipe(job: Job) -> dict[str, Any]:
    """What decides the outcome."""
    return {"grid": [asdict(setting) for setting in GRID]}


def train(job: Job) -> dict[str, Any]:
    """Trains with every setting and writes the best as numpy arrays, embeddings in half precision."""

    def candidate(setting: Setting) -> TorchScorer:
        tokenizer = build_tokenizer(job.queries("train"), setting.vocabulary)
        torch.manual_seed(0)
        model = MeanOfEmbeddings(len(tokenizer), setting.width, job.schema.sizes)
        trained = fit(model, tokenizer, job, setting.learning_rate, 1 if job.quick else setting.epochs, BATCH)
        return TorchScorer(trained, tokenizer, job.schema.sizes)

    best, facts = search(job.grid(GRID), candidate, job)
    model, tokenizer = best.scorer.model, best.scorer.tokenizer
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.save(str(job.folder / "tokenizer.json"), pretty=False)
    np.savez(
        job.folder / WEIGHTS,
        embeddings=model.embeddings.weight.detach().numpy().astype(np.float16),
        heads=np.ascontiguousarray(model.heads.weight.detach().numpy().T),
        bias=model.heads.bias.detach().numpy(),
    )
    write_labels(job.folder, job.schema, best.thresholds)
    return facts


def build_tokenizer(texts: Iterable[str], rows: int) -> PreTrainedTokenizerFast:
    """A byte-pair vocabulary of the training queries: characters and the words and phrases that they often form."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=rows, special_tokens=list(SPECIAL_TOKENS.values()), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    # Never nothing: the mean of no token is undefined.
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]"))])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **SPECIAL_TOKENS)
