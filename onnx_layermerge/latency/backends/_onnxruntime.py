"""onnxruntime on the CPU: the backend that every machine has.

One thread that never spins, so that the process's CPU time is the work and nothing else, and
inputs and outputs bound to memory allocated once, so that no run pays for copies. Outputs can be
bound after one trial run: the preset inputs never change, hence neither do the output shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _ort_state

from onnx_layermerge.errors import ModelError
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency.backends import Reopen, preset_input
from onnx_layermerge.latency.backends._cpu import cpu_name

if TYPE_CHECKING:
    from onnx_layermerge.graph import Packed

# onnxruntime's exceptions have no common base below Exception.
ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(e for e in vars(_ort_state).values() if isinstance(e, type) and issubclass(e, Exception)),
)
DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint64)": np.uint64,
    "tensor(uint32)": np.uint32,
    "tensor(uint16)": np.uint16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class OnnxRuntimeBackend:
    """Backend ``onnxruntime``, device ``cpu``."""

    reopen = Reopen("onnx_layermerge.latency.backends:open_backend", ("onnxruntime", "cpu"))

    def describe(self) -> DeviceKey:
        return DeviceKey("onnxruntime", str(ort.__version__), cpu_name(), threads=1, precision="fp32")

    def build(self, model: bytes | Packed, shapes: Mapping[str, tuple[int, ...]]) -> OnnxRuntimeRunnable:
        return OnnxRuntimeRunnable(model, shapes)


class OnnxRuntimeRunnable:
    """A session with preset inputs; see `Runnable`."""

    def __init__(self, model: bytes | Packed, shapes: Mapping[str, tuple[int, ...]]) -> None:
        try:
            options, data = _options(), model
            self._weights: list[Any] = []
            if not isinstance(data, bytes):
                # Imported here: a worker times blocks only, and they are bytes.
                from onnx_layermerge.graph import give_weights

                self._weights, data = give_weights(options, data), data.data
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            self._presets: dict[str, npt.NDArray[Any]] = {}
            self._binding = self._session.io_binding()
            self._values = self._bind(shapes)
        except ORT_ERRORS as error:
            raise ModelError(
                f"onnxruntime cannot build this model ({first_line(error)}); update onnxruntime."
            ) from error

    def run(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except ORT_ERRORS as error:
            raise ModelError(f"onnxruntime cannot run this model ({first_line(error)}); export it again.") from error

    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        """The preset inputs."""
        return dict(self._presets)

    def outputs(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        try:
            return [np.asarray(x) for x in self._session.run(None, dict(feeds))]
        except ORT_ERRORS as error:
            raise ModelError(f"onnxruntime cannot run this model ({first_line(error)}); export it again.") from error

    def close(self) -> None:
        self._binding = self._session = None
        self._values = self._weights = []
        self._presets = {}

    def _bind(self, shapes: Mapping[str, tuple[int, ...]]) -> list[ort.OrtValue]:
        inputs = self._session.get_inputs()
        unknown = sorted(set(shapes) - {x.name for x in inputs})
        if unknown:
            names = ", ".join(x.name for x in inputs)
            raise ModelError(f"The model has no input {unknown[0]!r}; its inputs are: {names}.")
        feeds = {x.name: _preset(x, shapes.get(x.name), seed) for seed, x in enumerate(inputs)}
        self._presets = feeds
        values = []
        for name, feed in feeds.items():
            value = ort.OrtValue.ortvalue_from_numpy(feed)
            self._binding.bind_ortvalue_input(name, value)
            values.append(value)
        for output, trial in zip(self._session.get_outputs(), self._session.run(None, feeds), strict=True):
            if not isinstance(trial, np.ndarray) or trial.dtype.kind not in "fiub":
                # Strings, sequences and maps: let onnxruntime allocate them.
                self._binding.bind_output(output.name)
                continue
            value = ort.OrtValue.ortvalue_from_shape_and_type(trial.shape, trial.dtype)
            self._binding.bind_ortvalue_output(output.name, value)
            values.append(value)
        return values


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _preset(declared: ort.NodeArg, shape: tuple[int, ...] | None, seed: int) -> npt.NDArray[Any]:
    dtype = DTYPES.get(declared.type)
    if dtype is None:
        raise ModelError(
            f"Input {declared.name!r} is a {declared.type}, which cannot be timed; export it with numbers."
        )
    if shape is None:
        if not all(isinstance(d, int) and d >= 0 for d in declared.shape):
            raise ModelError(
                f"Input {declared.name!r} has the dynamic shape {declared.shape};"
                " say its shape with --shapes."
            )
        shape = tuple(declared.shape)
    return preset_input(shape, dtype, seed)


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
