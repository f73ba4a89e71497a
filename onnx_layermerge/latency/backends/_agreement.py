"""What is timed computes what it should: outputs held against those of onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_layermerge.errors import ModelError

__all__ = ["agree"]

# Of the largest magnitude of an output; a few layers of rounding, and far below what a wrong layer makes.
_TOLERANCES = {"fp32": 1e-3, "tf32": 1e-2, "fp16": 2e-2, "bf16": 1e-1}


def agree(
    expected: Sequence[npt.NDArray[Any]], got: Sequence[npt.NDArray[Any]], precision: str, title: str
) -> None:
    """Compare outputs one by one, in float64, relative to each one's largest magnitude.

    Raises:
        ModelError: one is of another shape, further off than the precision's rounding, or not a number.
    """
    tolerance = _TOLERANCES[precision]
    for index, (want, have) in enumerate(zip(expected, got, strict=True)):
        if want.shape != have.shape:
            raise ModelError(f"{title} gives output {index} the shape {have.shape}, which is {want.shape}.")
        scale = max(float(np.max(np.abs(want), initial=0.0)), 1e-6)
        off = float(np.max(np.abs(want.astype(np.float64) - have.astype(np.float64)), initial=0.0)) / scale
        if not off <= tolerance:  # also true of NaN
            raise ModelError(
                f"{title} computes something else: output {index} is off by {off:.1%} of its largest value, and "
                f"{tolerance:.1%} is rounding."
            )
