"""What a finished model folder holds beside its weights, and which of its files go to the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ultra_light_predictor
from configuration_ultralight import UltraLightConfig
from modeling_ultralight import CODE_FILES
from ultra_light_predictor import FP32_GRAPH, INT8_GRAPH
from ultralight.files import write_text
from ultralight.problems import InputError
from ultralight.schema import LABELS_FILE, LabelSchema

CARD, METRICS_FILE, PLOTS = "README.md", "metrics.json", "plots"
PREDICTOR = Path(ultra_light_predictor.__file__)
# All that a device needs of a model folder.
DEPLOYABLE = (INT8_GRAPH.as_posix(), "tokenizer.json", "config.json")
# What a stranger needs to load, judge or train on the model. Whatever else lies in the folder stays there: checkpoints,
# unfinished and hidden files, a user's own.
TO_PUSH = (
    CARD,
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    *CODE_FILES,
    PREDICTOR.name,
    LABELS_FILE,
    METRICS_FILE,
    FP32_GRAPH.as_posix(),
    INT8_GRAPH.as_posix(),
)


def read_config(folder: Path) -> UltraLightConfig:
    """The configuration of a trained folder.

    Raises:
        InputError: it has no labels.
    """
    config = UltraLightConfig.from_pretrained(folder)
    if config.label_schema is None:
        raise InputError(f"{folder}: a model without labels; accepted: a folder that train.py wrote")
    return config


def add_companions(folder: Path, schema: LabelSchema) -> None:
    """Puts the labels file and the runtime beside the weights."""
    labels, predictor = folder / LABELS_FILE, folder / PREDICTOR.name
    if not (labels.is_file() and _says(labels, schema)):
        lines = (f"  {json.dumps(label, ensure_ascii=False)}: {json.dumps(v, ensure_ascii=False)}" for label, v in schema.to_dict().items())
        write_text(labels, "{\n" + ",\n".join(lines) + "\n}\n")
    if predictor.resolve() != PREDICTOR.resolve():
        shutil.copyfile(PREDICTOR, predictor)


def files_to_push(folder: Path) -> list[str]:
    """Paths, relative to `folder`, of its files that belong on the Hub.

    Raises:
        InputError: the folder holds no trained model.
    """
    missing = [name for name in ("config.json", "model.safetensors", "tokenizer.json") if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: no {' or '.join(missing)} there; accepted: a folder that train.py wrote")
    plots = sorted(path.relative_to(folder).as_posix() for path in (folder / PLOTS).glob("[!.]*.png"))
    return [*(name for name in TO_PUSH if (folder / name).is_file()), *plots]


def _says(labels: Path, schema: LabelSchema) -> bool:
    try:
        return LabelSchema.from_file(labels).to_dict() == schema.to_dict()
    except InputError:
        return False
