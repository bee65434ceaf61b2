"""Training with transformers' Trainer: checked splits in, the best model and its history out."""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import torch
from accelerate.utils import parse_flag_from_env
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from ultra_light_predictor import DEFAULT_THRESHOLD, decide
from ultralight.augmentation import JoiningCollator
from ultralight.batching import ShuffledBuckets
from ultralight.distillation import distillation_loss
from ultralight.files import read_utf8, write_text
from ultralight.model_builder import make_model
from ultralight.problems import InputError
from ultralight.pruning import EmbeddingPruning, prune
from ultralight.reporting import report_arguments, show_training
from ultralight.rounding import round_weights
from ultralight.schema import LabelSchema
from ultralight.scores import overall
from ultralight.settings import EVALUATIONS, TrainSettings
from ultralight.streaming import ShuffledStream, StreamedRows

logger = logging.getLogger(__name__)

METRIC = Path(__file__).parent / "metrics" / "implicit_labels.py"
WARMUP = 0.06
EVAL_BATCH = 256
# Rows that are worth a process of their own to tokenise them.
ROWS_A_PROCESS = 100_000
# The best model has the best micro-F1; among equals, as on a small validation split, the one that is surest of the right values.
SELECTION = "micro_f1_surest"
TIE_BREAK = 1e-5


