"""How far the compressed model's outputs drifted, on data."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_layermerge.data import Calibration
from onnx_layermerge.graph import Session
from onnx_layermerge.importance import Divergence, collect, divergence

__all__ = ["outputs_of", "quality"]


def outputs_of(model: ir.Model | bytes, data: Calibration, batch: int) -> dict[str, np.ndarray]:
    """All outputs of a model over all samples, joined along axis 0."""
    return collect(Session(model).run, data.batches(batch))


def quality(wanted: dict[str, np.ndarray], model: ir.Model | bytes, data: Calibration, batch: int) -> Divergence:
    """Divergence of ``model`` from the original's outputs ``wanted`` on ``data``."""
    return divergence(wanted, outputs_of(model, data, batch))
