"""The old recipe, trained; standard BERTs with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertTokenizerFast

from benchmarks.peers.job import Job, search, write_labels
from benchmarks.peers.torch_training import TorchScorer, fit
from benchmarks.runtimes.bert import QUANTIZED_WEIGHTS, BertWithHeads, quantize
from ultralight.files import write_text
from ultralight.vocabulary import CONTINUATION, SPECIAL_TOKENS, basic_tokens, common_chinese_characters

VOCABULARY = 30_522
OLD_LENGTH = 32
PROJECTION = 64
BATCH = 32
OLD_RECIPE = "old_recipe"
# Encoder layers, width and heads.
SHAPES = {OLD_RECIPE: (2, 128, 2), "bert": (12, 768, 12), "bert_light": (6, 768, 12)}
QUICK_SHAPE = (2, 48, 2)
CHINESE = range(0x4E00, 0xA000)


@dataclass(frozen=True)
class Setting:
    """One point of the grid."""

    learning_rate: float
    epochs: int


# At 3e-3 it no longer leaves the start.
GRID = (Setting(1e-3, 10), Setting(5e-4, 10))


def recipe(job: Job) -> dict[str, Any]:
    """What decides the outcome."""
    return {"shape": _shape(job), "grid": [vars(setting) for setting in GRID] if job.product == OLD_RECIPE else None, "length": job.longest}


def train(job: Job) -> dict[str, Any]:
    """Trains and quantises the old recipe; saves the standard ones as they are."""
    tokenizer = build_tokenizer(job.folder, job.longest or (OLD_LENGTH if job.product == OLD_RECIPE else 512))
    if job.product != OLD_RECIPE:
        model = _new_model(job, tokenizer)
        model.save_pretrained(job.folder)
        write_labels(job.folder, job.schema, {})
        return {"note": "random weights"}

    def candidate(setting: Setting) -> TorchScorer:
        trained = fit(_new_model(job, tokenizer), tokenizer, job, setting.learning_rate, 1 if job.quick else setting.epochs, BATCH)
        return TorchScorer(quantize(trained), tokenizer, job.schema.sizes, padding="max_length")

    best, facts = search(job.grid(GRID), candidate, job)
    torch.save(best.scorer.model.state_dict(), job.folder / QUANTIZED_WEIGHTS)
    best.scorer.model.config.save_pretrained(job.folder)
    write_labels(job.folder, job.schema, best.thresholds)
    return facts


def build_tokenizer(folder: Path, length: int) -> BertTokenizerFast:
    """Saves a BERT tokenizer with a vocabulary of the usual 30,522 rows.

    All 20,992 characters of the main Chinese block are in it, more than in the original English vocabulary, so that the old recipe is
    not measured on unknown tokens; rows of continued Chinese characters, as in Chinese BERT vocabularies, fill it up.
    """
    characters = list(dict.fromkeys([*common_chinese_characters(), *map(chr, CHINESE)]))
    tokens = list(dict.fromkeys([*SPECIAL_TOKENS.values(), *basic_tokens(), *characters, *(CONTINUATION + name for name in characters)]))
    vocabulary = folder / "vocab.txt"
    write_text(vocabulary, "\n".join(tokens[:VOCABULARY]) + "\n")
    tokenizer = BertTokenizerFast(str(vocabulary), model_max_length=length, model_input_names=["input_ids", "attention_mask"])
    tokenizer.save_pretrained(folder)
    return tokenizer


def _shape(job: Job) -> tuple[int, int, int]:
    return QUICK_SHAPE if job.quick else SHAPES[job.product]


def _new_model(job: Job, tokenizer: BertTokenizerFast) -> BertWithHeads:
    torch.manual_seed(0)
    layers, width, heads = _shape(job)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        projection_dim=PROJECTION,
        head_sizes=job.schema.sizes,
        # BERT's 0.02 suits a width of 768; a narrow model that learns from nothing needs more.
        initializer_range=0.05 if job.product == OLD_RECIPE else 0.02,
    )
    return BertWithHeads(config)
