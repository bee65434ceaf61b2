"""Fits a model's linear part: what single tokens and n-grams say of the labels, before the network learns to read them together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from sklearn.linear_model import LogisticRegression
from torch.nn.utils.rnn import pad_sequence

from modeling_ultralight import LinearPart, UltraLightForImplicitLabelPrediction, round_rows
from ultralight.evidence import Evidence
from ultralight.progress import progress
from ultralight.schema import LabelSchema

# Inverse strength of the regularisation, where the mean square of a query's features is 1.
C = 10.0
ITERATIONS = 300
# Queries whose tokens are counted at once.
BATCH = 256
# Of what teachers say of a query, values less likely than this are left out.
LEAST = 0.02
# Score of a value that no training row has.
NEVER_MET = -10.0


def fit_linear_part(model: UltraLightForImplicitLabelPrediction, evidence: Evidence, schema: LabelSchema) -> None:
    """Gives a model a linear part of the share that its configuration names, in place: one logistic regression a label.

    Features are how often a query holds each token, and each n-gram that has a row of its own, times the inverse document frequency
    (Sparck Jones, 1972). The weights are rounded to the bits of the embeddings.

    Args:
        model: its n-grams are chosen, if it has any.
        evidence: what to fit.
        schema: the labels.
    """
    part = LinearPart(model.config, schema.sizes)
    counts = count_rows(model, evidence.ids, len(part.tokens) + len(part.ngrams))
    scale = inverse_frequency(counts)
    features = csr_array(counts * scale)
    norm = np.sqrt(features.multiply(features).sum() / features.shape[0])
    features = features / norm
    parts, bias = [], np.zeros(schema.num_values)
    for _, columns in progress(schema.slices(), "fitting the linear part", "labels"):
        coefficients, intercepts = fit_label(features, evidence.values[:, columns])
        bias[columns] = intercepts - intercepts[0]
        parts.append(coefficients[:, 1:] - coefficients[:, :1])
    tables = torch.from_numpy(np.hstack(parts) * (scale / norm)[:, None]).float()
    rounded = round_rows(tables, model.config.embedding_bits)
    part.tokens.copy_(rounded[: len(part.tokens)])
    part.ngrams.copy_(rounded[len(part.tokens) :])
    part.bias.copy_(torch.from_numpy(bias))
    model.linear = part


def count_rows(model: UltraLightForImplicitLabelPrediction, ids: Sequence[Sequence[int]], rows_of_both: int) -> csr_array:
    """How often each query reads each row of the tables of tokens and, after them, of chosen n-grams (queries, rows_of_both)."""
    config, parts = model.config, []
    for start in range(0, len(ids), BATCH):
        batch = pad_sequence([torch.tensor(query) for query in ids[start : start + BATCH]], True, config.pad_token_id)
        read = [(batch, config.pad_token_id, 0), *((rows, 0, config.vocab_size) for rows in model.chosen_ngrams(batch))]
        query, column = np.hstack([((rows != nothing).nonzero().T[0], rows[rows != nothing] + offset) for rows, nothing, offset in read])
        parts.append(csr_array((np.ones(len(query)), (query, column)), shape=(len(batch), rows_of_both)))
    return vstack(parts, format="csr")


def inverse_frequency(counts: csr_array) -> np.ndarray:
    """Inverse document frequency of each column, smoothed as if one more query held everything."""
    holding = np.bincount(counts.indices, minlength=counts.shape[1])
    return np.log((1 + counts.shape[0]) / (1 + holding)) + 1


def fit_label(features: csr_array, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (features, values) and intercepts (values,) from how sure each value is of each query (queries, values)."""
    rows, right = np.nonzero(values > LEAST)
    coefficients, intercepts = np.zeros((features.shape[1], values.shape[1])), np.full(values.shape[1], NEVER_MET)
    met = np.unique(right)
    if len(met) == 1:
        return coefficients, np.zeros(values.shape[1])
    regression = LogisticRegression(C=C, max_iter=ITERATIONS).fit(features[rows], right, values[rows, right])
    if len(met) == 2:  # one row of coefficients, for the second against the first
        coefficients[:, met[1]], intercepts[met] = regression.coef_[0], [0, regression.intercept_[0]]
    else:
        coefficients[:, met], intercepts[met] = regression.coef_.T, regression.intercept_
    return coefficients, intercepts
