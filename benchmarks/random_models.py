"""Models with random weights, of any schema, exported as a trained one is: what they say means nothing, what they cost does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ultralight.model_builder import make_model
from ultralight.onnx_export import export_folder
from ultralight.schema import LabelSchema
from ultralight.settings import TrainSettings
from ultralight.vocabulary import save_compact

# Makes the absent value certain: the export checks that INT8 decides as fp32 does, and random heads would not be decided.
CERTAIN = 8.0


def make_schema(labels: int, values: int) -> LabelSchema:
    """A schema of so many labels with so many values each, the absent one included."""
    return LabelSchema.from_dict({f"label {label}": ["none", *(f"value {value}" for value in range(1, values))] for label in range(labels)})


def write_model(folder: Path, schema: LabelSchema, settings: TrainSettings, texts: Sequence[str]) -> Path:
    """Writes a model folder with an INT8 graph.

    Args:
        folder: where to.
        schema: the labels.
        settings: shape of the model.
        texts: queries that the vocabulary is fitted to, and on which the export is verified.
    """
    torch.manual_seed(0)
    model, tokenizer = make_model(settings, {"query": texts, "labels": [[0] * len(schema.labels)] * len(texts)}, schema)
    biases = [model.heads.bias] if model.linear is None else [model.heads.bias, model.linear.bias]
    with torch.no_grad():
        for bias in biases:
            bias[[columns.start for _, columns in schema.slices()]] = CERTAIN
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    save_compact(tokenizer, folder)
    export_folder(folder, texts)
    return folder
