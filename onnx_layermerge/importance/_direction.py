"""Which way a replacement moves the outputs, so that what two of them do together can be told from each alone.

To second order KL(p‖q) of logits z and z + δ is ½ δᵀ(diag p − ppᵀ)δ = ½ ‖√p ∘ (δ − pᵀδ)‖², and moves that are small add
up: δ of two replacements is about δ₁ + δ₂.  So v = √p ∘ (δ − pᵀδ) / √(2N), over all N samples in one vector, has
‖v‖² ≈ KL, and two replacements together cost about ‖v₁ + v₂‖² = KL₁ + KL₂ + 2⟨v₁, v₂⟩.  For outputs that are no class
scores v = δ / √spread, with ‖v‖² the relative squared error.

Vectors as long as all outputs of all samples would take gigabytes.  A count sketch (Charikar, Chen, Farach-Colton 2002)
of ``SIZE`` numbers keeps every inner product with a standard deviation of at most ‖v₁‖ ‖v₂‖ √(2/SIZE).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from onnx_layermerge.importance._divergence import is_class_scores, log_softmax

__all__ = ["SIZE", "direction"]

SIZE = 4096
Array = npt.NDArray[np.float32]


def direction(original: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> Array:
    """The move of all floating outputs [N, …], as a sketch [SIZE] float32; equal shapes are compared only."""
    sketch = np.zeros(SIZE)
    for number, (name, wanted) in enumerate(original.items()):
        if not np.issubdtype(wanted.dtype, np.floating) or other[name].shape != wanted.shape or not wanted.size:
            continue
        exact, got = wanted.astype(np.float64), other[name].astype(np.float64)
        if is_class_scores(wanted):
            log_p = log_softmax(exact)
            p = np.exp(log_p)
            move = log_softmax(got) - log_p  # what all classes share is no move: q does not depend on it
            move = np.sqrt(p) * (move - (p * move).sum(axis=1, keepdims=True)) / (2 * len(wanted)) ** 0.5
        else:
            spread = float(((exact - exact.mean(axis=0)) ** 2).sum()) or float((exact**2).sum()) or 1.0
            move = (got - exact) / spread**0.5
        flat = move.ravel()
        rng = np.random.default_rng(number)
        buckets = rng.integers(0, SIZE, flat.size)
        signs = rng.integers(0, 2, flat.size) * 2.0 - 1.0
        sketch += np.bincount(buckets, weights=signs * flat, minlength=SIZE)
    return sketch.astype(np.float32)
