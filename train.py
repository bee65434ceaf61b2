"""Trains a model from a labels file and labelled queries: `python train.py --help`."""

from __future__ import annotations

import sys

from ultralight.command_line import run_command

DEFAULT_YAML = "configs/car_queries.yaml"


def main() -> None:
    """Reads the settings and runs the whole path."""
    # Imports that take seconds stand here: Ctrl-C meanwhile is no stack trace, and wrong flags are told before torch is loaded.
    from ultralight.settings import TrainSettings, parse_settings

    settings = parse_settings(sys.argv[1:], DEFAULT_YAML, TrainSettings)
    from ultralight.experiment import run

    run(settings)


if __name__ == "__main__":
    run_command(main, after_interrupt="the same command with --resume goes on from the last checkpoint")
