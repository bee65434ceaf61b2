"""Exports a trained folder, and scores on the test split what will ship."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from configuration_ultralight import UltraLightConfig
from ultra_light_predictor import UltraLightPredictor
from ultralight.dataset import load_splits, verification_queries
from ultralight.latency import measure_latency
from ultralight.model_card import write_card
from ultralight.model_folder import DEPLOYABLE, METRICS_FILE, add_companions
from ultralight.onnx_export import ExportReport, export_folder
from ultralight.problems import InputError
from ultralight.report import folder_size, write_metrics
from ultralight.schema import LabelSchema
from ultralight.scores import score


def export_and_score(
    folder: Path, splits: DatasetDict, schema: LabelSchema, metrics: dict[str, Any], *, quantize: bool, architecture: str
) -> ExportReport:
    """Exports as `export_folder` does, and puts into `metrics` what it measured and what the INT8 graph says of the test split."""
    report = export_folder(folder, verification_queries(splits), quantize=quantize, architecture=architecture)
    metrics["export"] = asdict(report)
    if quantize:
        predictor, test = UltraLightPredictor(folder), splits["test"]
        chosen = predictor.decide(predictor.probabilities(test["query"]))
        metrics["test_int8"] = score(chosen, np.array(test["labels"]), schema)
        metrics.setdefault("embedding_zeros", {})["int8"] = report.zero_embedding_share
        metrics["latency"] = measure_latency(predictor, test["query"])
        metrics["deployable_bytes"] = folder_size(folder, DEPLOYABLE)
    return report


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
    # Figures on other queries than the model's own test split would stand beside those on that one.
    if dataset is not None or not (folder / METRICS_FILE).is_file():
        return export_folder(folder, verification_queries(splits), quantize=quantize, architecture=architecture)
    metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    report = export_and_score(folder, splits, schema, metrics, quantize=quantize, architecture=architecture)
    write_metrics(folder / METRICS_FILE, metrics)
    add_companions(folder, schema)
    write_card(folder)
    return report
