"""Runtime of UltraLight models: one file, and nothing but onnxruntime and numpy.

    from ultra_light_predictor import UltraLightPredictor

    predictor = UltraLightPredictor("outputs/car_queries")
    predictor.predict("刚拿本，最好自己会倒库")  # label -> value: {"智能配置": "智能驾驶", "使用人群": "新手"}

Copy it beside your program: it imports neither torch nor transformers nor the rest of this project.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FP32_GRAPH = Path("onnx") / "model.onnx"
INT8_GRAPH = Path("onnx") / "model_quantized.onnx"
DEFAULT_THRESHOLD = 0.5
_OUTPUT = ["logits"]
# Keys under which `export_to_onnx` keeps the configuration and the tokenizer inside the ONNX file.
CONFIG_KEY, TOKENIZER_KEY = "ultralight.config", "ultralight.tokenizer"
# Queries a thread takes at most at a time: enough of each length to fill batches, few enough for a stream to flow.
_CHUNK = 512
# Rows of one run of the network: what its activations need still fits into a core's cache.
_BATCH = 32
# "someone/model"; neither a path to a file nor one that begins or ends in a dot.
_HUB_NAME = re.compile(r"(?!.*\.(onnx|ort)$)\w[\w.-]*/\w[\w.-]*")
# What the `tokenizers` library takes for Chinese characters: each is a word.
_IDEOGRAPHS = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f]"
)
# Different words whose ids are remembered: far more than there are characters, and little memory.
_REMEMBERED_WORDS = 20_000


class _Characters(dict[str, str]):
    """What BERT's normaliser and splitter make of a character: itself, with spaces around it, a space, or nothing."""

    def __init__(self, lowercase: bool, strip_accents: bool) -> None:
        super().__init__()
        self.lowercase = lowercase
        self.strip_accents = strip_accents

    def __missing__(self, character: str) -> str:
        category = unicodedata.category(character)
        if character in "\t\n\r" or category[0] == "Z":
            normal = " "
        elif category in ("Cc", "Cf", "Co", "Cs") or character == "\ufffd":
            normal = ""
        else:
            normal = "".join(f" {letter} " if _is_punctuation(letter) else letter for letter in self._letters(character))
            if _IDEOGRAPHS.match(character):
                normal = f" {normal} "
        self[character] = normal
        return normal

    def _letters(self, character: str) -> str:
        if self.strip_accents:
            parts = unicodedata.normalize("NFD", character)
            character = "".join(part for part in parts if unicodedata.category(part) != "Mn")
        return "".join(map(str.lower, character)) if self.lowercase else character


def _is_punctuation(character: str) -> bool:
    """Whether a character is a word by itself: all ASCII symbols are, too."""
    return unicodedata.category(character)[0] == "P" or (character.isascii() and not character.isalnum() and character.isprintable())


