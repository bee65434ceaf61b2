"""BERT with a projection and a linear head a label, in PyTorch: what projects of this kind ship before anyone counts bytes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel, BertPreTrainedModel

from benchmarks.runtimes.answers import ProbabilityRuntime, read_answers, softmax_within

QUANTIZED_WEIGHTS = "quantized.pt"


class BertWithHeads(BertPreTrainedModel):
    """Encoder -> mean of the tokens -> projection -> one linear head for each of `config.head_sizes`.

    Not [CLS]: without pre-training it learns far more slowly than the mean, which costs nothing.
    """

    config_class = BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.projection = nn.Linear(config.hidden_size, config.projection_dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.heads = nn.ModuleList(nn.Linear(config.projection_dim, size) for size in config.head_sizes)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Raw scores of all values (batch, sum of values), and the loss where labels (batch, labels) are given."""
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        shared = self.dropout(torch.relu(self.projection((states * mask).sum(1) / mask.sum(1))))
        scores = [head(shared) for head in self.heads]
        outputs = {"logits": torch.cat(scores, dim=-1)}
        if labels is None:
            return outputs
        losses = [nn.functional.cross_entropy(part, labels[:, column]) for column, part in enumerate(scores)]
        return {"loss": torch.stack(losses).mean(), **outputs}


def quantize(model: nn.Module) -> nn.Module:
    """INT8 linear layers, as `torch.quantization.quantize_dynamic` makes them; embeddings stay fp32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this is going to move to torchao
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


class Runtime(ProbabilityRuntime):
    """Answers with a BERT.

    Args:
        folder: model and tokenizer.
        threads: of PyTorch.
        quantized: load dynamically quantised weights.
        padding: "max_length" pads every query to the tokenizer's length, "longest" to the longest of its batch.
    """

    def __init__(self, folder: Path, threads: int, quantized: bool = False, padding: str = "longest") -> None:
        super().__init__(read_answers(folder))
        torch.set_num_threads(threads)
        self.padding = padding
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        if quantized:
            model = quantize(BertWithHeads(BertConfig.from_pretrained(folder)).eval())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TypedStorage, inside torch.load
                model.load_state_dict(torch.load(folder / QUANTIZED_WEIGHTS, weights_only=True))
        else:
            model = BertWithHeads.from_pretrained(folder).eval()
        self.model = model

    def probabilities(self, queries: Sequence[str]) -> np.ndarray:
        """Probability of every value within its label (batch, sum of values)."""
        batch = self.tokenizer(list(queries), padding=self.padding, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            scores = self.model(batch["input_ids"], batch["attention_mask"])["logits"]
        return softmax_within(scores.numpy(), self.answers.sizes)
