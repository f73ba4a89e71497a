"""TensorRT 10, 11 and TensorRT-RTX through one code path: build anywhere, run where there is a GPU.

1. `load` finds a library; what it can do is asked of it (``_library``).
2. `cast` gives a model the types of a precision (``_cast``), `build` parses it and builds an engine (``_build``), and
   what the library says when it refuses becomes one sentence (``_errors``).
3. The fused layers of an engine and their ONNX nodes are read from the build log or the inspector (``_report``).
4. `open_tensorrt` opens the backend on a GPU (``_status``, which also says why it cannot); engines are replayed as CUDA
   graphs (``_runnable``) and timed by events (``_engine``).

TensorRT-RTX builds for named compute capabilities on a machine without a GPU; the others need the GPU that they build
for.  No time of TensorRT-RTX says anything about TensorRT.
"""

from __future__ import annotations

from onnx_layermerge.latency.backends._engine_options import BUILD_LIMIT_S, Range
from onnx_layermerge.latency.backends.tensorrt._build import Built, Port, build, check_options
from onnx_layermerge.latency.backends.tensorrt._cast import PRECISIONS, cast
from onnx_layermerge.latency.backends.tensorrt._engine import TensorRTBackend
from onnx_layermerge.latency.backends.tensorrt._library import NAMES, Library, load
from onnx_layermerge.latency.backends.tensorrt._options import BuildOptions
from onnx_layermerge.latency.backends.tensorrt._report import Layer, Tensor
from onnx_layermerge.latency.backends.tensorrt._runnable import EngineRunnable
from onnx_layermerge.latency.backends.tensorrt._status import (
    BlockBuilder,
    open_builder,
    open_tensorrt,
    reopen_tensorrt,
    status,
    validity,
)

__all__ = [
    "BUILD_LIMIT_S",
    "NAMES",
    "PRECISIONS",
    "BlockBuilder",
    "BuildOptions",
    "Built",
    "EngineRunnable",
    "Layer",
    "Library",
    "Port",
    "Range",
    "TensorRTBackend",
    "Tensor",
    "build",
    "cast",
    "check_options",
    "load",
    "open_builder",
    "open_tensorrt",
    "reopen_tensorrt",
    "status",
    "validity",
]
