"""Masked-language pre-training of the encoder, with transformers' Trainer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, Trainer, TrainerControl, TrainingArguments, set_seed

from configuration_ultralight import UltraLightConfig
from modeling_ultralight import UltraLightForMaskedLM
from ultralight.batching import ShuffledBuckets
from ultralight.corpus import corpus_files, forbidden_texts, held_out_lines, iter_lines, parse_weights, training_lines
from ultralight.masking import SpanMasking
from ultralight.model_builder import SETTINGS_OF, build, initializer_range, load_checkpoint, refuse_other_shape
from ultralight.ngrams import select_frequent_ngrams
from ultralight.plots import save_pretraining_curve
from ultralight.pretrain_settings import PretrainSettings
from ultralight.problems import InputError
from ultralight.progress import progress
from ultralight.report import write_metrics
from ultralight.reporting import show_training
from ultralight.settings import SCRATCH
from ultralight.training import find_checkpoint, remove_checkpoints, use_processor
from ultralight.vocabulary import build_tokenizer, save_compact

HELD_OUT_LINES = 2000
# From which the most frequent n-grams are taken.
COUNTED_LINES = 300_000
WARMUP = 0.02


class PretrainingTrainer(Trainer):
    """A Trainer that draws lines by the weight of their file, and whose evaluation masks the same tokens every time."""

    def __init__(self, *args: Any, settings: PretrainSettings, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings

    def _get_train_sampler(self, train_dataset: Any = None) -> ShuffledBuckets:
        """Lines in batches of like length."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        return _drawn(rows, self.args.train_batch_size * self.args.world_size, self.args.seed)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Loss, perplexity and accuracy on the masked tokens of the held-out lines."""
        collator = SpanMasking(self.processing_class, self.settings.mask_share, seed=0)
        model = self.accelerator.unwrap_model(self.model).eval()
        rows, size = self.eval_dataset, self.settings.batch_size
        loss, right, count = 0.0, 0, 0
        for start in range(0, len(rows), size):
            batch = {key: value.to(self.args.device) for key, value in collator(rows[start : start + size]).items()}
            with torch.inference_mode(), self.autocast_smart_context_manager():
                output = model(**batch)
            wanted = batch["labels"][batch["labels"] != -100]
            loss += output.loss.item() * len(wanted)
            right += int((output.logits.argmax(-1) == wanted).sum())
            count += len(wanted)
        metrics = {"eval_loss": loss / count, "eval_perplexity": math.exp(loss / count), "eval_masked_accuracy": right / count}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def run_pretraining(settings: PretrainSettings) -> dict[str, Any]:
    """Pre-trains an encoder and writes it, with its tokenizer and `pretraining.json`, to the output folder.

    Args:
        settings: what to do; see `PretrainSettings`.

    Returns:
        The content of `pretraining.json`.

    Raises:
        InputError: the corpus is not as it should be.
    """
    files = corpus_files(settings.corpus)
    weights = parse_weights(settings.weights, files)
    forbidden = forbidden_texts(settings.exclude)
    set_seed(settings.seed)
    used = [file for file in files if weights[file.stem]]
    model, tokenizer = _begin(settings, used) if settings.model_name == SCRATCH else _go_on(settings)
    encoded = sorted(tokenizer(held_out_lines(used, forbidden, HELD_OUT_LINES), truncation=True)["input_ids"], key=len)
    arguments = _training_arguments(settings)
    with arguments.main_process_first(desc="tokenising the corpus"):  # the other processes read what it wrote
        rows = training_lines(files, weights, forbidden, tokenizer, settings.num_proc)
    if settings.ngram_rows is not None and settings.ngram_rows != model.config.ngram_rows:
        counted = islice(_drawn(rows, settings.batch_size, settings.seed), COUNTED_LINES)
        select_frequent_ngrams(model, rows.select(list(counted))["input_ids"], settings.ngram_rows)
    trainer = PretrainingTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=[{"input_ids": ids} for ids in encoded],
        processing_class=tokenizer,
        data_collator=SpanMasking(tokenizer, settings.mask_share, settings.seed),
        settings=settings,
    )
    show_training(trainer)
    trainer.train(resume_from_checkpoint=find_checkpoint(trainer, settings.resume))
    metrics = trainer.evaluate()
    if not trainer.is_world_process_zero():
        return {}
    report = _save(trainer, tokenizer, settings, metrics)
    remove_checkpoints(trainer)
    return report


