"""Learning from bigger models of the same class: their distributions within each label (Hinton, Vinyals and Dean, 2015)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, logsigmoid
from transformers import AutoTokenizer

from modeling_ultralight import UltraLightForImplicitLabelPrediction
from ultralight.inference import ask
from ultralight.problems import InputError
from ultralight.schema import LabelSchema

# Keeps the logarithm of a teacher's zero finite.
EPSILON = 1e-9


def teach(folders: Sequence[str], queries: Sequence[str], schema: LabelSchema) -> Tensor:
    """Asks the teachers.

    Args:
        folders: folders of trained models with the same labels, in any shape.
        queries: what to ask.
        schema: the labels.

    Returns:
        Mean of the teachers' probabilities of each value within its label (queries, sum of values).

    Raises:
        InputError: a folder holds no model, or one with other labels.
    """
    return torch.stack([_ask(folder, queries, schema) for folder in folders]).mean(0)


def distillation_loss(logits: Tensor, targets: Tensor, schema: LabelSchema, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the student from the teacher within each label, averaged over queries and labels.

    Args:
        logits: the student's log-odds (batch, sum of values).
        targets: the teachers' probabilities (batch, sum of values).
        schema: the labels.
        temperature: softens both; the loss is scaled by its square, so that gradients keep their size.
    """
    total = logits.new_zeros(())
    for _, columns in schema.slices():
        student = log_softmax(logsigmoid(logits[:, columns]) / temperature, dim=-1)
        teacher = log_softmax((targets[:, columns] + EPSILON).log() / temperature, dim=-1)
        total = total + kl_div(student, teacher, reduction="batchmean", log_target=True)
    return temperature**2 * total / len(schema.labels)


def _ask(folder: str, queries: Sequence[str], schema: LabelSchema) -> Tensor:
    try:
        model = UltraLightForImplicitLabelPrediction.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"--teacher {folder}: no trained UltraLight model can be read from there ({error})") from error
    if model.config.label_schema != [[label, list(names)] for label, names in schema.values.items()]:
        raise InputError(f"--teacher {folder}: its labels are not those of this run; accepted: a teacher of the same labels file")
    return ask(model, tokenizer, queries, f"asking {folder}").sigmoid()
