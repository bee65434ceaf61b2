"""Rounding the embeddings to what the deployed graph will hold, once training has made them bear it."""

from __future__ import annotations

import torch

from modeling_ultralight import UltraLightForImplicitLabelPrediction, round_rows


def round_tables(model: UltraLightForImplicitLabelPrediction) -> None:
    """Sets token and n-gram embeddings to the nearest values that `config.embedding_bits` can express, in place.

    The exported graph then reads the very numbers that thresholds were tuned and scores were measured with.
    """
    embeddings = model.bert.embeddings
    tables = [embeddings.word_embeddings, *([embeddings.ngram_embeddings] if embeddings.ngram_embeddings is not None else [])]
    with torch.no_grad():
        for table in tables:
            table.weight.copy_(round_rows(table.weight, model.config.embedding_bits))
