"""Which channels a convolution can do without: optimal-brain-surgeon elimination.

The reader has weights W [D, O] over the columns of its patches, g = ∏kernel columns a channel, and H = A + λI.  Taking
channel j out and letting the others make up for it raises the squared error by

    s_j = tr( W_jᵀ ([H⁻¹]_jj)⁻¹ W_j ),    W ← W − H⁻¹_{·j} ([H⁻¹]_jj)⁻¹ W_j,
    H⁻¹ ← H⁻¹ − H⁻¹_{·j} ([H⁻¹]_jj)⁻¹ H⁻¹_{j·}

(Hassibi & Stork 1993, for blocks of columns).  One order serves every width.
"""

from __future__ import annotations

import numpy as np
import scipy

__all__ = ["elimination_order"]

# Taking out this share of the channels at a time costs a fraction of one by one, for nearly the same order.
_SHARE = 64
# Rows of H⁻¹ that are updated at once, so that the product they are updated by stays in the cache.
_ROWS = 256


def elimination_order(matrix: np.ndarray, weight: np.ndarray, ridge: float, channels: int, least: int) -> np.ndarray:
    """Channels in the order of elimination, first to go first; the ``least`` last to go end the list unsorted.

    ``matrix`` A [D, D] and ``weight`` W [D, O] in float64, D = channels · g, the columns of a channel side by side.
    """
    size = matrix.shape[0] // channels
    inverse = _inverse(matrix, ridge)
    weight = weight.copy()
    alive = np.arange(channels)  # those that stay lie in front of those that went, here and in both arrays
    gone: list[int] = []
    count, least = channels, max(least, 1)
    while count > least:
        scores = _scores(inverse.reshape(channels, size, channels, size), weight, count)
        number = min(max(1, count // _SHARE), count - least)
        out = np.argsort(scores, kind="stable")[:number]
        gone += [int(alive[channel]) for channel in out]
        count -= number
        _to_the_end(out, count, size, inverse, weight, alive)
        _without_end(inverse, weight, count * size, (count + number) * size)
    return np.array([*gone, *sorted(int(channel) for channel in alive[:count])])


def _inverse(matrix: np.ndarray, ridge: float) -> np.ndarray:
    """(A + λI)⁻¹, by Cholesky; symmetric, so that rows may be read for columns."""
    lower, failed = scipy.linalg.lapack.dpotrf(matrix + ridge * np.eye(len(matrix)), lower=1, overwrite_a=1)
    inverse, singular = scipy.linalg.lapack.dpotri(lower, lower=1, overwrite_c=1)
    if failed or singular:
        return np.asarray(np.linalg.pinv(matrix + ridge * np.eye(len(matrix)), hermitian=True))
    below = np.tril(inverse)
    return np.asarray(below + np.tril(inverse, -1).T, order="C")


def _scores(blocks: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """s_j of the first ``count`` channels; ``blocks`` is H⁻¹ as [C, g, C, g]."""
    each = np.arange(count)
    own = blocks[each, :, each]
    parts = weight[: own.shape[0] * own.shape[1]].reshape(count, own.shape[1], -1)
    spread = np.matmul(parts, parts.transpose(0, 2, 1))
    scores: np.ndarray = np.trace(np.linalg.solve(own, spread), axis1=1, axis2=2)
    return scores


def _to_the_end(
    out: np.ndarray, count: int, size: int, inverse: np.ndarray, weight: np.ndarray, alive: np.ndarray
) -> None:
    """Exchange the channels ``out`` with others, so that they follow on the first ``count``."""
    front = out[out < count]
    back = np.setdiff1d(np.arange(count, count + len(out)), out)
    alive[np.r_[front, back]] = alive[np.r_[back, front]]
    one, other = _columns(np.r_[front, back], size), _columns(np.r_[back, front], size)
    weight[one] = weight[other]
    inverse[one] = inverse[other]
    inverse[:, one] = inverse[:, other]


def _without_end(inverse: np.ndarray, weight: np.ndarray, stay: int, size: int) -> None:
    """Let the first ``stay`` columns make up for those behind them, up to ``size``."""
    cross, inner = inverse[:stay, stay:size].copy(), inverse[stay:size, stay:size]
    weight[:stay] -= cross @ np.linalg.solve(inner, weight[stay:size])
    by = np.linalg.solve(inner, cross.T)
    for start in range(0, stay, _ROWS):
        rows = slice(start, min(start + _ROWS, stay))
        inverse[rows, :stay] -= cross[rows] @ by


def _columns(channels: np.ndarray, size: int) -> np.ndarray:
    return (channels[:, None] * size + np.arange(size)).ravel()
