"""The project's own presets, trained as train.py trains them, or taken from folders that it has written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset

from benchmarks.entries import PACKED
from benchmarks.peers.job import Job
from modeling_ultralight import CODE_FILES
from ultra_light_predictor import UltraLightPredictor
from ultralight.dataset import verification_queries
from ultralight.experiment import DEPLOYABLE, run
from ultralight.files import read_utf8
from ultralight.onnx_export import export_folder
from ultralight.problems import InputError
from ultralight.settings import TrainSettings, parse_settings
from ultralight.teachers import prepare_lesson

ROOT = Path(__file__).resolve().parents[2]
MICRO = "micro"
# Product -> settings file, and the flags that it changes.
PRESETS: dict[str, tuple[str, tuple[str, ...]]] = {
    MICRO: ("configs/micro.yaml", ()),
    "unpruned": ("configs/micro.yaml", ("--embedding_pruning", "0")),
    "nano": ("configs/nano.yaml", ()),
    "tiny": ("configs/tiny.yaml", ()),
}
MODEL_FILES = (
    *dict.fromkeys((*DEPLOYABLE, "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")),
    *CODE_FILES,
)
# Those of the published accuracy.
FLAGS = {"bdci_car": ("--distillation", "false")}
# Enough for a model of a few hundred queries to make up its mind: the export refuses one that rounding sways.
QUICK: dict[str, Any] = {"epochs": 12, "steps": None, "early_stopping_patience": 0, "distillation": False, "teacher": [], "transfer": []}


def recipe(job: Job) -> dict[str, Any]:
    """What decides the outcome."""
    if job.trained:
        return {name: hashlib.sha256((job.trained / name).read_bytes()).hexdigest() for name in MODEL_FILES}
    settings = dataclasses.asdict(settings_of(job))
    return {name: value for name, value in settings.items() if name != "output_dir"}


def train(job: Job) -> dict[str, Any]:
    """Trains the preset with its own settings, or takes over a trained model; packs it into one compressed file, too."""
    facts = _take_over(job.trained, job) if job.trained else _train(job)
    packed = UltraLightPredictor(job.folder).export_to_onnx(job.folder / PACKED)
    return {**facts, "packed_bytes": packed.stat().st_size}


def _take_over(source: Path, job: Job) -> dict[str, Any]:
    if _labels_of(source) != job.schema.to_dict():
        raise InputError(f"{source}: its labels are not those of {job.dataset}; accepted: a model trained on it")
    for name in MODEL_FILES:
        (job.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, job.folder / name)
    # The INT8 graph is measured as it lies there; a clone has no fp32 one.
    export_folder(job.folder, verification_queries(job.splits), quantize=False)
    return {"chosen": json.loads(read_utf8(source / "config.json")).get("training_facts", {})}


def _train(job: Job) -> dict[str, Any]:
    settings = settings_of(job)
    metrics = run(settings, _lesson(job, settings))
    chosen = {"settings": PRESETS[job.product][0], "changed": [*PRESETS[job.product][1], *job.flags]}
    return {"chosen": chosen, "validation_micro_f1": metrics["validation"]["micro_f1"], "export": metrics["export"]}


def settings_of(job: Job) -> TrainSettings:
    """The preset's settings file, on this dataset."""
    yaml, changes = PRESETS[job.product]
    flags = ["--dataset", job.dataset, "--output_dir", str(job.folder), "--export_onnx", "true", "--quantize", "true", *changes]
    if job.longest:
        flags += ["--max_seq_length", str(job.longest)]
    settings = parse_settings([str(ROOT / yaml), *flags, *FLAGS.get(job.dataset_name, ()), *job.flags], None, TrainSettings)
    if job.quick:
        return dataclasses.replace(settings, **QUICK)
    return dataclasses.replace(settings, teacher=_teachers(settings, job))


def _teachers(settings: TrainSettings, job: Job) -> list[str]:
    """The settings' own teachers where they know these labels, or else `micro` of this dataset; none: some are trained."""
    candidates = ([*settings.teacher], [str(job.folder.parent / MICRO)])
    fitting = (folders for folders in candidates if folders and all(_labels_of(folder) == job.schema.to_dict() for folder in folders))
    return next(fitting, []) if settings.teacher else []


def _labels_of(folder: str | Path) -> dict[str, list[str]]:
    try:
        schema = json.loads(read_utf8(Path(folder) / "config.json")).get("label_schema")
    except InputError:
        return {}
    return dict(schema or {})


def _lesson(job: Job, settings: TrainSettings) -> Dataset | None:
    """What trained teachers say: `micro`'s teach all presets that learn from trained ones."""
    if not settings.distillation or settings.teacher:
        return None
    return _cross_fitted(
        dataclasses.replace(job, product=MICRO, folder=job.folder.parent / "lesson"), settings.teacher_folds, settings.linear_teacher
    )


@cache
def _cross_fitted(job: Job, folds: int, linear: float) -> Dataset:
    settings = dataclasses.replace(settings_of(job), distillation=True, teacher=[], teacher_folds=folds, linear_teacher=linear)
    recipe = json.dumps({**dataclasses.asdict(settings), "output_dir": None}, sort_keys=True)
    kept = job.folder / hashlib.sha256(recipe.encode()).hexdigest()[:12]
    if not kept.exists():
        prepare_lesson(job.splits, job.schema, settings).save_to_disk(str(kept) + ".partial")
        Path(str(kept) + ".partial").rename(kept)
    return Dataset.load_from_disk(str(kept))
