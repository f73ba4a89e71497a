"""How far the compressed model's outputs drifted, on data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_layermerge.data import Calibration
from onnx_layermerge.graph import Session
from onnx_layermerge.importance import Divergence, collect, divergence
from onnx_layermerge.verify._boxes import Boxes, Decoder
from onnx_layermerge.verify._drift import OutputDrift, drift

__all__ = ["Compared", "compared", "outputs_of", "quality"]


@dataclass(frozen=True)
class Compared:
    """Two models' outputs: in one figure, output by output, and as boxes where there is a decoder for them."""

    divergence: Divergence
    outputs: tuple[OutputDrift, ...]
    boxes: Boxes | None


def outputs_of(model: ir.Model | bytes, data: Calibration, batch: int) -> dict[str, np.ndarray]:
    """The outputs of a model over all samples, [N, …] by name, less those whose size depends on the data.

    Raises:
        DataError: there is no other output.
    """
    return collect(Session(model).run, data.batches(batch))


def quality(wanted: dict[str, np.ndarray], model: ir.Model | bytes, data: Calibration, batch: int) -> Divergence:
    """Divergence of ``model`` from the original's outputs ``wanted`` on ``data``: what plans are ranked by."""
    return divergence(wanted, outputs_of(model, data, batch))


def compared(
    wanted: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], decoder: Decoder | None = None
) -> Compared:
    """Everything there is to say about the outputs ``got`` beside the original's ``wanted``, for a report.

    Raises:
        UsageError: the decoder fails.
    """
    measured = divergence(wanted, got), drift(wanted, got)
    return Compared(*measured, None if decoder is None else decoder.compare(wanted, got))