class _Words(dict[str, list[int]]):
    """Token ids of words, by WordPiece: always the longest piece that fits (Wu et al., 2016)."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        self.vocabulary: dict[str, int] = model["vocab"]
        self.prefix: str = model["continuing_subword_prefix"]
        self.longest: int = model["max_input_chars_per_word"]
        self.unknown = [self.vocabulary[model["unk_token"]]]

    def __missing__(self, word: str) -> list[int]:
        if len(word) > self.longest:
            return self.unknown
        ids = self._split(word)
        if len(self) < _REMEMBERED_WORDS:
            self[word] = ids
        return ids

    def _split(self, word: str) -> list[int]:
        ids, start = [], 0
        while start < len(word):
            prefix = self.prefix if start else ""
            ends = (end for end in range(len(word), start, -1) if prefix + word[start:end] in self.vocabulary)
            end = next(ends, None)
            if end is None:
                return self.unknown
            ids.append(self.vocabulary[prefix + word[start:end]])
            start = end
        return ids


class _Tokenizer:
    """Splits queries into token ids as the `tokenizers` library does, in a third of its time, and without its memory.

    Characters that Unicode has received since the library's tables were made are the only difference.

    Args:
        text: a `tokenizer.json` with BERT's steps, with or without NFKC before them, as all UltraLight models have.
        source: where it is from.

    Raises:
        ValueError: it describes another kind of tokenizer, or none.
    """

    def __init__(self, text: str, source: str) -> None:
        try:
            self._read(json.loads(text))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{source}: no tokenizer of BERT's kind can be read from it ({error!r})") from error

    def _read(self, described: dict[str, Any]) -> None:
        steps = described["normalizer"]
        *before, bert = steps["normalizers"] if steps["type"] == "Sequence" else [steps]
        kinds = [step["type"] for step in (*before, bert, described["pre_tokenizer"], described["model"])]
        if kinds[-3:] != ["BertNormalizer", "BertPreTokenizer", "WordPiece"] or kinds[:-3] not in ([], ["NFKC"]):
            raise ValueError(f"its steps are {', '.join(kinds)}")
        self._compatible = bool(before)
        strip = bert["lowercase"] if bert["strip_accents"] is None else bert["strip_accents"]
        self._characters, self._words = _Characters(bert["lowercase"], strip), _Words(described["model"])
        self._special = {token["content"]: [token["id"]] for token in described["added_tokens"]}
        self._split_special = re.compile("(" + "|".join(map(re.escape, self._special)) + ")").split
        frame = described["post_processor"]
        self._start, self._end = (frame["special_tokens"][frame["single"][place]["SpecialToken"]["id"]]["ids"] for place in (0, -1))

    def encode(self, query: str, max_length: int) -> list[int]:
        """Token ids of a query, cut to `max_length`."""
        ids = self._start.copy()
        for part in self._split_special(query):
            if part in self._special:
                ids += self._special[part]
                continue
            if self._compatible:
                part = unicodedata.normalize("NFKC", part)
            for word in "".join(map(self._characters.__getitem__, part)).split():
                ids += self._words[word]
        return ids[: max_length - len(self._end)] + self._end


def decide(probabilities: np.ndarray, sizes: list[int], thresholds: np.ndarray) -> np.ndarray:
    """Picks a value for every label.

    Args:
        probabilities: probability of each value within its label (batch, sum of sizes); a label's first value is its absent one.
        sizes: number of values of each label.
        thresholds: probability of the absent value from which on a label is absent (labels,).

    Returns:
        Index of the chosen value within each label (batch, labels); 0 is the absent value.
    """
    absent, present = _layout(tuple(sizes))
    chosen = probabilities.take(present, axis=1).argmax(axis=2) + 1
    return chosen * (probabilities.take(absent, axis=1) < thresholds)


@lru_cache
def _layout(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the absent values (labels,), and of the other values (labels, most of them), the last one repeated to fill a row."""
    absent = np.cumsum([0, *sizes[:-1]])
    return absent, absent[:, np.newaxis] + np.minimum(np.arange(1, max(sizes)), np.array(sizes)[:, np.newaxis] - 1)


