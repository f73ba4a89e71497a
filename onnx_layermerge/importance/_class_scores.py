"""Which outputs are class scores, told from the original's own values z [N, C] alone.

The same numbers may be a classifier's logits or a regression's values, so no rule is right for all. The two mistakes
are not alike, though. Relative error that goes to 0 takes every softmax along, so a classifier judged by it is judged
safely. KL may be 0 while the values are anything: softmax sees no shift of a whole sample, and nothing at all where it
is saturated. Hence KL is only for what bears the marks of class scores, in doubt it is relative error:

1. Rows that are probabilities, or logarithms of such, are class scores: of them KL misses nothing.
2. No class scores where float32 leaves nothing of the softmax: for most samples all other probabilities are 0 (margin
   of the first over the second > ln 2¹⁴⁹ ≈ 103), or the first is 1 (> ln 2²⁴ ≈ 17) and the same class is first in all
   samples.
3. No class scores where all rows have one length: embeddings, normalised. Logits have a length that says how sure
   the network is.
4. No class scores where the columns do not compete. With S = Σᵢ ‖zᵢ − z̄‖² and mᵢ the mean of the row zᵢ − z̄,

       s = C² Σᵢ mᵢ² / S = 1 + Σ_{c≠d} cov(c, d) / Σ_c var(c)

   is C times the share of the spread that softmax does not see: 1 for unrelated columns, more where they rise and fall
   together, less where one rises at the others' cost. A loss of the softmax has a gradient whose sum over classes is 0,
   so training keeps Σ_c W_c and makes the rest larger: s < 1. Values are class scores only where that holds.

What still takes the marks is bounded where it is judged (``divergence``): by its relative error beyond 1, which no
logits reach whose KL is small. docs/adr/0021 has what was measured.
"""

from __future__ import annotations

import numpy as np

__all__ = ["are_probabilities", "has_classes_shape", "is_class_scores", "is_normalised", "log_softmax"]

# Margins from which on float32 rounds the other probabilities to 0, and the first one to 1.
NOTHING_LEFT = 149 * np.log(2)
CERTAIN = 24 * np.log(2)
# Sums of float16 probabilities are this exact.
SUM_TO_ONE = 1e-3
# Squared lengths that were normalised in float16 are this equal.
ONE_LENGTH = 4e-3


def has_classes_shape(values: np.ndarray) -> bool:
    """[N, C ≥ 2]: what may be one score for each class."""
    return values.ndim == 2 and values.shape[1] >= 2


def is_class_scores(values: np.ndarray) -> bool:
    """Whether the original's outputs [N, C], floats, bear the marks of class scores (see the module).

    Of a single sample, or of equal ones, there is only the shape to go by.
    """
    if not has_classes_shape(values) or not np.issubdtype(values.dtype, np.floating):
        return False
    scores = values.astype(np.float64)
    if len(scores) < 2 or not np.isfinite(scores).all() or is_normalised(scores):
        return True
    moved = scores - scores.mean(axis=0)
    spread = float((moved**2).sum())
    if spread == 0:
        return True
    # Beside how far the samples lie apart, lest a value that all have in common should make lengths look alike.
    if float(np.ptp((scores**2).sum(axis=1))) <= ONE_LENGTH * spread / len(scores):
        return False
    return not _is_saturated(scores) and scores.shape[1] ** 2 * float((moved.mean(axis=1) ** 2).sum()) < spread


def _is_saturated(scores: np.ndarray) -> bool:
    """Whether softmax in float32 says nothing of most samples, or the same of all."""
    two = np.partition(scores, -2, axis=1)
    margin = float(np.median(two[:, -1] - two[:, -2]))
    first = scores.argmax(axis=1)
    return margin > NOTHING_LEFT or (margin > CERTAIN and bool((first == first[0]).all()))


def are_probabilities(values: np.ndarray) -> bool:
    """Rows of [N, C] are at least 0 and sum to 1."""
    scores = values.astype(np.float64)
    return bool(scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1.0, atol=SUM_TO_ONE))


def is_normalised(values: np.ndarray) -> bool:
    """Whether rows of [N, C] are probabilities, or all their logarithms."""
    scores = values.astype(np.float64)
    return are_probabilities(scores) or bool(scores.max() <= SUM_TO_ONE and are_probabilities(np.exp(scores)))


def log_softmax(values: np.ndarray) -> np.ndarray:
    """Log-probabilities; values that already are probabilities are only logged."""
    scores = values.astype(np.float64)
    if are_probabilities(scores):
        return np.log(np.maximum(scores, 1e-12))
    shifted = scores - scores.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
