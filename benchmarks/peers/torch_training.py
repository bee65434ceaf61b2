"""Trains the peers that are PyTorch modules, with transformers' Trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from benchmarks.peers.job import Job
from benchmarks.runtimes.answers import Answers, softmax_within
from ultralight.batching import ShuffledBuckets
from ultralight.scores import score

EVAL_BATCH = 128
PATIENCE = 3
WARMUP = 0.06
SEED = 42


class BucketTrainer(Trainer):
    """A Trainer whose batches hold queries of like length, as those of the project's own models do."""

    def _get_train_sampler(self, train_dataset: Any = None) -> ShuffledBuckets:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return ShuffledBuckets([len(ids) for ids in rows["input_ids"]], self.args.train_batch_size, self.args.seed)


def fit(model: nn.Module, tokenizer: PreTrainedTokenizerFast, job: Job, learning_rate: float, epochs: int, batch: int) -> nn.Module:
    """Trains a module that returns `loss` and `logits`; the epoch with the best validation micro-F1 is kept.

    Masked padding changes no answer, so batches are padded to their longest query, whatever the runtime pads to.

    Args:
        model: takes `input_ids`, `attention_mask` and `labels`.
        tokenizer: splits the queries.
        job: the data.
        learning_rate: peak of AdamW's.
        epochs: at most.
        batch: queries a step.
    """
    set_seed(SEED)
    answers = Answers(job.schema.to_dict(), {})

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        chosen = answers.decide(softmax_within(np.asarray(prediction.predictions), job.schema.sizes))
        return {"micro_f1": score(chosen, np.asarray(prediction.label_ids), job.schema)["micro_f1"]}

    steps = -(-len(job.splits["train"]) // batch) * epochs
    with tempfile.TemporaryDirectory(dir=job.folder) as checkpoints:
        arguments = TrainingArguments(
            output_dir=checkpoints,
            num_train_epochs=epochs,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=EVAL_BATCH,
            learning_rate=learning_rate,
            weight_decay=0.01,
            warmup_steps=int(WARMUP * steps),
            seed=SEED,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            logging_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="micro_f1",
            greater_is_better=True,
            label_names=["labels"],
            dataloader_pin_memory=False,
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
        )
        trainer = BucketTrainer(
            model=model,
            args=arguments,
            train_dataset=_tokenize(job.splits["train"], tokenizer),
            eval_dataset=_tokenize(job.splits["validation"], tokenizer),
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=metrics,
            callbacks=[EarlyStoppingCallback(PATIENCE)],
        )
        trainer.train()
    return model.eval()


def _tokenize(rows: Dataset, tokenizer: PreTrainedTokenizerFast) -> Dataset:
    return rows.map(lambda batch: tokenizer(batch["query"], truncation=True), batched=True, remove_columns=["query"], keep_in_memory=True)


class TorchScorer:
    """Probabilities of a trained module.

    Args:
        model: as `fit` returns it.
        tokenizer: splits the queries.
        sizes: number of values of each label.
        padding: what a batch is padded to.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerFast, sizes: Sequence[int], padding: str = "longest") -> None:
        self.model, self.tokenizer, self.sizes, self.padding = model, tokenizer, sizes, padding

    def __call__(self, queries: Sequence[str]) -> np.ndarray:
        """Probability of every value within its label (queries, sum of values)."""
        rows: list[Any] = []
        with torch.inference_mode():
            for start in range(0, len(queries), EVAL_BATCH):
                part = list(queries[start : start + EVAL_BATCH])
                batch = self.tokenizer(part, padding=self.padding, truncation=True, return_tensors="pt")
                rows.append(self.model(batch["input_ids"], batch["attention_mask"])["logits"].numpy())
        return softmax_within(np.concatenate(rows), self.sizes)