class UltraLightPredictor:
    """Says for every label which value a query implies, or that it implies none.

    Safe to share between threads. Queries of the same length run through the network together, so nothing is padded; the
    scales of the integer arithmetic are constants, so a query's answer does not depend on its neighbours.

    Args:
        model_path: a model folder, an ONNX file (from a model's `onnx` folder or written by `export_to_onnx`), or the name of a
            model on the Hub, such as "someone/model", which `huggingface_hub` fetches once where it is installed.
        config_path: the model's `config.json`; found beside the model where left out.
        max_seq_length: longest query in tokens, longer ones are cut; at most what the model was built for, which is also the default.
        quantize: read the INT8 graph of a folder instead of the fp32 one.
        hidden_dim: checked against the model's width where given.
        num_threads: threads that work inside one query; 1 is fastest for a model of this size.

    Raises:
        FileNotFoundError: a file of the model is missing, or a named model cannot be fetched.
        ValueError: the configuration is not an UltraLight one, or disagrees with `max_seq_length` or `hidden_dim`.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        config_path: str | os.PathLike[str] | None = None,
        max_seq_length: int | None = None,
        quantize: bool = True,
        hidden_dim: int | None = None,
        num_threads: int = 1,
    ) -> None:
        self.onnx_path = _find_graph(_fetch(model_path, quantize), quantize)
        self._session = _start_session(self.onnx_path, num_threads)
        embedded = self._session.get_modelmeta().custom_metadata_map
        folder = self.onnx_path.parent.parent if self.onnx_path.parent.name == "onnx" else self.onnx_path.parent

        config_file = Path(config_path) if config_path is not None else folder / "config.json"
        from_graph = config_path is None and CONFIG_KEY in embedded
        self._config_text = embedded[CONFIG_KEY] if from_graph else _read(config_file)
        self.config = _parse_config(self._config_text, str(self.onnx_path if from_graph else config_file))

        self._tokenizer_text = embedded.get(TOKENIZER_KEY) or _read(folder / "tokenizer.json")
        self._tokenizer = _Tokenizer(self._tokenizer_text, str(folder / "tokenizer.json"))
        self.max_seq_length = _checked_length(self.config, max_seq_length)
        if hidden_dim is not None and hidden_dim != self.config["hidden_size"]:
            raise ValueError(f"hidden_dim={hidden_dim}, but the model in {model_path} is {self.config['hidden_size']} wide")

        self.label_schema: dict[str, list[str]] = dict(self.config["label_schema"])
        self._sizes = [len(values) for values in self.label_schema.values()]
        thresholds = self.config.get("thresholds") or {}
        self.thresholds = np.array([thresholds.get(label, DEFAULT_THRESHOLD) for label in self.label_schema])
        ends = np.cumsum(self._sizes).tolist()
        # Of each label: its name and values, the column of its absent value, where its columns end, and its threshold as log-odds.
        self._labels = [
            (label, values, end - len(values), end, _log_odds(threshold))
            for (label, values), end, threshold in zip(self.label_schema.items(), ends, self.thresholds.tolist(), strict=True)
        ]

    def predict(self, query: str, include_none: bool = False, return_scores: bool = False) -> dict[str, Any]:
        """Predicts one query.

        Args:
            query: any text.
            include_none: also return the labels that the query implies no value for, with their absent value.
            return_scores: return `{"value": ..., "score": ...}` per label, the score being the value's probability.

        Returns:
            label -> value.

        Raises:
            TypeError: `query` is not a string.
        """
        return next(self._answers(self.logits([query]), include_none, return_scores))

    def predict_batch(
        self, queries: Iterable[str], include_none: bool = False, return_scores: bool = False, num_workers: int = 1
    ) -> list[dict[str, Any]]:
        """Predicts any number of queries: the answers of `predict`, in the same order, by `num_workers` threads."""
        return list(self.iter_predict(queries, include_none, return_scores, num_workers))

    def iter_predict(
        self, queries: Iterable[str], include_none: bool = False, return_scores: bool = False, num_workers: int = 1
    ) -> Iterator[dict[str, Any]]:
        """Like `predict_batch` over a stream that need not fit into memory: yields each answer in turn."""
        if isinstance(queries, str):
            raise TypeError("queries is one string; pass a list of strings, or call predict")
        queries = iter(queries)
        # Starting a thread takes as long as a query: one works here.
        with nullcontext() if num_workers == 1 else ThreadPoolExecutor(num_workers) as pool:
            run = pool.map if pool else map
            while chunk := list(islice(queries, _CHUNK * num_workers)):
                share = -(-len(chunk) // num_workers)
                parts = [chunk[start : start + share] for start in range(0, len(chunk), share)]
                for logits in run(self.logits, parts):
                    yield from self._answers(logits, include_none, return_scores)

    def probabilities(self, queries: list[str]) -> np.ndarray:
        """Probability of every value within its label, in the order of the schema (batch, sum of values)."""
        return 1 / (1 + np.exp(-self.logits(queries)))

    def logits(self, queries: list[str]) -> np.ndarray:
        """The network's answer: log-odds of every value within its label (batch, sum of values)."""
        if len(queries) == 1:
            return self._session.run(_OUTPUT, {"input_ids": self.token_ids(queries[0])})[0]
        by_length: dict[int, list[int]] = {}
        for number, query in enumerate(queries):
            _check_query(query, number)
        encoded = [self._tokenizer.encode(query, self.max_seq_length) for query in queries]
        for number, ids in enumerate(encoded):
            by_length.setdefault(len(ids), []).append(number)
        rows = np.empty((len(queries), sum(self._sizes)), dtype=np.float32)
        for numbers in by_length.values():
            for start in range(0, len(numbers), _BATCH):
                batch = numbers[start : start + _BATCH]
                input_ids = np.array([encoded[number] for number in batch], dtype=np.int64)
                rows[batch] = self._session.run(_OUTPUT, {"input_ids": input_ids})[0]
        return rows

    def token_ids(self, query: str) -> np.ndarray:
        """Token ids of one query, cut to `max_seq_length` (1, seq_len)."""
        _check_query(query, 0)
        return np.array([self._tokenizer.encode(query, self.max_seq_length)], dtype=np.int64)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Index of the chosen value within each label (batch, labels), by the model's thresholds."""
        return decide(probabilities, self._sizes, self.thresholds)

    def export_to_onnx(self, path: str | os.PathLike[str]) -> Path:
        """Writes the whole model, configuration and tokenizer included, to one ONNX file that `UltraLightPredictor(path)` reads.

        Where the name ends in .gz, the file is compressed: that is where pruned weights save bytes.
        """
        graph = self.onnx_path.read_bytes()
        if self.onnx_path.suffix == ".gz":
            graph = gzip.decompress(graph)
        for key, text in ((CONFIG_KEY, self._config_text), (TOKENIZER_KEY, self._tokenizer_text)):
            if key not in self._session.get_modelmeta().custom_metadata_map:
                graph += _metadata_field(key, text)
        target = Path(path)
        if target.suffix == ".gz":
            graph = gzip.compress(graph, mtime=0)
        handle, partial = tempfile.mkstemp(dir=target.parent, suffix=".partial")
        with os.fdopen(handle, "wb") as file:
            file.write(graph)
        Path(partial).replace(target)
        return target

    def _answers(self, logits: np.ndarray, include_none: bool, return_scores: bool) -> Iterator[dict[str, Any]]:
        """What `decide` decides, by name: for a single query, plain Python takes a quarter of the time of numpy's calls."""
        for row in logits.tolist():
            answer: dict[str, Any] = {}
            for label, names, absent, end, limit in self._labels:
                if row[absent] < limit:
                    column = row.index(max(row[absent + 1 : end]), absent + 1)
                elif include_none:
                    column = absent
                else:
                    continue
                name = names[column - absent]
                answer[label] = {"value": name, "score": round(1 / (1 + math.exp(-row[column])), 6)} if return_scores else name
            yield answer


