"""Pre-trains an encoder on plain text: `python pretrain.py --help`."""

from __future__ import annotations

import logging
import sys

from ultralight.pretraining import run_pretraining
from ultralight.problems import InputError
from ultralight.settings import PretrainSettings, parse_settings


def main() -> None:
    """Reads the settings and pre-trains."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        report = run_pretraining(parse_settings(sys.argv[1:], None, PretrainSettings))
    except InputError as error:
        sys.exit(f"error: {error}")
    if report:
        print(f"held-out text: loss {report['loss']:.3f}, masked accuracy {report['masked_accuracy']:.3f}")
        print(f"{report['lines_read']:,} lines read; encoder and tokenizer in {report['settings']['output_dir']}")


if __name__ == "__main__":
    main()
