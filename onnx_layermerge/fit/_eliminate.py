"""Which channels a convolution can do without: optimal-brain-surgeon elimination.

The reader has weights W [D, O] over the columns of its patches, g = ∏kernel columns a channel, and H = A + λI.  Taking
channel j out and letting the others make up for it raises the squared error by

    s_j = tr( W_jᵀ ([H⁻¹]_jj)⁻¹ W_j ),    W ← W − H⁻¹_{·j} ([H⁻¹]_jj)⁻¹ W_j,
    H⁻¹ ← H⁻¹ − H⁻¹_{·j} ([H⁻¹]_jj)⁻¹ H⁻¹_{j·}

(Hassibi & Stork 1993, for blocks of columns).  One order serves every width.
"""

from __future__ import annotations

import numpy as np

__all__ = ["elimination_order"]

# Taking out this share of the channels at a time costs a fraction of one by one, for nearly the same order.
_SHARE = 64


def elimination_order(matrix: np.ndarray, weight: np.ndarray, ridge: float, channels: int, least: int) -> np.ndarray:
    """Channels in the order of elimination, first to go first; the ``least`` last to go end the list unsorted.

    ``matrix`` A [D, D] and ``weight`` W [D, O] in float64, D = channels · g, the columns of a channel side by side.
    """
    size = matrix.shape[0] // channels
    inverse = np.linalg.inv(matrix + ridge * np.eye(len(matrix)))
    weight = weight.copy()
    alive = np.arange(channels)
    gone: list[int] = []
    while len(alive) > max(least, 1):
        blocks = inverse.reshape(len(alive), size, len(alive), size)
        own = np.stack([blocks[c, :, c] for c in range(len(alive))])
        parts = weight.reshape(len(alive), size, -1)
        scores = np.einsum("cgo,cgo->c", parts, np.linalg.solve(own, parts))
        count = min(max(1, len(alive) // _SHARE), len(alive) - max(least, 1))
        out = np.sort(np.argsort(scores, kind="stable")[:count])
        gone += [int(alive[c]) for c in out[np.argsort(scores[out], kind="stable")]]
        stay = np.setdiff1d(np.arange(len(alive)), out)
        out_columns, stay_columns = _columns(out, size), _columns(stay, size)
        cross = inverse[np.ix_(stay_columns, out_columns)]
        inner = inverse[np.ix_(out_columns, out_columns)]
        weight = weight[stay_columns] - cross @ np.linalg.solve(inner, weight[out_columns])
        inverse = inverse[np.ix_(stay_columns, stay_columns)] - cross @ np.linalg.solve(inner, cross.T)
        alive = alive[stay]
    return np.array([*gone, *(int(channel) for channel in alive)])


def _columns(channels: np.ndarray, size: int) -> np.ndarray:
    return (channels[:, None] * size + np.arange(size)).ravel()
