"""The whole path: labels file and dataset in; trained, scored, exported and quantised model folder out."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset, DatasetDict

from ultralight.dataset import find_labels_file, load_splits
from ultralight.hub import push_folder, warn_if_logged_out
from ultralight.model_card import write_card
from ultralight.model_folder import DEPLOYABLE, METRICS_FILE, PLOTS, add_companions
from ultralight.plots import save_plots
from ultralight.pruning import zero_share
from ultralight.records import locate_splits
from ultralight.report import label_table, summary_table, write_metrics
from ultralight.schema import LabelSchema
from ultralight.scored_export import export_and_score
from ultralight.scores import score
from ultralight.settings import BASE, SCRATCH, TrainSettings
from ultralight.streaming import load_streamed
from ultralight.teachers import describe_teachers, prepare_lesson
from ultralight.thresholds import decide_by, tune_thresholds
from ultralight.training import UltraLightTrainer, make_trainer, remove_checkpoints, run_training
from ultralight.vocabulary import save_compact

logger = logging.getLogger(__name__)


def run(settings: TrainSettings, lesson: Dataset | None = None) -> dict[str, Any]:
    """Trains, evaluates, exports and reports.

    Args:
        settings: what to do; see `TrainSettings`.
        lesson: what `prepare_lesson` returned for these settings with any seed, where several runs share the teachers.

    Returns:
        The content of `metrics.json`; empty in the processes of a distributed run that do not write.

    Raises:
        InputError: labels, dataset, checkpoint or teacher are not as they should be; nothing has been written.
        ExportError: an exported graph does not do what the model does; the trained model is kept.
        PushError: the Hub did not take the folder, which is complete; the message says how to push it later.
    """
    started = time.perf_counter()
    schema = LabelSchema.from_file(settings.config or find_labels_file(settings.dataset))
    if settings.streaming:
        splits, warnings = load_streamed(settings.dataset, schema, split_seed=settings.split_seed)
    else:
        splits, warnings = load_splits(settings.dataset, schema, split_seed=settings.split_seed, contradictions=settings.contradictions)
    if settings.distillation and lesson is None:
        lesson = prepare_lesson(splits, schema, settings)
    trainer = make_trainer(splits, schema, settings, lesson)
    if trainer.is_world_process_zero():
        for warning in warnings:
            logger.warning("%s", warning)
        if settings.push_to_hub:
            warn_if_logged_out()
        logger.info("%s: %s queries", settings.dataset, ", ".join(f"{len(rows)} {split}" for split, rows in splits.items()))
        parameters, rows = sum(map(torch.numel, trainer.model.parameters())), len(trainer.processing_class)
        logger.info("%s parameters, %s vocabulary rows", f"{parameters:,}", f"{rows:,}")
    run_training(trainer)
    answers = {split: trainer.ask(splits[split]) for split in ("validation", "test")}
    if not trainer.is_world_process_zero():
        return {}

    metrics = _save_and_score(trainer, splits, schema, settings, answers)
    folder = Path(str(settings.output_dir))
    if settings.export_onnx:
        export_and_score(folder, splits, schema, metrics, quantize=settings.quantize, architecture=settings.architecture)
    metrics["seconds"]["total"] = time.perf_counter() - started
    write_metrics(folder / METRICS_FILE, metrics)
    write_card(folder)
    remove_checkpoints(trainer)
    _print_report(folder, metrics)
    if settings.push_to_hub:
        print(f"pushed: {push_folder(folder, str(settings.hub_model_id), private=settings.hub_private_repo)}")
    return metrics


def _save_and_score(
    trainer: UltraLightTrainer,
    splits: DatasetDict,
    schema: LabelSchema,
    settings: TrainSettings,
    answers: dict[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """Tunes the thresholds, saves the model with them, and scores and plots what it says."""
    model, folder = trainer.model, Path(str(settings.output_dir))
    model.config.thresholds = tune_thresholds(*answers["validation"], schema)
    model.config.training_facts = _facts(settings, splits, trainer)
    model.save_pretrained(folder)
    save_compact(trainer.processing_class, folder)
    add_companions(folder, schema)

    chosen = {split: decide_by(model.config.thresholds, probabilities, schema) for split, (probabilities, _) in answers.items()}
    metrics: dict[str, Any] = {split: score(chosen[split], references, schema) for split, (_, references) in answers.items()}
    metrics["embedding_zeros"] = {"model": zero_share(model)}
    metrics["seconds"] = {"train": trainer.state.log_history[-1].get("train_runtime", 0.0)}
    save_plots(folder / PLOTS, trainer.state.log_history, metrics["test"]["per_label"], chosen["test"], answers["test"][1], schema)
    write_metrics(folder / METRICS_FILE, metrics)
    return metrics


def _facts(settings: TrainSettings, splits: DatasetDict, trainer: UltraLightTrainer) -> dict[str, Any]:
    """What the model card tells of the training."""
    kept = (
        "dataset",
        "model_name",
        "epochs",
        "batch_size",
        "learning_rate",
        "encoder_rate",
        "weight_decay",
        "seed",
        "split_seed",
        "contradictions",
        "embedding_pruning",
        "class_balance",
        "joining",
        "license",
        "language",
        "card_query",
    )
    named = settings.model_name not in (BASE, SCRATCH) and not Path(settings.model_name).exists()
    return {
        **{name: value for name, value in asdict(settings).items() if name in kept},
        "hub_dataset": settings.dataset if locate_splits(settings.dataset) is None else None,
        "hub_base_model": settings.model_name if named else None,
        "distilled_from": describe_teachers(settings),
        "distillation_weight": settings.distillation_weight if settings.distillation else None,
        "transfer": len(settings.transfer),
        "queries": {split: len(rows) for split, rows in splits.items()},
        "epochs_trained": round(trainer.state.epoch or 0, 2),
        "best_validation_micro_f1": round(trainer.state.best_metric or 0.0, 4),
        "transformers": transformers.__version__,
    }


def _print_report(folder: Path, metrics: dict[str, Any]) -> None:
    print(f"\n{label_table(metrics)}\n\n{summary_table(metrics)}\n")
    print(f"embedding weights that are zero: {metrics['embedding_zeros']['model']:.1%}")
    if "test_int8" in metrics:
        export = metrics["export"]
        print(
            f"INT8 decides as fp32 on {export['int8_agreement']:.2%} of the label decisions it was checked on,"
            f" {export['quantized_operators']} operators quantised"
        )
        print(f"to ship: {metrics['deployable_bytes'] / 1e6:.2f} MB ({', '.join(DEPLOYABLE)})")
    print(f"{folder}: trained model, metrics.json, plots/; {metrics['seconds']['total']:.0f} s in all")
