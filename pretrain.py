"""Pre-trains an encoder on plain text: `python pretrain.py --help`."""

from __future__ import annotations

import sys

from ultralight.command_line import run_command


def main() -> None:
    """Reads the settings and pre-trains."""
    # Imports that take seconds stand here, as in train.py.
    from ultralight.pretrain_settings import PretrainSettings
    from ultralight.settings import parse_settings

    settings = parse_settings(sys.argv[1:], None, PretrainSettings)
    from ultralight.pretraining import run_pretraining

    report = run_pretraining(settings)
    if report:
        print(f"held-out text: loss {report['loss']:.3f}, masked accuracy {report['masked_accuracy']:.3f}")
        print(f"{report['lines_read']:,} lines read; encoder and tokenizer in {report['settings']['output_dir']}")


if __name__ == "__main__":
    run_command(main, after_interrupt="the same command with --resume goes on from the last checkpoint")
