"""Whole models on their way to another process: files, so that no size of them passes through a pipe.

A model may be larger than a message, and its large weights may be a mapped file or arrays in memory (`Packed`).  What
lies in a file already stays there; the rest is written into a folder that the receiver maps at once, after which it can
be removed: a mapped file needs no name, and its pages are given back when memory is short.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx_layermerge.graph import Packed

__all__ = ["pick_up", "put_down"]


def put_down(model: bytes | Packed, path: Path) -> dict[str, Any]:
    """Write the model to ``path`` and its weights in memory beside it, and return what `pick_up` takes; or OSError."""
    if isinstance(model, bytes):
        path.write_bytes(model)
        return {"data": str(path)}
    path.write_bytes(model.data)
    beside, arrays = path.with_suffix(".weights"), []
    with beside.open("wb") as file:
        for name, array in model.weights.items():
            arrays.append([name, array.dtype.str, list(array.shape), file.tell()])
            array.tofile(file)
    return {
        "data": str(path),
        "folder": None if model.folder is None else str(model.folder.absolute()),
        "total_bytes": model.total_bytes,
        "weights": str(beside),
        "arrays": arrays,
    }


def pick_up(record: dict[str, Any]) -> Callable[[], bytes | Packed]:
    """Map what `put_down` wrote; each call of what is returned gives the model, copied out of the map."""
    with open(record["data"], "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if "arrays" not in record:
        return lambda: data[:]
    # Imported here: only models that no message holds need it, and it brings the ONNX libraries.
    from onnx_layermerge.graph import Packed

    folder = None if record["folder"] is None else Path(record["folder"])
    weights = {
        name: np.memmap(record["weights"], dtype, "r", offset, tuple(shape))
        for name, dtype, shape, offset in record["arrays"]
    }
    return lambda: Packed(data[:], folder, weights, record["total_bytes"])
