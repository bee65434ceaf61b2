"""Looks for texts that will be measured on among the texts of pre-training: `python -m benchmarks.leakage --help`."""

from __future__ import annotations

import argparse

from ultralight.command_line import add_output_flags, make_parser, run_command
from ultralight.corpus import corpus_files, forbidden_texts, iter_lines, parse_weights
from ultralight.pretrain_settings import PretrainSettings
from ultralight.problems import CheckError
from ultralight.progress import progress
from ultralight.report import format_table
from ultralight.settings import parse_settings

USAGE = """\
Counts the lines of a corpus that equal a measured text or hold its beginning, punctuation and case aside.

What an encoder has read, it may know by heart: a score on such texts would say too much. Fails where such a line would be read in
pre-training; the remedy is to name the dataset under `exclude` in the settings.

example:
  python -m benchmarks.leakage configs/pretrain.yaml --measured data/car_queries/test.jsonl my_data/test.csv"""


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    parser = make_parser(USAGE)
    parser.add_argument("settings_yaml", nargs="?", default="configs/pretrain.yaml", help="settings of the pre-training")
    parser.add_argument("--measured", nargs="+", required=True, help="files with the queries that must not be read")
    return add_output_flags(parser).parse_args()


def main() -> None:
    """Counts and prints."""
    arguments = parse_arguments()
    settings = parse_settings([arguments.settings_yaml], None, PretrainSettings)
    files = corpus_files(settings.corpus)
    weights = parse_weights(settings.weights, files)
    measured, excluded = forbidden_texts(arguments.measured), forbidden_texts(settings.exclude)
    rows, leaks = [], 0
    for file in progress([file for file in files if weights[file.stem]], "reading", "files"):
        found = [line for line in iter_lines(file) if measured.held_by(line)]
        read = [line for line in found if not excluded.held_by(line)]
        leaks += len(read)
        rows.append([file.name, str(sum(map(measured.equal, found))), str(len(found)), str(len(read))])
    print(format_table(["file", "equal one", "hold one", "of these read"], rows))
    if leaks:
        raise CheckError(f"{leaks} measured line(s) would be read; accepted: none, with the dataset under `exclude`")


if __name__ == "__main__":
    run_command(main)