class UltraLightTrainer(Trainer):
    """A Trainer that joins training queries, and mixes the teachers' answers, where the batch holds them, with the labels."""

    data_collator: Any
    optimizer: Any

    def __init__(self, *args: Any, schema: LabelSchema, settings: TrainSettings, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.schema = schema
        self.settings = settings

        # Each process joins other queries.
        seed = self.args.seed + self.args.process_index
        self.joining = JoiningCollator(self.processing_class, schema, settings.joining, seed)

    def get_train_dataloader(self) -> DataLoader:
        """Like any, but of batches in which queries are joined."""
        plain = self.data_collator
        self.data_collator = self.joining
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = plain

    def _save_rng_state(self, output_dir: str) -> None:
        """Saves the random states, that of joining among them: a run that was interrupted goes on as if it had not been."""
        super()._save_rng_state(output_dir)
        write_text(self._joining_state(output_dir), json.dumps(self.joining.random.bit_generator.state))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        # Of other processes than before, none may be there.
        if checkpoint is not None and self._joining_state(checkpoint).is_file():
            self.joining.random.bit_generator.state = json.loads(read_utf8(self._joining_state(checkpoint)))

    def _joining_state(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"joining_{self.args.process_index}.json"

    def _get_train_sampler(self, train_dataset: Any = None) -> ShuffledBuckets:
        """Rows in batches of like length."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        return ShuffledBuckets([len(ids) for ids in rows["input_ids"]], self.args.train_batch_size * self.args.world_size, self.args.seed)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """AdamW, with a lower learning rate for the encoder's layers."""
        if self.optimizer is None:
            decaying = set(self.get_decay_parameter_names(self.model))
            encoder = {id(weights) for weights in self.model.bert.encoder.parameters()}
            groups: dict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
            for name, weights in self.model.named_parameters():
                rate = self.args.learning_rate * (self.settings.encoder_rate if id(weights) in encoder else 1)
                groups[rate, self.args.weight_decay if name in decaying else 0.0].append(weights)
            optimizer, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = optimizer(
                [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()], **options
            )
        return self.optimizer

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any) -> Any:
        """Cross-entropy, mixed with the distillation loss where there are teachers."""
        targets = inputs.pop("teacher_probabilities", None)
        outputs = model(**inputs)
        loss = outputs.loss
        if targets is not None:
            weight = self.settings.distillation_weight
            taught = distillation_loss(outputs.logits, targets, self.schema, self.settings.distillation_temperature)
            loss = (1 - weight) * loss + weight * taught
        return (loss, outputs) if return_outputs else loss

    def ask(self, rows: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """What the model says of queries: probabilities (rows, sum of values), and the labels of the same rows (rows, labels).

        The Trainer may put rows in another order, in which both are.
        """
        said = self.predict(tokenize(rows, self.processing_class, self.settings))
        return _probabilities(said.predictions), np.asarray(said.label_ids)


def make_trainer(splits: DatasetDict, schema: LabelSchema, settings: TrainSettings, lesson: Dataset | None = None) -> UltraLightTrainer:
    """Makes the model that the settings ask for, and sets up its training; the seed decides all that is random from here on.

    Args:
        splits: "train" and "validation", each with `query` and `labels`; "train" may be `StreamedRows`.
        schema: the labels.
        settings: the model, and how to train it.
        lesson: what to train on instead of the "train" split: the same queries, and perhaps more, with the teachers' answers as
            `teacher_probabilities`.

    Raises:
        InputError: the checkpoint to start from is not as it should be.
    """
    set_seed(settings.seed)
    model, tokenizer = make_model(settings, splits["train"], schema, lesson)
    train = tokenize(splits["train"] if lesson is None else lesson, tokenizer, settings)
    if settings.class_balance:
        model.config.class_weights = class_weights(splits["train"]["labels"], schema, settings.class_balance)
    callbacks: list[TrainerCallback] = []
    if patience := settings.patience_for(len(train)):
        callbacks.append(EarlyStoppingCallback(patience))
    if settings.embedding_pruning:
        callbacks.append(EmbeddingPruning(settings.embedding_pruning))
    trainer = UltraLightTrainer(
        model=model,
        args=_training_arguments(settings, len(train)),
        train_dataset=train,
        eval_dataset=tokenize(splits["validation"], tokenizer, settings),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_metrics_of(schema),
        callbacks=callbacks,
        schema=schema,
        settings=settings,
    )
    show_training(trainer, settings)
    return trainer


def run_training(trainer: UltraLightTrainer) -> None:
    """Trains to the end or until validation no longer improves; the trainer's model is then the best one."""
    checkpoint = find_checkpoint(trainer, trainer.settings.resume)
    with warnings.catch_warnings():
        # Epochs of a small data set end within one tick of the file system's clock; the numbers of the steps order them.
        warnings.filterwarnings("ignore", message="mtime may not be reliable")
        trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.settings.embedding_pruning:
        prune(trainer.model, trainer.settings.embedding_pruning)
    round_weights(trainer.model)
    trainer.accelerator.wait_for_everyone()


def find_checkpoint(trainer: Trainer, resume: bool) -> str | None:
    """The checkpoint to go on from, if any; without `resume`, those of an interrupted run are removed, with a warning.

    One that the interruption left half-written is removed, too: the one before it is still there.
    """
    checkpoints = Path(trainer.args.output_dir)
    if resume and trainer.is_world_process_zero():
        for checkpoint in checkpoints.glob("checkpoint-*"):
            if not _is_complete(checkpoint):
                shutil.rmtree(checkpoint)
    trainer.accelerator.wait_for_everyone()
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if resume and last is None:
        logger.warning("--resume: %s holds no checkpoint; training starts from the beginning", checkpoints)
    if not resume and last is not None:
        logger.warning("%s: checkpoints of an interrupted run are replaced; --resume would have gone on from them", checkpoints)
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            shutil.rmtree(checkpoints)
        last = None
    trainer.accelerator.wait_for_everyone()
    return last


def remove_checkpoints(trainer: Trainer) -> None:
    """Removes what `--resume` would need, once the trained model is saved."""
    if trainer.is_world_process_zero():
        shutil.rmtree(trainer.args.output_dir, ignore_errors=True)


def _is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint holds the state of the training, which is written last."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def tokenize(rows: Dataset | StreamedRows, tokenizer: PreTrainedTokenizerFast, settings: TrainSettings) -> Dataset | ShuffledStream:
    """Token ids of the queries, cut to the tokenizer's maximum length, with their labels."""

    def encode(batch: dict[str, Any]) -> Any:
        return tokenizer(batch["query"], truncation=True)

    if isinstance(rows, StreamedRows):
        return ShuffledStream(rows, encode, settings.seed)
    processes = settings.num_proc or min(os.cpu_count() or 1, 1 + len(rows) // ROWS_A_PROCESS)
    return rows.map(
        encode,
        batched=True,
        remove_columns=["query"],
        keep_in_memory=True,
        num_proc=processes if processes > 1 else None,
        desc="tokenizing",
    )


def class_weights(labels: Iterable[Sequence[int]], schema: LabelSchema, power: float) -> list[float]:
    """Loss weight of each value: the inverse of its frequency within the label to a power, mean 1 over the label's rows.

    Args:
        labels: index of the right value within each label, for each query.
        schema: the labels.
        power: 0 weighs all alike, 1 by the inverse frequency.
    """
    starts = np.array([columns.start for _, columns in schema.slices()])
    counts, rows = np.zeros(schema.num_values), 0
    for row in labels:
        counts[starts + row] += 1
        rows += 1
    weights: list[float] = []
    for _, columns in schema.slices():
        raw = (1.0 / np.maximum(counts[columns], 1)) ** power
        weights += (raw / (raw * counts[columns]).sum() * rows).tolist()
    return weights


def _metrics_of(schema: LabelSchema) -> Callable[[EvalPrediction], dict[str, float]]:
    metric = evaluate.load(str(METRIC), keep_in_memory=True, experiment_id=str(os.getpid()))
    thresholds = np.full(len(schema.labels), DEFAULT_THRESHOLD)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        probabilities = _probabilities(prediction.predictions)
        chosen = decide(probabilities, schema.sizes, thresholds)
        scores = metric.compute(predictions=chosen, references=prediction.label_ids, label_schema=schema.to_dict())
        surprise = _surprise(probabilities, np.asarray(prediction.label_ids), schema)
        return {**overall(scores), SELECTION: scores["micro_f1"] - TIE_BREAK * surprise}

    return compute


def _probabilities(logits: Any) -> np.ndarray:
    """Probability of each value within its label, from log-odds of any shape."""
    return 1 / (1 + np.exp(-np.asarray(logits)))


def _surprise(probabilities: np.ndarray, references: np.ndarray, schema: LabelSchema) -> float:
    """Mean negative log-probability of the right values."""
    starts = np.array([columns.start for _, columns in schema.slices()])
    right = np.take_along_axis(probabilities, starts + references, axis=1)
    return float(-np.log(np.maximum(right, 1e-12)).mean())


def use_processor() -> bool:
    """Whether to train on the processor; transformers must be told, or it refuses bf16 there and lets several processes train alone."""
    if torch.accelerator.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        return False
    # accelerate gives each process a processor with a number, such as cpu:1, and torch loads no checkpoint to one that has a number.
    os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    return True


def _training_arguments(settings: TrainSettings, rows: int) -> TrainingArguments:
    if settings.fp16 and not torch.cuda.is_available():
        raise InputError("--fp16: needs a GPU; accepted here: --bf16")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    steps = settings.steps_for(rows)
    when = "steps" if settings.streaming else "epoch"
    every = max(1, steps // EVALUATIONS)
    return TrainingArguments(
        output_dir=str(Path(str(settings.output_dir)) / "checkpoints"),
        num_train_epochs=settings.epochs_for(rows),
        max_steps=settings.steps or -1,
        per_device_train_batch_size=-(-settings.batch_size // processes),
        per_device_eval_batch_size=EVAL_BATCH,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=int(WARMUP * steps),
        seed=settings.seed,
        bf16=settings.bf16,
        fp16=settings.fp16,
        use_cpu=use_processor(),
        eval_strategy=when,
        eval_steps=every,
        save_strategy=when,
        save_steps=every,
        save_total_limit=1,
        logging_strategy=when,
        logging_steps=every,
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # the patience that is left
        metric_for_best_model=SELECTION,
        greater_is_better=True,
        label_names=["labels"],
        remove_unused_columns=False,  # teacher_probabilities is no argument of the model
        ddp_find_unused_parameters=False,  # there are none: looking for them takes time
        ddp_broadcast_buffers=False,  # the linear part and the owners of rows never change
        accelerator_config={"dispatch_batches": False},  # every process reads a stream by itself and takes its share
        dataloader_pin_memory=torch.cuda.is_available(),
        **report_arguments(settings),
    )
