"""Run any part of a model: cut it out between named values and hand it to onnxruntime.

Used for every numeric question (never for timing, which is ``latency/``'s).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

__all__ = ["Session", "extract", "model_of", "to_bytes"]


def model_of(graph: ir.Graph, like: ir.Model) -> ir.Model:
    """A model around ``graph`` with the versions and functions of ``like``."""
    graph.opset_imports.update(like.opset_imports)
    functions = [function.clone() for function in like.functions.values()]
    return ir.Model(graph, ir_version=like.ir_version, functions=functions, producer_name="olm")


def extract(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    """The part of ``model`` that computes ``outputs`` from ``inputs`` (value names); nothing is shared but weights."""
    graph = ir.convenience.extract(model.graph, list(inputs), list(outputs))
    # They come out of a set, in an order that changes from call to call; equal parts are to be equal bytes.
    for name in [name for name in model.graph.initializers if name in graph.initializers]:
        graph.initializers[name] = graph.initializers.pop(name)
    return model_of(graph, model)


def to_bytes(model: ir.Model) -> bytes:
    """Serialized protobuf, deterministic for equal models."""
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data


class Session:
    """An onnxruntime CPU session over ``model``: dict of arrays in, dict of arrays out."""

    def __init__(self, model: ir.Model | bytes, *, threads: int = 0) -> None:
        # Imported here: listing candidates or reading a table needs no runtime.
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        data = model if isinstance(model, bytes) else to_bytes(model)
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs for ``feeds``; feeds that the model does not read are ignored."""
        values = self._session.run(None, {name: feeds[name] for name in self.inputs})
        return dict(zip(self.outputs, values, strict=True))
