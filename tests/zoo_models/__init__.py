"""Well-known networks as files without weights: structure as exported, numbers drawn anew when a test asks.

``<name>.onnx.gz`` holds an ONNX model in which every float tensor of more than 16 elements has lost its data. It keeps
its shape and, as its doc_string, what to draw from:

    uniform LOW HIGH        rank 1, so that variances stay positive
    normal MEAN DEVIATION   rank ≥ 2, so that values keep the size they had in the network

``benchmarks/zoo/run.py --fixtures`` writes the files and, into ``expected.json``, what the package finds in them.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["HERE", "restore", "strip"]

HERE = Path(__file__).parent
_KEPT = 16
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def strip(model: onnx.ModelProto) -> bytes:
    """The file's bytes, gzipped, without weights, descriptions and inferred shapes; ``model`` is changed."""
    graph = model.graph
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type not in _FLOATS or array.size <= _KEPT:
            continue
        array = array.astype(np.float64)
        if array.ndim == 1:
            law, first, second = "uniform", array.min(), array.max()
        else:
            law, first, second = "normal", array.mean(), array.std()
        bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        bare.doc_string = f"{law} {first:.6g} {second:.6g}"
        tensor.CopyFrom(bare)
    del graph.value_info[:]
    # Exporters note here where in the source, and in whose folder, a node comes from.
    for part in (model, graph, *graph.node, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return gzip.compress(model.SerializeToString(deterministic=True), 9, mtime=0)


def restore(name: str, folder: Path) -> Path:
    """Write ``folder/<name>.onnx`` with seeded random weights; the same bytes every time."""
    model = onnx.load_from_string(gzip.decompress((HERE / f"{name}.onnx.gz").read_bytes()))
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for tensor in model.graph.initializer:
        if not tensor.doc_string:
            continue
        law, first, second = tensor.doc_string.split()
        shape, low, high = tuple(tensor.dims), np.float32(first), np.float32(second)
        if law == "uniform":
            array = rng.uniform(low, high, shape)
        else:
            array = rng.standard_normal(shape, np.float32)
            array *= high
            array += low
        array = array.astype(helper.tensor_dtype_to_np_dtype(tensor.data_type), copy=False)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path
