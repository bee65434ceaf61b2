"""Text for pre-training: tokenised once into a file larger than memory may be, with lines held out and test texts kept out."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets, load_dataset
from transformers import PreTrainedTokenizerFast

from ultralight.problems import InputError
from ultralight.query_files import checked_queries
from ultralight.records import read_file
from ultralight.rows import parse_json_lines
from ultralight.text import ForbiddenTexts, text_key

# One line in so many is held out.
HELD_OUT = 500
FEATURES = Features({"input_ids": List(Value("uint16")), "length": Value("uint16"), "weight": Value("float32")})


def corpus_files(paths: Sequence[str]) -> list[Path]:
    """The text files that `paths` name, folders standing for all their .txt files.

    Raises:
        InputError: one is missing, or a folder holds no .txt file.
    """
    files: list[Path] = []
    for name in paths:
        path = Path(name)
        found = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        if not found or not all(file.is_file() for file in found):
            raise InputError(f"{name}: accepted: a .txt file, one sentence a line, a .jsonl file with queries, or a folder with .txt files")
        files += found
    return files


def parse_weights(weights: Sequence[str], files: Sequence[Path]) -> dict[str, float]:
    """Reads weights such as "car_forum=4": the file's lines are drawn four times as often as their number says.

    Raises:
        InputError: a weight is not written like that, or names no file of the corpus.
    """
    parsed = dict.fromkeys((file.stem for file in files), 1.0)
    for item in weights:
        name, _, number = item.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name not in parsed or value < 0:
            raise InputError(f"--weights {item}: accepted: NAME=NUMBER, NAME one of {', '.join(parsed)}, NUMBER at least 0")
        parsed[name] = value
    return parsed


def forbidden_texts(datasets: Sequence[str]) -> ForbiddenTexts:
    """The queries of datasets, in any form that training reads from a file, as texts that must not be read.

    Raises:
        InputError: a file cannot be read.
    """
    records = (record for name in datasets for record in read_file(Path(name)))
    return ForbiddenTexts(str(record.content.get("query", "")) for record in records if isinstance(record.content, dict))


def is_held_out(line: str) -> bool:
    """Whether a line belongs to the held-out part; by its text, so that copies stay together and every run agrees."""
    return zlib.crc32(text_key(line).encode()) % HELD_OUT == 0


def held_out_lines(files: Sequence[Path], forbidden: ForbiddenTexts, limit: int) -> list[str]:
    """A fixed sample of the held-out lines of all files."""
    lines = [line for file in files for line in iter_lines(file) if is_held_out(line) and not forbidden.held_by(line)]
    return random.Random(0).sample(lines, min(limit, len(lines)))


def iter_lines(file: Path) -> Iterator[str]:
    """The lines of a file that hold text; of a .jsonl file, its queries.

    Raises:
        InputError: the file is not UTF-8, or a row holds no query.
    """
    with file.open(encoding="utf-8") as stream:
        lines = checked_queries(parse_json_lines(stream, str(file))) if file.suffix == ".jsonl" else stream
        try:
            yield from (line.strip() for line in lines if line.strip())
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: not UTF-8 ({error.reason}); accepted: a file saved as UTF-8") from None


def training_lines(
    files: Sequence[Path],
    weights: dict[str, float],
    forbidden: ForbiddenTexts,
    tokenizer: PreTrainedTokenizerFast,
    num_proc: int | None = None,
) -> Dataset:
    """Token ids of the training lines, in a file mapped to memory: a corpus may be larger than it.

    Args:
        files: text, one sentence a line.
        weights: file stem -> how often its lines are drawn, relative to their number; files that are never drawn are not read.
        forbidden: texts that must not be read.
        tokenizer: cuts lines to its maximum length.
        num_proc: processes that tokenise.

    Returns:
        Rows with `input_ids`, their `length`, and the `weight` of their file.
    """
    parts = []
    for file in files:
        if weights[file.stem] > 0:
            part = _read(file).map(
                partial(_tokenize, tokenizer=tokenizer, forbidden=forbidden, weight=weights[file.stem]),
                batched=True,
                remove_columns=["text"],
                features=FEATURES,
                num_proc=num_proc,
                desc=file.name,
            )
            parts.append(part)
    return concatenate_datasets(parts)


def _read(file: Path) -> Dataset:
    if file.suffix == ".jsonl":
        return load_dataset("json", data_files=str(file), split="train").select_columns("query").rename_column("query", "text")
    return load_dataset("text", data_files=str(file), split="train")


def _tokenize(
    rows: dict[str, list[str]], tokenizer: PreTrainedTokenizerFast, forbidden: ForbiddenTexts, weight: float
) -> dict[str, list[Any]]:
    wanted = [text for text in rows["text"] if _is_for_training(text, forbidden)]
    encoded = tokenizer(wanted, truncation=True)["input_ids"] if wanted else []
    return {"input_ids": encoded, "length": [len(ids) for ids in encoded], "weight": [weight] * len(encoded)}


def _is_for_training(text: str, forbidden: ForbiddenTexts) -> bool:
    return bool(text_key(text)) and not is_held_out(text) and not forbidden.held_by(text)
