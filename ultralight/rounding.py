"""Rounding weights to what the deployed graph will hold, once training has made them bear it."""

from __future__ import annotations

import torch

from modeling_ultralight import RoundedLinear, UltraLightForImplicitLabelPrediction, round_rows


def round_weights(model: UltraLightForImplicitLabelPrediction) -> None:
    """Sets embeddings, and the encoder's layers where `config.layer_bits` says so, to the nearest values that their bits express, in place.

    The exported graph then reads the very numbers that thresholds were tuned and scores were measured with.
    """
    embeddings = model.bert.embeddings
    tables = [embeddings.word_embeddings, *([embeddings.ngram_embeddings] if embeddings.ngram_embeddings is not None else [])]
    with torch.no_grad():
        for table in tables:
            table.weight.copy_(round_rows(table.weight, model.config.embedding_bits))
        for layer in model.modules():
            if isinstance(layer, RoundedLinear):
                layer.weight.copy_(round_rows(layer.weight, layer.bits))