def _drawn(rows: Dataset, batch_size: int, seed: int) -> ShuffledBuckets:
    """Indices of lines, drawn by the weight of their file, in batches of like length."""
    columns = rows.with_format("numpy")
    return ShuffledBuckets(columns["length"][:], batch_size, seed, columns["weight"][:])


def _begin(settings: PretrainSettings, files: Sequence[Path]) -> tuple[UltraLightForMaskedLM, PreTrainedTokenizerFast]:
    shape = _SHAPE | {field: asked for field, asked in _asked_shape(settings).items() if asked is not None}
    lines = (line for file in files for line in iter_lines(file))
    tokenizer = build_tokenizer(progress(lines, "counting characters", "lines"), shape["max_seq_length"], shape["vocab_size"])
    shape["vocab_size"] = len(tokenizer)  # the texts may hold fewer characters
    shape["intermediate_size"] = shape["intermediate_size"] or 4 * shape["hidden_size"]
    config = UltraLightConfig(
        **shape,
        type_vocab_size=1,
        initializer_range=initializer_range(shape["hidden_size"]),
        attention_probs_dropout_prob=shape["hidden_dropout_prob"],
        max_position_embeddings=shape["max_seq_length"],
        pad_token_id=tokenizer.pad_token_id,
    )
    return build(UltraLightForMaskedLM, config), tokenizer


def _go_on(settings: PretrainSettings) -> tuple[UltraLightForMaskedLM, PreTrainedTokenizerFast]:
    name = settings.model_name
    encoder, tokenizer = load_checkpoint(name)
    config = encoder.config
    if config.model_type != UltraLightConfig.model_type:
        raise InputError(f"--model_name {name}: a {config.model_type} model; accepted: an encoder that pretrain.py made")
    refuse_other_shape(name, config, _asked_shape(settings))
    model = build(UltraLightForMaskedLM, config)
    model.bert.load_state_dict(encoder.state_dict())
    return model, tokenizer


# What an encoder is like if nothing else is asked for; one to go on from has its own.
_SHAPE: dict[str, Any] = {
    "vocab_size": 3400,
    "max_seq_length": 64,
    "ngram_sizes": [2],
    "embedding_size": None,
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "intermediate_size": None,
    "hidden_dropout_prob": 0.0,
}


def _asked_shape(settings: PretrainSettings) -> dict[str, Any]:
    return {field: getattr(settings, SETTINGS_OF.get(field, field)) for field in _SHAPE}


def _training_arguments(settings: PretrainSettings) -> TrainingArguments:
    every = max(1, settings.steps // 20)
    return TrainingArguments(
        output_dir=str(Path(settings.output_dir) / "checkpoints"),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=int(WARMUP * settings.steps),
        weight_decay=settings.weight_decay,
        adam_beta2=0.98,
        seed=settings.seed,
        bf16=settings.bf16,
        use_cpu=use_processor(),
        eval_strategy="steps",
        eval_steps=every,
        save_steps=every,
        save_total_limit=1,
        logging_steps=max(1, every // 5),
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
    )


def _save(trainer: Trainer, tokenizer: PreTrainedTokenizerFast, settings: PretrainSettings, metrics: dict[str, float]) -> dict[str, Any]:
    folder = Path(settings.output_dir)
    encoder = trainer.model.bert
    facts = {
        **({} if settings.model_name == SCRATCH else {"before": encoder.config.training_facts}),
        "corpus": [Path(name).name for name in settings.corpus],
        "weights": settings.weights,
        "steps": trainer.state.global_step,
        "lines_read": trainer.state.global_step * settings.batch_size * trainer.args.world_size,
        **{name.removeprefix("eval_"): value for name, value in metrics.items()},
    }
    encoder.config.training_facts = facts
    encoder.save_pretrained(folder)
    save_compact(tokenizer, folder)
    curve = [
        {key: entry[key] for key in ("step", "loss", "eval_loss", "eval_masked_accuracy") if key in entry}
        for entry in trainer.state.log_history
    ]
    report = {**facts, "settings": json.loads(json.dumps(vars(settings))), "curve": curve}
    write_metrics(folder / "pretraining.json", report)
    save_pretraining_curve(folder / "pretraining.png", curve)
    return report
