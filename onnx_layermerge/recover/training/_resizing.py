r"""Resize and Upsample, axis by axis: every output position reads a few input positions with weights.

An output position j of an axis that grows by the factor s reads the input at

    half_pixel  (j + ½)/s − ½        asymmetric  j/s        align_corners  j·(i − 1)/(o − 1)

(and variants of these), rounded (nearest), between its two neighbours (linear), or by Keys' cubic of four.  That is a
sparse matrix for each axis, here as indices and weights [o, taps]; it is worked out in float32 as runtimes do, because
a position that lies between two inputs is rounded by its last bit.
"""

from __future__ import annotations

from functools import lru_cache
from math import floor

import numpy as np
import torch

from onnx_layermerge.recover.training._call import Call, Tensor, axis_of, floats, ints, operator

F32 = np.float32


@operator("Resize", sizes=(1, 2, 3))
def _resize(
    call: Call, x: Tensor, second: Tensor | None = None, third: Tensor | None = None, fourth: Tensor | None = None
) -> Tensor:
    """Opset 10 has (X, scales) and no modes of coordinates; later ones (X, roi, scales, sizes)."""
    if call.opset <= 10:
        return _scaled(call, x, floats(second) or [], None, "asymmetric", "floor")
    if call.get("antialias", 0) or call.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise call.refuse("it smooths or crops while it resizes")
    axes = [axis_of(axis, x.ndim) for axis in call.get("axes", range(x.ndim))]
    scales, sizes = floats(third), ints(fourth) or None
    full = None
    if sizes is not None:
        ratios = [F32(size) / F32(x.shape[axis]) for size, axis in zip(sizes, axes, strict=True)]
        policy = call.get("keep_aspect_ratio_policy", "stretch")
        full = list(x.shape)
        if policy != "stretch":
            ratio = (min if policy == "not_larger" else max)(ratios)
            sizes, ratios = [floor(ratio * x.shape[axis] + 0.5) for axis in axes], [ratio] * len(axes)
        for axis, size in zip(axes, sizes, strict=True):
            full[axis] = size
        scales = [float(ratio) for ratio in ratios]
    whole = [1.0] * x.ndim
    for axis, scale in zip(axes, scales or [], strict=True):
        whole[axis] = scale
    transform = call.get("coordinate_transformation_mode", "half_pixel")
    return _scaled(call, x, whole, full, transform, call.get("nearest_mode", "round_prefer_floor"))


@operator("Upsample", sizes=(1,))
def _upsample(call: Call, x: Tensor, given: Tensor | None = None) -> Tensor:
    return _scaled(call, x, floats(call.get("scales") if given is None else given) or [], None, "asymmetric", "floor")


def _scaled(
    call: Call, x: Tensor, scales: list[float], sizes: list[int] | None, transform: str, rounding: str
) -> Tensor:
    mode = call.get("mode", "nearest")
    for axis, scale in enumerate(scales):
        before = x.shape[axis]
        after = floor(F32(before) * F32(scale)) if sizes is None else sizes[axis]
        if after == before and scale == 1.0:
            continue
        taps = _taps(mode, transform, rounding, before, after, scale, call.get("cubic_coeff_a", -0.75),
                     bool(call.get("exclude_outside", 0)))  # fmt: skip
        if taps is None:
            raise call.refuse(f"it resizes by '{mode}' with coordinates '{transform}'")
        x = _read(x, axis, *taps)
    return x


def _read(x: Tensor, axis: int, indices: np.ndarray, weights: np.ndarray | None) -> Tensor:
    """Σ over taps of weight × value, along one axis."""
    at = torch.from_numpy(indices).to(x.device)
    if weights is None:
        return x.index_select(axis, at[:, 0])
    shape = [-1 if number == axis else 1 for number in range(x.ndim)]
    factors = torch.from_numpy(weights).to(x)
    parts = [x.index_select(axis, at[:, tap]) * factors[:, tap].reshape(shape) for tap in range(at.shape[1])]
    return sum(parts[1:], parts[0])


@lru_cache(maxsize=256)
def _taps(
    mode: str, transform: str, rounding: str, before: int, after: int, scale: float, a: float, inside: bool
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Indices and weights [after, taps]; no weights where each output is one input; None for an unknown mode."""
    where = _positions(transform, before, after, F32(scale))
    if where is None:
        return None
    if mode == "nearest":
        return np.clip(_rounded(where, rounding), 0, before - 1)[:, None].astype(np.int64), None
    if mode in ("linear", "bilinear"):
        where = np.clip(where, 0, before - 1)
        low = np.floor(where).astype(np.int64)
        share = (where - low).astype(F32)
        return np.stack([low, np.minimum(low + 1, before - 1)], 1), np.stack([1 - share, share], 1)
    if mode != "cubic":
        return None
    low = np.floor(where).astype(np.int64)
    indices = low[:, None] + np.arange(-1, 3)
    weights = _keys(np.abs(where[:, None] - indices), F32(a))
    if inside:
        weights = np.where((indices < 0) | (indices >= before), 0, weights)
        weights = weights / weights.sum(1, keepdims=True)
    return np.clip(indices, 0, before - 1), weights.astype(F32)


def _positions(transform: str, before: int, after: int, scale: np.float32) -> np.ndarray | None:
    j = np.arange(after, dtype=F32)
    half = F32(0.5)
    if transform == "half_pixel":
        return (j + half) / scale - half
    if transform == "pytorch_half_pixel":
        return (j + half) / scale - half if after > 1 else np.zeros(after, F32)
    if transform == "asymmetric":
        return j / scale
    if transform == "align_corners":
        return j * F32(before - 1) / F32(after - 1) if after > 1 else np.zeros(after, F32)
    if transform == "half_pixel_symmetric":
        adjusted = F32(after) / (scale * F32(before))
        offset = F32(before) / 2 * (1 - adjusted)
        return offset + (j + half) / scale - half
    return None


def _rounded(where: np.ndarray, how: str) -> np.ndarray:
    if how == "floor":
        return np.floor(where)
    if how == "ceil":
        return np.ceil(where)
    return np.ceil(where - F32(0.5)) if how == "round_prefer_floor" else np.floor(where + F32(0.5))


def _keys(distance: np.ndarray, a: np.float32) -> np.ndarray:
    """Keys' kernel (1981) at distances up to 2."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))
