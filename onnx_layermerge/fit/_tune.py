r"""All weights of a short chain at once, by small steps: what least squares cannot reach in front of an activation.

Least squares solves the last convolution of a chain for the weights that the others have, and those write hidden
channels for readers that are no longer there.  Descending the same error

    E(θ) = Σ ‖ y(θ) + skip − target ‖²,   without what the activation that follows cannot tell apart,

in all of the chain's weights gets further.  It is done by Adam (Kingma and Ba 2015, arXiv 1412.6980) on θ = θ₀ + s ∘ d,
s the root mean square of a channel's weights, so that one step size suits all layers.  Reconstruction of blocks by such
steps is known from quantization (BRECQ; Li et al. 2021, arXiv 2102.05426).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnx_layermerge.fit._chain import Chain, Weights
from onnx_layermerge.fit._windows import Windows

__all__ = ["Tuned", "tune"]

Array = npt.NDArray[np.float32]

STEPS, BATCH = 100, 32
# Multiply-accumulates of a forward pass; a step of wide dense convolutions sees fewer windows, but never fewer than 4.
MACS, LEAST_BATCH = 2 * 10**9, 4
RATE, WARM_UP = 1e-2, 10
BETAS, EPSILON = (0.9, 0.99), 1e-8
# A channel's scale is no less than this share of its layer's.
LEAST_SCALE = 0.1


@dataclass(frozen=True, eq=False)
class Tuned:
    """The chain behind the last step, and its errors on held-out windows before and after, relative to the targets'
    spread."""

    chain: Chain
    before: float
    after: float


def tune(chain: Chain, seen: Windows, held_out: Windows, *, steps: int = STEPS, seed: int = 0) -> Tuned:
    """``steps`` steps on batches of ``seen``, judged on ``held_out``; 0 steps give the chain back."""
    rng = np.random.default_rng(seed)
    start = [array for weights in chain.weights for array in weights]
    scales = [_scale(array) for array in start]
    moved = [np.zeros_like(array) for array in start]
    first, second = ([np.zeros_like(array) for array in start] for _ in range(2))
    spread = _spread(seen.target) / len(seen.target)
    order = np.empty(0, np.intp)
    each = chain.macs(*seen.entry.shape[1:3], padded=seen.valid is None)
    batch = min(len(seen), max(LEAST_BATCH, min(BATCH, MACS // max(each, 1))))
    found = chain
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = rng.permutation(len(seen)).astype(np.intp)
        rows, order = order[:batch], order[batch:]
        windows = seen.at(rows)
        run = found.forward(windows.entry, windows.valid)
        out = windows.error(run.y) * np.float32(2 / (len(rows) * spread))
        gradients = [array for pair in found.backward(run, out, windows.valid) for array in pair]
        rate = RATE * min(1.0, step / WARM_UP) * 0.5 * (1 + np.cos(np.pi * (step - 1) / steps))
        for number, gradient in enumerate(gradients):
            slope = gradient * scales[number]
            first[number] += (1 - BETAS[0]) * (slope - first[number])
            second[number] += (1 - BETAS[1]) * (slope * slope - second[number])
            size = np.sqrt(second[number] / (1 - BETAS[1] ** step)) + EPSILON
            moved[number] -= (rate / (1 - BETAS[0] ** step)) * first[number] / size
        found = _at(chain, [(a + s * d).astype(np.float32) for a, s, d in zip(start, scales, moved, strict=True)])
    return Tuned(found, error_of(chain, held_out), error_of(found, held_out))


def error_of(chain: Chain, windows: Windows) -> float:
    """Σ e² relative to the targets' spread; ∞ where it is not finite."""
    total = 0.0
    for begin in range(0, len(windows), BATCH):
        part = windows.at(slice(begin, begin + BATCH))
        error = part.error(chain.forward(part.entry, part.valid).y)
        total += float(np.square(error, dtype=np.float64).sum())
    found = total / _spread(windows.target)
    return found if np.isfinite(found) else float("inf")


def _at(chain: Chain, arrays: list[Array]) -> Chain:
    weights: tuple[Weights, ...] = tuple(zip(arrays[::2], arrays[1::2], strict=True))
    return replace(chain, weights=weights)


def _scale(array: Array) -> Array:
    """The size of a step: by channel for weights, one for all biases."""
    whole = np.sqrt(np.mean(np.square(array))) or np.float32(1e-3)
    if array.ndim == 1:
        return np.full_like(array, whole)
    each = np.sqrt(np.mean(np.square(array), axis=tuple(range(1, array.ndim)), keepdims=True))
    scale: Array = np.asarray(each + LEAST_SCALE * whole, np.float32)
    return scale


def _spread(target: Array) -> float:
    """Squared distance of each channel from its mean, summed; never 0."""
    flat = target.reshape(-1, target.shape[-1]).astype(np.float64)
    return float(np.square(flat - flat.mean(axis=0)).sum()) or 1.0
