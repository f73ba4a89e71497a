"""Samples for a prepared model: the user's, or noise when there are none."""

from __future__ import annotations

import numpy as np

from onnx_layermerge.data import Calibration, ImageOptions, InputSpec, load_calibration
from onnx_layermerge.flow._prepare import Prepared

__all__ = ["NO_DATA", "noise", "open_data"]

NO_DATA = (
    "no --calib given: nothing is fitted, only blocks are dropped, and they are ranked on noise: "
    "the accuracy of the result is not protected; measure it before you ship it"
)


def open_data(
    prepared: Prepared,
    calib: object,
    images: ImageOptions,
    samples: int,
    seed: int,
) -> Calibration:
    """The calibration source for the model's inputs; dynamic spatial dims take the bound sizes."""
    specs = []
    for info in prepared.network.inputs:
        bound = prepared.bound[info.name]
        shape = tuple(dim if axis == 0 else bound[axis] for axis, dim in enumerate(info.shape))
        specs.append(InputSpec(info.name, shape, info.dtype))
    return load_calibration(calib, specs, images=images, limit=samples, seed=seed)


def noise(prepared: Prepared, seed: int) -> dict[str, np.ndarray]:
    """Inputs with the spectrum of natural pictures (1/f), for ranking drops when there are no data."""
    generator = np.random.default_rng(seed)
    count = max(32, prepared.batch)
    arrays = {}
    for info in prepared.network.inputs:
        shape = (count, *prepared.bound[info.name][1:])
        values = generator.standard_normal(shape)
        if len(shape) == 4:
            axes = (2, 3) if shape[1] <= 4 else (1, 2)
            grids = np.meshgrid(*(np.fft.fftfreq(shape[axis]) for axis in axes), indexing="ij")
            radius = np.maximum(np.hypot(*grids), 1 / max(shape[axes[0]], 2))
            radius = np.expand_dims(radius, (0, 1) if axes == (2, 3) else (0, 3))
            values = np.fft.ifftn(np.fft.fftn(values, axes=axes) / radius, axes=axes).real
            values /= values.std()
        arrays[info.name] = values.astype(info.dtype)
    return arrays
