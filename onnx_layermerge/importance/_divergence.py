"""How far two models' outputs lie apart, output by output, without labels.

Class scores (``is_class_scores``; logits, or probabilities): KL(p‖q) = Σ p log(p/q) in nats, mean over samples.  Other
floats: squared error relative to the original's spread over the samples, in [0, ∞), 1 = knows nothing.  So are images
of bytes, where a step of one is next to nothing.  Other integers and booleans are labels: the share that differs.

Logits count max(KL, relative error − 1): an error larger than all that the samples differ by is no small one, whatever
softmax makes of it.  Of classifiers KL is the larger of the two (ADR 0021), so nothing changes for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from onnx_layermerge.importance._class_scores import (
    has_classes_shape,
    is_class_scores,
    is_normalised,
    log_softmax,
)

__all__ = ["Divergence", "class_scores", "divergence", "is_measured", "spread_of"]

# Label maps have fewer values, as a rule.
LEAST_LEVELS = 64


@dataclass(frozen=True)
class Divergence:
    """``kl``: nats per sample, summed over outputs (relative error where an output is no class score, or less one
    where that is more than KL);
    ``relative``: squared error over spread, mean over outputs; ``agreement``: share of samples with the same top-1
    (of outputs [N, C ≥ 2] where none is class scores; NaN without any)."""

    kl: float
    relative: float
    agreement: float


def is_measured(values: np.ndarray) -> bool:
    """Whether values are amounts, so that a smaller difference is a better one: floats, and images of bytes.

    Bytes are an image with three axes or more and at least ``LEAST_LEVELS`` different values.
    """
    if np.issubdtype(values.dtype, np.floating):
        return True
    if values.dtype not in (np.uint8, np.int8) or values.ndim < 3:
        return False
    return int(np.count_nonzero(np.bincount(values.reshape(-1).view(np.uint8), minlength=256))) >= LEAST_LEVELS


def spread_of(values: np.ndarray) -> float:
    """Squared distance of the samples from their mean, summed; of all from zero where they are all equal; never 0."""
    exact = values.astype(np.float64, copy=False)
    return float(((exact - exact.mean(axis=0)) ** 2).sum()) or float((exact**2).sum()) or 1.0


def class_scores(original: Mapping[str, np.ndarray]) -> frozenset[str]:
    """The names of the outputs [N, …] that are class scores."""
    return frozenset(name for name, values in original.items() if is_class_scores(values))


def divergence(
    original: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], classes: Collection[str] | None = None
) -> Divergence:
    """Compare outputs [N, …] by name; a NaN, an infinite value, another shape or none counts as infinitely far.

    ``classes``: which outputs are class scores, where these samples are too few to tell.
    """
    kl, relative = 0.0, []
    agreements: list[float] = []
    by_shape: list[float] = []
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
        known = is_class_scores(wanted) if classes is None else name in classes
        if known or has_classes_shape(wanted):
            same = float((exact.argmax(axis=1) == got.argmax(axis=1)).mean())
            (agreements if known else by_shape).append(same)
        if known:
            p, q = log_softmax(exact), log_softmax(got)
            apart = float((np.exp(p) * (p - q)).sum(axis=1).mean())
            kl += apart if is_normalised(exact) else max(apart, error - 1)
        else:
            kl += error
    # Nothing is chosen by it, so for who asks for it the shape is enough where nothing has the marks of class scores.
    agreement = float(np.mean(agreements or by_shape)) if agreements or by_shape else float("nan")
    return Divergence(max(kl, 0.0), float(np.mean(relative)) if relative else 0.0, agreement)
