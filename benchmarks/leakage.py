"""Looks for texts that will be measured on among the texts of pre-training: `python -m benchmarks.leakage --help`."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from ultralight.corpus import corpus_files, forbidden_texts, iter_lines, parse_weights
from ultralight.problems import InputError
from ultralight.report import format_table
from ultralight.settings import PretrainSettings, parse_settings


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(
        description="Counts the lines of a corpus that equal a measured text or hold its beginning, punctuation and case aside."
        " Exits with 1 where such a line would be read in pre-training: name the dataset under `exclude` in the settings then."
    )
    parser.add_argument("settings_yaml", nargs="?", default="configs/pretrain.yaml", help="settings of the pre-training")
    parser.add_argument("--measured", nargs="+", required=True, help="files with the queries that must not be read")
    return parser.parse_args()


def main() -> None:
    """Counts and prints."""
    arguments = parse_arguments()
    try:
        settings = parse_settings([arguments.settings_yaml], None, PretrainSettings)
        files = corpus_files(settings.corpus)
        weights = parse_weights(settings.weights, files)
        measured, excluded = forbidden_texts(arguments.measured), forbidden_texts(settings.exclude)
    except InputError as error:
        sys.exit(f"error: {error}")
    rows, leaks = [], 0
    for file in tqdm([file for file in files if weights[file.stem]], desc="reading", file=sys.stderr):
        found = [line for line in iter_lines(file) if measured.held_by(line)]
        read = [line for line in found if not excluded.held_by(line)]
        leaks += len(read)
        rows.append([file.name, str(sum(map(measured.equal, found))), str(len(found)), str(len(read))])
    print(format_table(["file", "equal one", "hold one", "of these read"], rows))
    sys.exit(1 if leaks else 0)


if __name__ == "__main__":
    main()
