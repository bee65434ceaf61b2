"""The project's own model in PyTorch, loaded as any model of the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.runtimes.answers import Answers, ProbabilityRuntime


class Runtime(ProbabilityRuntime):
    """Answers with PyTorch.

    Args:
        folder: a model folder.
        threads: of PyTorch.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
        super().__init__(Answers(dict(self.model.config.label_schema), self.model.config.thresholds))

    def probabilities(self, queries: Sequence[str]) -> np.ndarray:
        """Probability of every value within its label (batch, sum of values)."""
        batch = self.tokenizer(list(queries), padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            return self.model(**batch).logits.sigmoid().numpy()
