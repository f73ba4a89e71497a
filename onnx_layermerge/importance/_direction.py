"""Which way a replacement moves the outputs, so that what two of them do together can be told from each alone.

To second order KL(p‖q) of logits z and z + δ is ½ δᵀ(diag p − ppᵀ)δ = ½ ‖√p ∘ (δ − pᵀδ)‖², and moves that are small add
up: δ of two replacements is about δ₁ + δ₂.  So v = √p ∘ (δ − pᵀδ) / √(2N), over all N samples in one vector, has
‖v‖² ≈ KL, and two replacements together cost about ‖v₁ + v₂‖² = KL₁ + KL₂ + 2⟨v₁, v₂⟩.  For outputs that are no class
scores v = δ / √spread, with ‖v‖² the relative squared error.

Vectors as long as all outputs of all samples would take gigabytes.  A count sketch (Charikar, Chen, Farach-Colton 2002)
of ``SIZE`` numbers keeps every inner product with a standard deviation of at most ‖v₁‖ ‖v₂‖ √(2/SIZE).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from onnx_layermerge.importance._class_scores import is_class_scores, log_softmax
from onnx_layermerge.importance._divergence import is_measured, spread_of

__all__ = ["SIZE", "direction"]

SIZE = 4096
Array = npt.NDArray[np.float32]


def direction(original: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> Array:
    """The move of all outputs [N, …] that are no labels, as a sketch [SIZE] float32; only equal shapes are compared."""
    sketch = np.zeros(SIZE)
    for number, (name, wanted) in enumerate(original.items()):
        if name not in other or other[name].shape != wanted.shape or not wanted.size or not is_measured(wanted):
            continue
        if is_class_scores(wanted):
            log_p = log_softmax(wanted)
            p = np.exp(log_p)
            move = log_softmax(other[name]) - log_p  # what all classes share is no move: q does not depend on it
            move = np.sqrt(p) * (move - (p * move).sum(axis=1, keepdims=True)) / (2 * len(wanted)) ** 0.5
        else:
            move = (other[name].astype(np.float32) - wanted) / spread_of(wanted) ** 0.5
        rows = np.zeros(-(-move.size // SIZE) * SIZE, np.float32)
        np.multiply(move.ravel(), _signs(move.size, number), out=rows[: move.size], casting="same_kind")
        sketch += rows.reshape(-1, SIZE).sum(axis=0, dtype=np.float64)
    return sketch.astype(np.float32)


@functools.lru_cache(maxsize=4)
def _signs(size: int, seed: int) -> npt.NDArray[np.int8]:
    """Random signs, the same for every candidate; number i of a vector goes to bucket i mod ``SIZE``."""
    signs: npt.NDArray[np.int8] = np.random.default_rng(seed).integers(0, 2, size, dtype=np.int8)
    signs *= 2
    signs -= 1
    return signs
