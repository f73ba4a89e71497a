"""Calibration samples for the generated networks."""

from __future__ import annotations

import numpy as np

from onnx_layermerge.data import Calibration, InputSpec, load_calibration
from onnx_layermerge.graph import Network
from tests import zoo


def samples_for(net: zoo.Net, network: Network, count: int = 24, seed: int = 0) -> Calibration:
    arrays = zoo.feeds_for(net, batch=count, seed=seed)
    specs = [InputSpec(info.name, info.shape, np.dtype(info.dtype)) for info in network.inputs]
    return load_calibration(arrays, specs)
