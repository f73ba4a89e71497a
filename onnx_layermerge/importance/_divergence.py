"""How far two models' outputs lie apart, output by output, without labels.

Class scores (rank 2; logits, or probabilities): KL(p‖q) = Σ p log(p/q) in nats, mean over samples.  Other floats:
squared error relative to the original's spread over the samples, in [0, ∞), 1 = knows nothing.  So are images of bytes,
where a step of one is next to nothing.  Other integers and booleans are labels: the share that differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Divergence", "divergence", "is_class_scores", "is_measured", "log_softmax", "spread_of"]

# Label maps have fewer values, as a rule.
LEAST_LEVELS = 64


@dataclass(frozen=True)
class Divergence:
    """``kl``: nats per sample, summed over outputs (relative error where an output is no class score);
    ``relative``: squared error over spread, mean over outputs; ``agreement``: share of samples with the same top-1
    (NaN when no output is a class score)."""

    kl: float
    relative: float
    agreement: float


def is_class_scores(values: np.ndarray) -> bool:
    """Rank 2 with at least two columns: one score for each class."""
    return values.ndim == 2 and values.shape[1] >= 2


def is_measured(values: np.ndarray) -> bool:
    """Whether values are amounts, so that a smaller difference is a better one: floats, and images of bytes.

    Bytes are an image with three axes or more and at least ``LEAST_LEVELS`` different values.
    """
    if np.issubdtype(values.dtype, np.floating):
        return True
    if values.dtype not in (np.uint8, np.int8) or values.ndim < 3:
        return False
    return int(np.count_nonzero(np.bincount(values.reshape(-1).view(np.uint8), minlength=256))) >= LEAST_LEVELS


def log_softmax(values: np.ndarray) -> np.ndarray:
    """Log-probabilities; values that already are probabilities are only logged."""
    scores = values.astype(np.float64)
    if scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        return np.log(np.maximum(scores, 1e-12))
    shifted = scores - scores.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def spread_of(values: np.ndarray) -> float:
    """Squared distance of the samples from their mean, summed; of all from zero where they are all equal; never 0."""
    exact = values.astype(np.float64, copy=False)
    return float(((exact - exact.mean(axis=0)) ** 2).sum()) or float((exact**2).sum()) or 1.0


def divergence(original: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> Divergence:
    """Compare outputs [N, …] by name; a NaN, an infinite value, another shape or none counts as infinitely far."""
    kl, relative, agreements = 0.0, [], []
    for name, wanted in original.items():
        if name not in other or other[name].shape != wanted.shape:
            return Divergence(float("inf"), float("inf"), 0.0)
        if wanted.size == 0:
            continue
        if not is_measured(wanted):
            share = float((wanted != other[name]).mean())
            kl += share
            relative.append(share)
            agreements.append(1 - share)
            continue
        got = other[name].astype(np.float64)
        if not np.isfinite(got).all():
            return Divergence(float("inf"), float("inf"), 0.0)
        exact = wanted.astype(np.float64)
        error = float(((got - exact) ** 2).sum()) / spread_of(exact)
        relative.append(error)
        if is_class_scores(wanted):
            p, q = log_softmax(exact), log_softmax(got)
            kl += float((np.exp(p) * (p - q)).sum(axis=1).mean())
            agreements.append(float((exact.argmax(axis=1) == got.argmax(axis=1)).mean()))
        else:
            kl += error
    agreement = float(np.mean(agreements)) if agreements else float("nan")
    return Divergence(max(kl, 0.0), float(np.mean(relative)) if relative else 0.0, agreement)
