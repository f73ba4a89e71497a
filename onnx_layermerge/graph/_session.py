"""Run any part of a model: cut it out between named values and hand it to onnxruntime.

Used for every numeric question (never for timing, which is ``latency/``'s).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_layermerge.graph._pack import MOST_INSIDE_BYTES, Packed, pack, to_bytes, weight_bytes

__all__ = ["Session", "extract", "give_weights", "model_of", "runnable_form", "to_bytes"]

# More than this (256 MiB) is not copied into a message only to be copied out of it again.
_MOST_COPIED_BYTES = 2**28
# For a session that runs once, a copy is never worth it; below 16 MiB it is not worth avoiding either.
_MOST_COPIED_ONCE_BYTES = 2**24


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


def give_weights(options: Any, packed: Packed) -> list[Any]:
    """Tell onnxruntime's ``options`` where the weights are that ``packed.data`` only names.

    Returns:
        Values that must live as long as the session.
    """
    import onnxruntime as ort

    if packed.folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(packed.folder))
    weights = [ort.OrtValue.ortvalue_from_numpy(array) for array in packed.weights.values()]
    if weights:
        options.add_external_initializers(list(packed.weights), weights)
    return weights


def runnable_form(model: ir.Model) -> bytes | Packed:
    """One protobuf where it can hold the weights, else a small one beside them."""
    return to_bytes(model) if weight_bytes(model) <= MOST_INSIDE_BYTES else pack(model)


class Session:
    """An onnxruntime CPU session over ``model``: dict of arrays in, dict of arrays out.

    ``once`` is for a single run: every operator is computed as it stands in the model, by the same kernels whatever
    stands around it, and no weight is copied.  The runtime's own optimizer would cost more than it gives.
    Weights of a large model are not copied through a protobuf: mapped ones stay in their file, and the runtime maps it.
    """

    def __init__(self, model: ir.Model | Packed | bytes, *, threads: int = 0, once: bool = False) -> None:
        # Imported here: listing candidates or reading a table needs no runtime.
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if isinstance(model, bytes):
            packed = Packed(model)
        else:
            most = _MOST_COPIED_ONCE_BYTES if once else _MOST_COPIED_BYTES
            packed = pack(model, most_inside=most) if isinstance(model, ir.Model) else model
        self._weights = give_weights(options, packed)
        if packed.total_bytes > MOST_INSIDE_BYTES:
            # Both would copy the weights into a layout that suits this machine better.
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        if once:
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            # Both hold memory for the next run.
            options.enable_cpu_mem_arena = False
            options.enable_mem_pattern = False
        self._session = ort.InferenceSession(packed.data, options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs for ``feeds``; feeds that the model does not read are ignored."""
        values = self._session.run(None, {name: feeds[name] for name in self.inputs})
        return dict(zip(self.outputs, values, strict=True))
