"""Looks for texts that will be measured on among the texts of pre-training: `python -m benchmarks.leakage --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from ultralight.corpus import corpus_files, iter_lines, parse_weights
from ultralight.problems import InputError
from ultralight.report import format_table
from ultralight.settings import PretrainSettings, parse_settings
from ultralight.text import bare_key

# A line that holds the beginning of a measured text, so many letters of it, is counted as holding the text.
BEGINNING = 16


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(
        description="Counts the lines of a corpus that equal a measured text, or hold its beginning, punctuation and case aside."
        " Exits with 1 where a line that equals one would be read in pre-training."
    )
    parser.add_argument("settings_yaml", nargs="?", default="configs/pretrain.yaml", help="settings of the pre-training")
    parser.add_argument("--measured", nargs="+", required=True, help="datasets whose queries must not be read: .jsonl files")
    return parser.parse_args()


def find(lines: Iterable[str], measured: set[str]) -> Iterator[tuple[str, bool]]:
    """Lines that are, or hold, a measured text, and whether they equal it.

    Args:
        lines: texts of a corpus.
        measured: `bare_key` of the measured texts.
    """
    beginnings = {key[:BEGINNING] for key in measured if len(key) >= BEGINNING}
    for line in lines:
        key = bare_key(line)
        if key in measured:
            yield line, True
        elif any(key[start : start + BEGINNING] in beginnings for start in range(len(key) - BEGINNING + 1)):
            yield line, False


def keys_of(names: Sequence[str]) -> set[str]:
    """`bare_key` of the queries of datasets."""
    return {bare_key(query) for file in corpus_files(names) for query in iter_lines(file)} - {""}


def main() -> None:
    """Counts and prints."""
    arguments = parse_arguments()
    try:
        settings = parse_settings([arguments.settings_yaml], None, PretrainSettings)
        files = corpus_files(settings.corpus)
        weights = parse_weights(settings.weights, files)
        measured, excluded = keys_of(arguments.measured), keys_of(settings.exclude)
    except InputError as error:
        sys.exit(f"error: {error}")
    rows, leaks = [], 0
    for file in tqdm([file for file in files if weights[file.stem]], desc="reading", file=sys.stderr):
        found = list(find(iter_lines(file), measured))
        read = [line for line, equal in found if equal and bare_key(line) not in excluded]
        leaks += len(read)
        rows.append([Path(file).name, str(sum(equal for _, equal in found)), str(len(read)), str(sum(not equal for _, equal in found))])
    print(format_table(["file", "equal", "of these read", "hold a beginning"], rows))
    sys.exit(1 if leaks else 0)


if __name__ == "__main__":
    main()
