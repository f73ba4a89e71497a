"""The shape of every value for bound input shapes, read off a real run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph._network import Network
from onnx_layermerge.graph._read import random_feeds
from onnx_layermerge.graph._session import Session, extract

__all__ = ["trace_shapes"]


def trace_shapes(network: Network, bound: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of all inputs and computed float values, keyed by name.

    Raises:
        ModelError: the model does not run on these input shapes.
    """
    names = [
        str(value.name)
        for node in network.order
        for value in node.outputs
        if value.dtype is None or value.dtype.is_floating_point()
    ]
    part = extract(network.model, [info.name for info in network.inputs], names)
    try:
        values = Session(part).run(random_feeds(network.inputs, bound))
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise ModelError(
            f"the model does not run on inputs of shape {dict(bound)} ({str(error).splitlines()[0][:200]}); check "
            "--shapes."
        ) from error
    shapes = {name: tuple(np.shape(value)) for name, value in values.items()}
    return {**shapes, **{name: tuple(shape) for name, shape in bound.items()}}
