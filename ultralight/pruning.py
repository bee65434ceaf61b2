"""Magnitude pruning of the embeddings during training: the smallest weights are driven to zero, gradually."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# Share of the training steps over which the pruned share grows; the rest of the training adapts to it.
RAMP = 0.25
# Steps between two choices of the weights to prune: choosing sorts the table, which would cost as much as a step.
INTERVAL = 20


def embedding_tables(model: PreTrainedModel) -> list[nn.Embedding]:
    """The token, position and type embeddings of a model."""
    return [module for module in model.base_model.embeddings.modules() if isinstance(module, nn.Embedding)]


def prune(model: PreTrainedModel, share: float) -> list[torch.Tensor]:
    """Sets the `share` of each embedding table that is smallest by magnitude to zero, in place; returns what stays, as masks."""
    masks = []
    with torch.no_grad():
        for table in embedding_tables(model):
            magnitudes = table.weight.abs()
            count = round(share * magnitudes.numel())
            bound = magnitudes.flatten().kthvalue(count).values if count else torch.tensor(-1.0)
            masks.append(magnitudes > bound)
    apply_masks(model, masks)
    return masks


def apply_masks(model: PreTrainedModel, masks: list[torch.Tensor]) -> None:
    """Sets the embedding weights that the masks leave out to zero, in place."""
    with torch.no_grad():
        for table, mask in zip(embedding_tables(model), masks, strict=True):
            table.weight.mul_(mask)


def zero_share(model: PreTrainedModel) -> float:
    """Share of the embedding weights that are exactly zero."""
    tables = embedding_tables(model)
    zeros = sum(int((table.weight == 0).sum()) for table in tables)
    return zeros / sum(table.weight.numel() for table in tables)


def scheduled_share(target: float, step: int, ramp_steps: int) -> float:
    """Pruned share after `step` optimizer steps: cubic growth, fast while weights are plenty (Zhu and Gupta, 2017)."""
    progress = min(1.0, step / ramp_steps) if ramp_steps else 1.0
    return target * (1 - (1 - progress) ** 3)


class EmbeddingPruning(TrainerCallback):
    """Keeps pruned weights at zero after every optimizer step, and prunes more of them while the ramp lasts.

    Models from before the end of the ramp are no candidates for the best one: they have too few zeros.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.masks: list[torch.Tensor] | None = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: PreTrainedModel, **kwargs: Any
    ) -> None:
        """Prunes to the share that the schedule asks for."""
        ramp_steps, step = int(RAMP * state.max_steps), state.global_step
        plain = getattr(model, "module", model)  # out of a data-parallel wrapper
        if self.masks is None or step == ramp_steps or (step < ramp_steps and step % INTERVAL == 0):
            # A resumed run chooses again what was chosen last.
            chosen = step if step >= ramp_steps else max(1, step - step % INTERVAL)
            self.masks = prune(plain, scheduled_share(self.target, chosen, ramp_steps))
        else:
            apply_masks(plain, self.masks)
        if step == ramp_steps:
            state.best_metric = None
            state.best_model_checkpoint = None
