"""Samples and their mirror images, for models that take one picture: more to fit on, of the same kind.

Nothing says that a mirrored sample means the same, and nothing has to: the model itself says what its answer to it is.
"""

from __future__ import annotations

import hashlib

import numpy as np

from onnx_layermerge.data._calibration import Calibration
from onnx_layermerge.data._sources import Index
from onnx_layermerge.data._specs import Arrays, InputSpec

__all__ = ["with_mirrored"]


def with_mirrored(data: Calibration) -> Calibration:
    """The samples, then each mirrored along its width; the data themselves unless the only input is a picture."""
    axis = _width_axis(data.inputs[0]) if len(data.inputs) == 1 else None
    if axis is None:
        return data
    store = _Mirrored(data, axis)
    digest = data.digest()
    prints = [hashlib.sha256(f"{digest} mirrored {number}".encode()).digest() for number in range(len(store))]
    return Calibration(store, data.inputs, data.source, prints, np.arange(len(store), dtype=np.intp))


def _width_axis(spec: InputSpec) -> int | None:
    """Of a batch of pictures of one or three colours, channels first or last."""
    if len(spec.shape) != 4:
        return None
    return 3 if spec.shape[1] in (1, 3) else 2 if spec.shape[3] in (1, 3) else None


class _Mirrored:
    """A store of the samples and their mirror images."""

    def __init__(self, data: Calibration, axis: int) -> None:
        self._data, self._axis = data, axis

    def __len__(self) -> int:
        return 2 * len(self._data)

    def rows(self, indices: Index) -> Arrays:
        found = self._data.batch(indices % len(self._data))
        mirrored = indices >= len(self._data)
        return {
            name: np.where(mirrored[:, None, None, None], np.flip(values, self._axis), values)
            for name, values in found.items()
        }
