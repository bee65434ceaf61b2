"""Where the answers come from that a model is taught: trained folders, or teachers that are trained for the purpose."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets

from ultralight.corpus import corpus_files, iter_lines
from ultralight.distillation import teach
from ultralight.linear import LinearClassifier
from ultralight.schema import LabelSchema
from ultralight.settings import TrainSettings
from ultralight.text import text_key
from ultralight.training import make_trainer, run_training

logger = logging.getLogger(__name__)

# A label that the loss leaves out.
UNLABELLED = -100


def prepare_lesson(splits: DatasetDict, schema: LabelSchema, settings: TrainSettings) -> Dataset:
    """Collects the teachers' answers to the training queries and to the texts of `settings.transfer`.

    Teachers that are trained here never answer a query that they were trained on: what they remember of its label would
    be no news to the model. Each is trained without a fold of the queries and labels that fold (cross-fitting); the
    texts that have no labels get the mean of all.

    Args:
        splits: "train" and "validation".
        schema: the labels.
        settings: names the teachers, or says how to train them.

    Returns:
        The training queries and the transfer texts with `labels` (-100 for the latter) and `teacher_probabilities`.

    Raises:
        InputError: a teacher's folder holds no model, one with other labels, or a transfer file is missing.
    """
    train, texts = splits["train"], _transfer_texts(settings, splits)
    queries = train["query"][:]
    if settings.teacher:
        answers = teach(settings.teacher, [*queries, *texts], schema).numpy()
    else:
        answers = _cross_fit(splits, texts, schema, settings)
    rows = train
    if texts:
        unlabelled = Dataset.from_dict({"query": texts, "labels": [[UNLABELLED] * len(schema.labels)] * len(texts)})
        rows = concatenate_datasets([train, unlabelled.cast(train.features)])
    return rows.add_column("teacher_probabilities", answers.tolist())


def describe_teachers(settings: TrainSettings) -> str | None:
    """What a model learnt from, for its card; None without distillation."""
    if not settings.distillation:
        return None
    if settings.teacher:
        return f"{len(settings.teacher)} trained model(s)"
    linear = f", a linear model with weight {settings.linear_teacher:g}" if settings.linear_teacher else ""
    return f"{settings.teacher_folds} cross-fitted teachers{linear}"


def _transfer_texts(settings: TrainSettings, splits: DatasetDict) -> list[str]:
    """The transfer texts, each once, without what a split holds anyway."""
    known = {text_key(query) for rows in splits.values() for query in rows["query"]}
    texts = []
    for line in (line for file in corpus_files(settings.transfer) for line in iter_lines(file)):
        if text_key(line) not in known:
            known.add(text_key(line))
            texts.append(line)
    return texts


def _cross_fit(splits: DatasetDict, texts: Sequence[str], schema: LabelSchema, settings: TrainSettings) -> np.ndarray:
    """Answers to the training queries, by the teachers that did not see them, and to the texts (rows, sum of values)."""
    train = splits["train"]
    fold_of = np.random.default_rng(settings.split_seed).permutation(len(train)) % settings.teacher_folds
    answers = np.zeros((len(train) + len(texts), schema.num_values))
    for fold in range(settings.teacher_folds):
        seen, unseen = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        asked = [*train.select(unseen)["query"], *texts]
        parts = DatasetDict({"train": train.select(seen), "validation": splits["validation"]})
        said = (1 - settings.linear_teacher) * _train_and_ask(parts, asked, schema, settings, fold)
        if settings.linear_teacher:
            linear = LinearClassifier(schema).fit(parts["train"]["query"], np.array(parts["train"]["labels"]))
            said += settings.linear_teacher * linear.probabilities(asked)
        answers[unseen] = said[: len(unseen)]
        answers[len(train) :] += said[len(unseen) :] / settings.teacher_folds
    return answers


def _train_and_ask(parts: DatasetDict, asked: Sequence[str], schema: LabelSchema, settings: TrainSettings, fold: int) -> np.ndarray:
    folder = Path(str(settings.output_dir)) / f"teacher_{fold}"
    own = dataclasses.replace(
        settings,
        output_dir=str(folder),
        seed=settings.seed + 1 + fold,
        distillation=False,
        transfer=[],
        embedding_pruning=0.0,
        linear_share=0.0,  # `linear_teacher` is the whole of it
        # What saves bytes or time is no matter to a teacher: it has two layers at least, and is as wide as the checkpoint.
        num_layers=max(settings.num_layers, TrainSettings.num_layers),
        embedding_dim=None,
        ngram_rows=None,
        layer_bits=8,
        report_to=[],
    )
    trainer = make_trainer(parts, schema, own)
    if trainer.is_world_process_zero():
        logger.info("teacher %d of %d", fold + 1, settings.teacher_folds)
    run_training(trainer)
    rows = Dataset.from_dict({"query": asked, "labels": [[UNLABELLED] * len(schema.labels)] * len(asked)})
    trainer.compute_metrics = None
    probabilities, _ = trainer.ask(rows)
    if trainer.is_world_process_zero():
        shutil.rmtree(folder, ignore_errors=True)
    return probabilities