def _log_odds(probability: float) -> float:
    if not 0 < probability < 1:
        return math.copysign(math.inf, probability - 0.5)
    return math.log(probability / (1 - probability))


def _check_query(query: Any, number: int) -> None:
    if not isinstance(query, str):
        raise TypeError(f"query {number} is {type(query).__name__}, not a string: {query!r}")


def _fetch(model_path: str | os.PathLike[str], quantize: bool) -> Path:
    """The path itself, or, where nothing is there and it could be a name on the Hub, the folder it was downloaded to."""
    path, name = Path(model_path), str(model_path)
    if path.exists() or not _HUB_NAME.fullmatch(name):
        return path
    nowhere = f"{name} does not exist here: give a model folder, an ONNX file or the name of a model on the Hub"
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FileNotFoundError(f"{nowhere}; names need huggingface_hub (pip install huggingface_hub)") from None
    graph = (INT8_GRAPH if quantize else FP32_GRAPH).as_posix()
    files = [graph, "config.json", "tokenizer.json"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=files))
    except Exception as error:  # many kinds, of several libraries: no such model, no right to it, no network, no cached copy
        reason = " ".join(str(error).split())
        raise FileNotFoundError(f"{nowhere}; huggingface_hub cannot fetch it ({type(error).__name__}: {reason})") from error
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise FileNotFoundError(f"{name}: the model on the Hub, or what is cached of it, has no {' and no '.join(missing)}")
    return folder


def _find_graph(model_path: Path, quantize: bool) -> Path:
    if model_path.is_file():
        return model_path
    if not model_path.exists():
        raise FileNotFoundError(f"{model_path} does not exist: give a model folder, such as one that train.py wrote, or an ONNX file")
    graph = model_path / (INT8_GRAPH if quantize else FP32_GRAPH)
    if not graph.exists():
        raise FileNotFoundError(f"{graph} does not exist: write it with `python export.py --model {model_path}`")
    return graph


def _start_session(path: Path, num_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    # The graph is saved optimised: what is left to do is to restore the weights that are kept as integers and used as floats, once.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    graph = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else str(path)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _read(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: it belongs to the model, copy it from the folder that train.py wrote")
    return path.read_text(encoding="utf-8")


def _parse_config(text: str, source: str) -> dict[str, Any]:
    config = json.loads(text)
    if not isinstance(config, dict) or not config.get("label_schema"):
        raise ValueError(f"{source} is not the configuration of an UltraLight classifier: it has no label_schema")
    return config


def _checked_length(config: dict[str, Any], max_seq_length: int | None) -> int:
    longest = int(config["max_position_embeddings"])
    if max_seq_length is None:
        return int(config.get("max_seq_length", longest))
    if not 3 <= max_seq_length <= longest:
        raise ValueError(f"max_seq_length={max_seq_length}: this model reads 3 to {longest} tokens")
    return max_seq_length


def _metadata_field(key: str, text: str) -> bytes:
    """One `metadata_props` entry of an ONNX ModelProto, as bytes to append to the file.

    Protocol buffers are concatenable: a repeated field may continue at the end of a message, so no onnx package is
    needed. Field 14 holds the entries; in an entry, 1 is the key and 2 the value, all length-delimited (wire type 2).
    """

    def field(number: int, payload: bytes) -> bytes:
        length, varint = len(payload), bytearray()
        while length > 0x7F:
            varint.append(length & 0x7F | 0x80)
            length >>= 7
        varint.append(length)
        return bytes([number << 3 | 2]) + bytes(varint) + payload

    return field(14, field(1, key.encode()) + field(2, text.encode()))
