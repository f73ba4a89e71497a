"""An engine with memory of its own on a GPU, and its work as a CUDA graph.

A block finds what it reads in the second-level cache when it is run again and again, and not always inside a network.
`EngineRunnable.times` also gives the time after that cache was overwritten, as the figure beside the other one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from onnx_layermerge.errors import DeviceError, ModelError
from onnx_layermerge.latency.backends import preset_input
from onnx_layermerge.latency.backends.tensorrt._build import Port, type_faults
from onnx_layermerge.latency.backends.tensorrt._cast import stored_type
from onnx_layermerge.latency.backends.tensorrt._report import Layer, layers_of_json

if TYPE_CHECKING:
    from onnx_layermerge.latency.backends.tensorrt._engine import TensorRTBackend

__all__ = ["EngineRunnable"]

Array = npt.NDArray[Any]

_DTYPES: dict[str, npt.DTypeLike] = {
    "fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16, "int32": np.int32, "int64": np.int64,
    "int8": np.int8, "uint8": np.uint8, "bool": np.bool_,
}  # fmt: skip


class EngineRunnable:
    """A loaded engine with memory of its own and its work as a CUDA graph where one can be captured.

    ``layers`` are its fused layers; ``captured`` tells whether `run` replays a graph.
    """

    def __init__(
        self, backend: TensorRTBackend, engine: bytes, ports: tuple[Port, ...], layers: tuple[Layer, ...]
    ) -> None:
        self._driver, self._stream, self._meter = backend._driver, backend._stream, backend._meter
        self._overwrite_l2 = backend._overwrite_l2
        self._title, self._log = backend._library.title, backend._log
        self._addresses: dict[str, int] = {}
        self._graph: Any | None = None
        self._undo = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._engine = self._load(backend, engine)
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise ModelError(
                    f"{self._title} has no execution context for this engine ({self._said()}); lower --batch."
                )
            self._ports = tuple(self._bind(port) for port in ports)
            self._presets = {
                port.name: preset_input(port.shape, _host_dtype(port), seed)
                for seed, port in enumerate(port for port in self._ports if port.is_input)
            }
            self._feed(self._presets)
            self.layers = layers or self._inspect(backend._library.module)
            precision = backend._options.precision
            faults = type_faults(self._ports, self.layers, stored_type(precision))
            if faults:
                raise ModelError(
                    f"{self._title} did not build this model in {precision}: {faults[0]}; try another --precision."
                )
            # The first run allocates and loads kernels, which a capture must not see.
            self._enqueue()
            self._driver.synchronize(self._stream)
            self._graph = self._driver.capture(self._stream, self._enqueue)
            if self._graph is not None:
                self._undo.callback(self._driver.release, self._graph)
            undo.pop_all()

    @property
    def captured(self) -> bool:
        return self._graph is not None

    def run(self) -> None:
        self._meter.launch(self._launch)

    def times(self, count: int, *, cold: bool = False, graph: bool = True) -> list[float]:
        """GPU seconds of each of ``count`` runs, one by one.

        Args:
            cold: the second-level cache is overwritten before each run, outside of its time.
            graph: replay the captured graph; else the engine is enqueued anew every time.

        Raises:
            ModelError: it cannot be run, or there is no memory for what overwrites the cache.
        """
        work = self._launch if graph else self._enqueue
        return self._meter.times(work, count, self._overwrite_l2 if cold else None)

    def outputs(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs in the model's order; floating-point ones are float32 whatever the engine's precision."""
        unfit = [p for p in self._ports if p.is_input and (p.name not in feeds or feeds[p.name].shape != p.shape)]
        if unfit:
            raise ModelError(f"Input {unfit[0].name!r} of this engine takes the shape {unfit[0].shape}; give that one.")
        try:
            self._feed(feeds)
            self._launch()
            self._driver.synchronize(self._stream)
            return [self._fetch(port) for port in self._ports if not port.is_input]
        finally:
            self._feed(self._presets)

    def inputs(self) -> dict[str, Array]:
        """The preset inputs."""
        return dict(self._presets)

    def close(self) -> None:
        self._undo.close()
        self._graph = self._context = self._engine = None
        self._addresses = {}

    def _load(self, backend: TensorRTBackend, data: bytes) -> Any:
        engine = backend._runtime.deserialize_cuda_engine(data)
        if engine is not None:
            return engine
        if hasattr(backend._runtime, "get_engine_validity"):
            validity, _ = backend._runtime.get_engine_validity(data)
            where = f"{backend._facts.name} (compute capability {backend._facts.capability})"
            raise DeviceError(
                f"{self._title} calls this engine {validity.name} on {where} ({self._said()}); build it there."
            )
        raise ModelError(
            f"{self._title} cannot load the engine that it built ({self._said()}); try another version of it."
        )

    def _bind(self, port: Port) -> Port:
        """Shape, type and memory of one input or output."""
        dtype = self._engine.get_tensor_dtype(port.name)
        if port.is_input and any(size < 0 for size in self._engine.get_tensor_shape(port.name)):
            self._context.set_input_shape(port.name, port.shape)
        shape = tuple(self._context.get_tensor_shape(port.name))
        if any(size < 0 for size in shape):
            raise ModelError(f"The shape {shape} of output {port.name!r} depends on the data; cut it there.")
        bound = Port(port.name, shape, _engine_type(dtype, port), port.is_input, port.channels_last)
        address = self._driver.allocate(max(1, int(np.prod(shape)) * np.dtype(_DTYPES[bound.dtype]).itemsize))
        self._undo.callback(self._driver.free, address)
        self._addresses[port.name] = address
        self._context.set_tensor_address(port.name, address)
        return bound

    def _inspect(self, module: Any) -> tuple[Layer, ...]:
        inspector = self._engine.create_engine_inspector()
        if inspector is None:
            return ()
        return layers_of_json(str(inspector.get_engine_information(module.LayerInformationFormat.JSON)))

    def _launch(self) -> None:
        if self._graph is None:
            self._enqueue()
        else:
            self._driver.replay(self._graph, self._stream)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._driver.handle(self._stream)):
            raise ModelError(f"{self._title} cannot run this engine ({self._said()}); try another version of it.")

    def _feed(self, feeds: Mapping[str, Array]) -> None:
        for port in self._ports:
            if port.is_input:
                array = np.asarray(feeds[port.name]).astype(_DTYPES[port.dtype])
                if port.channels_last:
                    array = np.moveaxis(array, 1, -1)
                self._driver.upload(self._addresses[port.name], np.ascontiguousarray(array))

    def _fetch(self, port: Port) -> Array:
        shape = port.shape
        if port.channels_last:
            shape = (shape[0], *shape[2:], shape[1])
        array = np.empty(shape, _DTYPES[port.dtype])
        self._driver.download(array, self._addresses[port.name])
        if port.channels_last:
            array = np.moveaxis(array, -1, 1)
        return np.ascontiguousarray(array, _host_dtype(port))

    def _said(self) -> str:
        said = [" ".join(text.split()) for severity, text in self._log.messages if severity.endswith("ERROR")]
        return said[-1].rstrip(".") if said else "it does not say why"


def _engine_type(dtype: Any, port: Port) -> str:
    """The engine's own word for a tensor's type, in ours."""
    words = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
    found = words.get(str(dtype.name), str(dtype.name).lower())
    if found not in _DTYPES:
        raise ModelError(f"{port.name!r} is a {dtype.name}, which cannot be timed; export numbers.")
    return found


def _host_dtype(port: Port) -> npt.DTypeLike:
    return np.float32 if port.dtype in ("fp16", "bf16") else _DTYPES[port.dtype]
