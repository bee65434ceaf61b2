"""Looks for texts that will be measured on among the texts of pre-training: `python -m benchmarks.leakage --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tqdm import tqdm

from ultralight.corpus import corpus_files, iter_lines, parse_weights
from ultralight.problems import InputError
from ultralight.report import format_table
from ultralight.settings import PretrainSettings, parse_settings
from ultralight.text import ForbiddenTexts


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(
        description="Counts the lines of a corpus that equal a measured text or hold its beginning, punctuation and case aside."
        " Exits with 1 where such a line would be read in pre-training: name the dataset under `exclude` in the settings then."
    )
    parser.add_argument("settings_yaml", nargs="?", default="configs/pretrain.yaml", help="settings of the pre-training")
    parser.add_argument("--measured", nargs="+", required=True, help="datasets whose queries must not be read: .jsonl files")
    return parser.parse_args()


def texts_of(names: Sequence[str]) -> ForbiddenTexts:
    """The queries of datasets."""
    return ForbiddenTexts(query for file in corpus_files(names) for query in iter_lines(file))


def main() -> None:
    """Counts and prints."""
    arguments = parse_arguments()
    try:
        settings = parse_settings([arguments.settings_yaml], None, PretrainSettings)
        files = corpus_files(settings.corpus)
        weights = parse_weights(settings.weights, files)
        measured, excluded = texts_of(arguments.measured), texts_of(settings.exclude)
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
