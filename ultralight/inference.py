"""What a trained model says of queries, asked in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from modeling_ultralight import UltraLightForImplicitLabelPrediction
from ultralight.progress import progress

BATCH = 64


def ask(model: UltraLightForImplicitLabelPrediction, tokenizer: PreTrainedTokenizerBase, queries: Sequence[str], doing: str) -> Tensor:
    """Logits of queries, a batch at a time; those of similar length, side by side, need less padding.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        queries: what to ask.
        doing: what the progress bar says.

    Returns:
        Log-odds of each value within its label (queries, sum of values).
    """
    answers = []
    for start in progress(range(0, len(queries), BATCH), doing, "batches"):
        batch = tokenizer(
            list(queries[start : start + BATCH]), truncation=True, max_length=model.config.max_seq_length, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            answers.append(model(**batch).logits)
    return torch.cat(answers)
