"""What a training shows while it runs: a line for each look at its scores, bars, and curves in TensorBoard or Trackio."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TrackioCallback
from transformers.training_args import default_logdir

from ultralight.progress import bars_hidden
from ultralight.settings import TrainSettings

logger = logging.getLogger(__name__)

# Under which the runs stand in Trackio.
PROJECT = "ultralight"
SHOWN = ("loss", "eval_loss", "eval_micro_f1", "eval_macro_f1", "eval_exact_match", "eval_masked_accuracy")


class LogLines(TrainerCallback):
    """Tells losses and scores on standard error, above the bar where there is one."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
        """One line for what was measured."""
        scores = ", ".join(f"{name} {logs[name]:.4f}" for name in SHOWN if name in logs)
        if scores and state.is_world_process_zero and logger.isEnabledFor(logging.INFO):
            tqdm.write(f"step {state.global_step} of {state.max_steps}: {scores}", file=sys.stderr)


class Bars(ProgressCallback):
    """The Trainer's bars without its own log lines, which go to standard output."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Left to `LogLines`."""


class LocalTrackio(TrackioCallback):
    """Trackio without what it prints, in colours and on standard output."""

    def setup(self, args: TrainingArguments, state: TrainerState, model: Any, **kwargs: Any) -> None:
        """Begins the run."""
        with redirect_stdout(io.StringIO()):
            super().setup(args, state, model, **kwargs)
        if state.is_world_process_zero:
            logger.info('curves: trackio show --project "%s"', PROJECT)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Ends the run."""
        with redirect_stdout(io.StringIO()):
            super().on_train_end(*args, **kwargs)


def report_arguments(settings: TrainSettings) -> dict[str, Any]:
    """The part of TrainingArguments that says where curves go: beside the model, or into Trackio's folder; nothing leaves the machine."""
    folder = Path(str(settings.output_dir))
    return {
        "report_to": [name for name in settings.report_to if name == "tensorboard"],
        "logging_dir": str(folder / default_logdir()),
        "run_name": folder.name,
        "project": PROJECT,
        "trackio_space_id": None,
    }


def show_training(trainer: Trainer, settings: TrainSettings | None = None) -> None:
    """Replaces the Trainer's own output by ours, and adds what the settings ask for."""
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) and not bars_hidden():
        trainer.add_callback(Bars)
    trainer.add_callback(LogLines)
    if settings is not None and "trackio" in settings.report_to:
        trainer.add_callback(LocalTrackio)
