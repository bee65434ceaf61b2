"""The whole path: labels file and dataset in; trained, scored, exported and quantised model folder out."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerFast, set_seed
from transformers.trainer_utils import PredictionOutput

from configuration_ultralight import UltraLightConfig
from ultra_light_predictor import UltraLightPredictor, decide
from ultralight.dataset import find_labels_file, load_splits, verification_queries
from ultralight.hub import push_folder, warn_if_logged_out
from ultralight.latency import measure_latency
from ultralight.model_builder import make_model
from ultralight.model_card import write_card
from ultralight.model_folder import DEPLOYABLE, METRICS_FILE, PLOTS, add_companions
from ultralight.onnx_export import ExportReport, export_folder
from ultralight.plots import save_plots
from ultralight.problems import InputError
from ultralight.pruning import zero_share
from ultralight.records import locate_splits
from ultralight.report import folder_size, label_table, summary_table, write_metrics
from ultralight.schema import LabelSchema
from ultralight.scores import score
from ultralight.settings import BASE, SCRATCH, TrainSettings
from ultralight.teachers import describe_teachers, prepare_lesson
from ultralight.thresholds import tune_thresholds
from ultralight.training import UltraLightTrainer, make_trainer, remove_checkpoints, run_training, tokenize
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
    splits, warnings = load_splits(settings.dataset, schema, split_seed=settings.split_seed, contradictions=settings.contradictions)
    if settings.distillation and lesson is None:
        lesson = prepare_lesson(splits, schema, settings)
    set_seed(settings.seed)
    model, tokenizer = make_model(settings, splits["train"]["query"], schema)
    trainer = make_trainer(model, tokenizer, splits, schema, settings, lesson)
    if trainer.is_world_process_zero():
        for warning in warnings:
            logger.warning("%s", warning)
        if settings.push_to_hub:
            warn_if_logged_out()
        print(f"{settings.dataset}: " + ", ".join(f"{len(rows)} {split}" for split, rows in splits.items()) + " queries")
        print(f"{sum(weights.numel() for weights in model.parameters()):,} parameters, {len(tokenizer):,} vocabulary rows", flush=True)
    run_training(trainer)
    answers = {split: trainer.predict(tokenize(splits[split], tokenizer)) for split in ("validation", "test")}
    if not trainer.is_world_process_zero():
        return {}

    metrics = _save_and_score(trainer, tokenizer, splits, schema, settings, answers)
    folder = Path(str(settings.output_dir))
    if settings.export_onnx:
        _export(folder, splits, schema, settings, metrics)
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
    tokenizer: PreTrainedTokenizerFast,
    splits: DatasetDict,
    schema: LabelSchema,
    settings: TrainSettings,
    answers: dict[str, PredictionOutput],
) -> dict[str, Any]:
    """Tunes the thresholds, saves the model with them, and scores and plots what it says."""
    model, folder = trainer.model, Path(str(settings.output_dir))
    # The labels that come with the answers: the Trainer may put rows in another order.
    references = {split: np.asarray(answer.label_ids) for split, answer in answers.items()}
    probabilities = {split: 1 / (1 + np.exp(-np.asarray(answer.predictions))) for split, answer in answers.items()}
    model.config.thresholds = tune_thresholds(probabilities["validation"], references["validation"], schema)
    model.config.training_facts = _facts(settings, splits, trainer)
    model.save_pretrained(folder)
    save_compact(tokenizer, folder)
    add_companions(folder, schema)

    cuts = np.array([model.config.thresholds[label] for label in schema.labels])
    chosen = {split: decide(probabilities[split], schema.sizes, cuts) for split in answers}
    metrics: dict[str, Any] = {split: score(chosen[split], references[split], schema) for split in answers}
    metrics["embedding_zeros"] = {"model": zero_share(model)}
    metrics["seconds"] = {"train": trainer.state.log_history[-1].get("train_runtime", 0.0)}
    save_plots(folder / PLOTS, trainer.state.log_history, metrics["test"]["per_label"], chosen["test"], references["test"], schema)
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


def _export(folder: Path, splits: DatasetDict, schema: LabelSchema, settings: TrainSettings, metrics: dict[str, Any]) -> None:
    """Exports, and scores on the test split what will ship."""
    report = export_folder(folder, verification_queries(splits), quantize=settings.quantize, architecture=settings.architecture)
    _score_export(folder, report, splits["test"], schema, metrics)


def export_again(
    folder: str | Path, dataset: str | None = None, *, quantize: bool = True, architecture: str = "avx512_vnni"
) -> ExportReport:
    """Exports a trained folder, and brings its `metrics.json` and card up to date where they are there.

    Args:
        folder: what training wrote.
        dataset: queries to verify on; None: what the model was trained on, whose test split is then scored anew.
        quantize: also write the INT8 graph.
        architecture: processor that it is made for.

    Raises:
        InputError: the folder holds no trained model, or does not say what it was trained on while `dataset` is None.
        ExportError: see `export_folder`.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"--model {folder}: no config.json there; accepted: a folder that train.py wrote")
    config = UltraLightConfig.from_pretrained(folder)
    facts = config.training_facts
    source = dataset or facts.get("dataset")
    if source is None or config.label_schema is None:
        raise InputError(f"--model {folder}: it does not say what it was trained on; name queries to check on with --dataset")
    schema = LabelSchema.from_dict(dict(config.label_schema), str(folder))
    splits, _ = load_splits(source, schema, split_seed=facts.get("split_seed", 42), contradictions="first")
    report = export_folder(folder, verification_queries(splits), quantize=quantize, architecture=architecture)
    # Figures on other queries than the model's own test split would stand beside those on that one.
    if dataset is None and (folder / METRICS_FILE).is_file():
        metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
        _score_export(folder, report, splits["test"], schema, metrics)
        write_metrics(folder / METRICS_FILE, metrics)
        write_card(folder)
    return report


def _score_export(folder: Path, report: ExportReport, test: Dataset, schema: LabelSchema, metrics: dict[str, Any]) -> None:
    """Puts what an export measured into `metrics`, and what its INT8 graph says of the test split, at which speed and size."""
    metrics["export"] = asdict(report)
    if report.int8_agreement is None:
        return
    predictor = UltraLightPredictor(folder)
    chosen = predictor.decide(predictor.probabilities(test["query"]))
    metrics["test_int8"] = score(chosen, np.array(test["labels"]), schema)
    metrics.setdefault("embedding_zeros", {})["int8"] = report.zero_embedding_share
    metrics["latency"] = measure_latency(predictor, test["query"])
    metrics["deployable_bytes"] = folder_size(folder, DEPLOYABLE)


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
