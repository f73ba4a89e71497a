"""Rows of a regression out of feature maps: what a convolution reads and writes at sampled output positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from onnx_layermerge.merge import Geometry

__all__ = ["grid_of", "patch_rows", "sample_positions", "value_rows"]


def grid_of(geometry: Geometry, features: np.ndarray) -> tuple[int, ...]:
    """Spatial size of the convolution's output for ``features`` [N, C, *space]."""
    return tuple(geometry.out_size(features.shape[2:]))


def sample_positions(images: int, grid: Sequence[int], rows: int, rng: np.random.Generator) -> np.ndarray:
    """About ``rows`` output positions, spread evenly over the images, without repeats within one.

    Returns an int array [R, 1 + len(grid)]: image, then one index per spatial dim; sorted by image.
    """
    area = int(np.prod(grid))
    each = min(area, max(1, -(-rows // images)))
    parts = []
    for image in range(images):
        flat = np.sort(rng.choice(area, size=each, replace=False)) if each < area else np.arange(area)
        parts.append(np.stack([np.full(each, image), *np.unravel_index(flat, tuple(grid))], axis=1))
    return np.concatenate(parts)


def value_rows(features: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """``features`` [N, C, *space] at ``positions`` [R, 1 + n] → [R, C]."""
    index: list[Any] = [positions[:, axis] for axis in range(1, positions.shape[1])]
    rows: np.ndarray = features[(positions[:, 0], slice(None), *index)]
    return rows


def patch_rows(features: np.ndarray, geometry: Geometry, positions: np.ndarray) -> np.ndarray:
    """What the convolution reads at each position, zero padding as deployed: [R, C, ∏kernel].

    ``features`` is [N, C, *space]; the window of output position o starts at input position stride·o − pad_begin.
    """
    pads = [(0, 0), (0, 0), *zip(geometry.pad_begin, geometry.pad_end, strict=True)]
    padded = np.pad(features, pads) if any(map(any, pads)) else features
    rank = len(geometry.kernel)
    windows = sliding_window_view(padded, geometry.kernel, axis=tuple(range(2, 2 + rank)))
    index: list[Any] = [positions[:, 1 + axis] * geometry.stride[axis] for axis in range(rank)]
    rows = windows[(positions[:, 0], slice(None), *index)]
    return rows.reshape(len(positions), features.shape[1], -1)
