"""Trains a model from a labels file and labelled queries: `python train.py --help`."""

from __future__ import annotations

import logging
import sys

from ultralight.experiment import run
from ultralight.hub import PushError
from ultralight.onnx_export import ExportError
from ultralight.problems import InputError
from ultralight.settings import TrainSettings, parse_settings

DEFAULT_YAML = "configs/car_queries.yaml"


def main() -> None:
    """Reads the settings and runs the whole path."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        run(parse_settings(sys.argv[1:], DEFAULT_YAML, TrainSettings))
    except (InputError, ExportError, PushError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
