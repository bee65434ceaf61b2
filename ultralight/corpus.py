"""Text for pre-training: streamed from files larger than memory, mixed, with lines held out and test texts kept out."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from datasets import IterableDataset, interleave_datasets, load_dataset
from transformers import PreTrainedTokenizerFast

from ultralight.problems import InputError
from ultralight.text import text_key

# One line in so many is held out.
HELD_OUT = 500
SHUFFLE_BUFFER = 10_000
# Lines that are sorted by length together, so that a batch holds lines of like length and hardly any padding.
BUCKET = 4096


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


def is_held_out(line: str) -> bool:
    """Whether a line belongs to the held-out part; by its text, so that copies stay together and every run agrees."""
    return zlib.crc32(text_key(line).encode()) % HELD_OUT == 0


def held_out_lines(files: Sequence[Path], excluded: set[str], limit: int) -> list[str]:
    """A fixed sample of the held-out lines of all files."""
    lines = [line for file in files for line in iter_lines(file) if is_held_out(line) and text_key(line) not in excluded]
    return random.Random(0).sample(lines, min(limit, len(lines)))


def iter_lines(file: Path) -> Iterator[str]:
    """The lines of a file that hold text; of a .jsonl file, its queries."""
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            text = json.loads(line)["query"] if file.suffix == ".jsonl" and line.strip() else line
            if text.strip():
                yield text.strip()


def stream_batches(
    files: Sequence[Path],
    weights: dict[str, float],
    excluded: set[str],
    tokenizer: PreTrainedTokenizerFast,
    batch_size: int,
    seed: int,
) -> IterableDataset:
    """Endless token ids of the training lines, in an order that makes each `batch_size` of them of like length.

    Args:
        files: text, one sentence a line.
        weights: file stem -> how often its lines are drawn, relative to their number.
        excluded: `text_key` of texts that must not be read.
        tokenizer: cuts lines to its maximum length.
        batch_size: lines a batch.
        seed: of the order.
    """
    used = [file for file in files if weights[file.stem] > 0]
    streams = [_stream(file).shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER).repeat(None) for file in used]
    shares = [weights[file.stem] * sum(1 for _ in iter_lines(file)) for file in used]
    mixed = interleave_datasets(streams, probabilities=[share / sum(shares) for share in shares], seed=seed)
    readable = mixed.filter(partial(_is_for_training, excluded=excluded))
    return readable.map(_bucketing(tokenizer, batch_size, seed), batched=True, batch_size=BUCKET, remove_columns=["text"])


def _stream(file: Path) -> IterableDataset:
    if file.suffix == ".jsonl":
        return (
            load_dataset("json", data_files=str(file), split="train", streaming=True).select_columns("query").rename_column("query", "text")
        )
    return load_dataset("text", data_files=str(file), split="train", streaming=True)


def _is_for_training(row: dict[str, str], excluded: set[str]) -> bool:
    key = text_key(row["text"])
    return bool(key) and key not in excluded and not is_held_out(row["text"])


def _bucketing(
    tokenizer: PreTrainedTokenizerFast, batch_size: int, seed: int
) -> Callable[[dict[str, list[str]]], dict[str, list[list[int]]]]:
    def tokenize_sorted(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encoded = sorted(tokenizer(rows["text"], truncation=True)["input_ids"], key=len)
        batches = [encoded[start : start + batch_size] for start in range(0, len(encoded) - batch_size + 1, batch_size)]
        random.Random(f"{seed} {rows['text'][0]}").shuffle(batches)
        return {"input_ids": [ids for batch in batches for ids in batch]}

    return tokenize_sorted
