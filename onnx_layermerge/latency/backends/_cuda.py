"""The few things that timing needs of a CUDA driver, behind one protocol and with nothing imported before it is opened.

1. cuda-python (``cuda.bindings.driver``): wheels, and it captures CUDA graphs.
2. pycuda: found where older TensorRT samples run; it exposes no stream capture, so work is enqueued anew every time.

Both share the device's primary context, which TensorRT and onnxruntime use too.  A fault of the device ends in a
`DeviceError`; that it has not enough memory for one model is that model's own `ModelError`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy.typing as npt

from onnx_layermerge.errors import DeviceError, ModelError, OlmError

__all__ = ["CudaPython", "DeviceFacts", "Driver", "PyCuda", "open_driver"]

Array = npt.NDArray[Any]
_NO_LIBCUDA = (
    "The NVIDIA driver's library libcuda.so.1 cannot be loaded; install the driver, or in a container pass the GPU "
    "through, or use --device cpu."
)


@dataclasses.dataclass(frozen=True)
class DeviceFacts:
    """``capability`` as ``8.6``; ``driver`` is the newest CUDA that the driver knows, as ``CUDA 13.0``."""

    name: str
    capability: str
    driver: str


class Driver(Protocol):
    """A device with its context current.  Streams, events and graphs are opaque; addresses are integers."""

    name: str

    def facts(self) -> DeviceFacts: ...

    def allocate(self, size: int) -> int:
        """Device memory of ``size`` bytes.

        Raises:
            ModelError: there is not so much.
        """
        ...

    def free(self, address: int) -> None: ...

    def upload(self, address: int, array: Array) -> None:
        """Copy a contiguous array to the device and wait for it."""
        ...

    def download(self, array: Array, address: int) -> None:
        """Fill a contiguous array from the device and wait for it."""
        ...

    def stream(self) -> Any: ...

    def handle(self, stream: Any) -> int:
        """What other libraries take for this stream."""
        ...

    def synchronize(self, stream: Any) -> None:
        """Wait for all work on the stream; errors of work enqueued before show here."""
        ...

    def event(self) -> Any: ...

    def record(self, event: Any, stream: Any) -> None: ...

    def elapsed_s(self, start: Any, stop: Any) -> float:
        """Device seconds between two events that have both happened."""
        ...

    def capture(self, stream: Any, work: Callable[[], None]) -> Any | None:
        """What ``work`` enqueues on the stream as a graph; None where that cannot be captured."""
        ...

    def replay(self, graph: Any, stream: Any) -> None: ...

    def release(self, *held: Any) -> None:
        """Give streams, events and graphs back; a thing twice does nothing."""
        ...

    def close(self) -> None:
        """Give back everything that was not, and the context; a second call does nothing."""
        ...


def open_driver(device: str = "cuda:0") -> Driver:
    """Open a device by its word, with the first adapter that is installed.

    Raises:
        DeviceError: no adapter, no driver, or no such device.
    """
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise DeviceError(f"There is no GPU {device!r}; name it as cuda:0.")
    index = int(match[1] or 0)
    for module_name, adapter in (("cuda.bindings.driver", CudaPython), ("pycuda.driver", PyCuda)):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:
            raise DeviceError(f"{_NO_LIBCUDA[:-1]} ({_line(error)}).") from error
        opened: Driver = adapter(module, index)
        return opened
    raise DeviceError("No CUDA binding for Python is installed; pip install cuda-python.")


class CudaPython:
    """`Driver` on ``cuda.bindings.driver``, whose functions return their status first."""

    def __init__(self, module: Any, index: int = 0) -> None:
        self._cuda = module
        self._held: dict[int, tuple[str, Any]] = {}
        self._memory: set[int] = set()
        self._context: Any = None
        try:
            self._call("cuInit", 0)
        except (RuntimeError, OSError) as error:
            raise DeviceError(f"{_NO_LIBCUDA[:-1]} ({_line(error)}).") from error
        count = self._call("cuDeviceGetCount")
        if index >= count:
            raise DeviceError(f"There is no GPU cuda:{index}; this machine has {count}.")
        self._device = self._call("cuDeviceGet", index)
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._call("cuCtxSetCurrent", self._context)
            undo.pop_all()
        self.name = "cuda-python"

    def facts(self) -> DeviceFacts:
        kinds = self._cuda.CUdevice_attribute
        asked = (getattr(kinds, f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}") for part in ("MAJOR", "MINOR"))
        major, minor = (self._call("cuDeviceGetAttribute", kind, self._device) for kind in asked)
        name = bytes(self._call("cuDeviceGetName", 256, self._device)).partition(b"\0")[0].decode(errors="replace")
        return DeviceFacts(name, f"{major}.{minor}", _version(self._call("cuDriverGetVersion")))

    def allocate(self, size: int) -> int:
        status, *rest = self._cuda.cuMemAlloc(size)
        if status == self._cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise _no_memory(size)
        self._check("cuMemAlloc", status)
        address = int(rest[0])
        self._memory.add(address)
        return address

    def free(self, address: int) -> None:
        if address in self._memory:
            self._memory.discard(address)
            self._call("cuMemFree", address)

    def upload(self, address: int, array: Array) -> None:
        self._call("cuMemcpyHtoD", address, array.ctypes.data, array.nbytes)
        # It returns when the host memory is read; a stream that blocks on nothing could be sooner than the rest.
        self._call("cuCtxSynchronize")

    def download(self, array: Array, address: int) -> None:
        self._call("cuMemcpyDtoH", array.ctypes.data, address, array.nbytes)

    def stream(self) -> Any:
        flag = int(self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING)
        return self._hold("cuStreamDestroy", self._call("cuStreamCreate", flag))

    def handle(self, stream: Any) -> int:
        return int(stream)

    def synchronize(self, stream: Any) -> None:
        self._call("cuStreamSynchronize", stream)

    def event(self) -> Any:
        flag = int(self._cuda.CUevent_flags.CU_EVENT_DEFAULT)
        return self._hold("cuEventDestroy", self._call("cuEventCreate", flag))

    def record(self, event: Any, stream: Any) -> None:
        self._call("cuEventRecord", event, stream)

    def elapsed_s(self, start: Any, stop: Any) -> float:
        return float(self._call("cuEventElapsedTime", start, stop)) * 1e-3

    def capture(self, stream: Any, work: Callable[[], None]) -> Any | None:
        # Relaxed: what the library allocates while it enqueues is not part of the graph, and allowed.
        self._call("cuStreamBeginCapture", stream, self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
        failed: OlmError | None = None
        try:
            work()
        except (ModelError, DeviceError) as error:
            failed = error
        # The stream is unusable until the capture is ended, whatever became of it.
        status, *rest = self._cuda.cuStreamEndCapture(stream)
        ended = status == self._cuda.CUresult.CUDA_SUCCESS
        graph = rest[0] if ended and rest[0] is not None and int(rest[0]) else None
        try:
            if isinstance(failed, DeviceError):
                raise failed
            if failed is not None or graph is None:
                return None
            status, *rest = self._cuda.cuGraphInstantiate(graph, 0)
        finally:
            if graph is not None:
                self._call("cuGraphDestroy", graph)
        return self._hold("cuGraphExecDestroy", rest[0]) if status == self._cuda.CUresult.CUDA_SUCCESS else None

    def replay(self, graph: Any, stream: Any) -> None:
        self._call("cuGraphLaunch", graph, stream)

    def release(self, *held: Any) -> None:
        for each in held:
            undo, _ = self._held.pop(id(each), ("", None))
            if undo:
                self._call(undo, each)

    def close(self) -> None:
        if self._context is None:
            return
        with contextlib.suppress(DeviceError):  # a lost device takes everything with it
            for address in list(self._memory):
                self.free(address)
            self.release(*(each for _, each in list(self._held.values())))
            self._call("cuDevicePrimaryCtxRelease", self._device)
        self._context = None

    def _hold(self, undo: str, handle: Any) -> Any:
        self._held[id(handle)] = (undo, handle)
        return handle

    def _call(self, function: str, *words: Any) -> Any:
        """What the function returns behind its status: nothing, or one value."""
        status, *rest = getattr(self._cuda, function)(*words)
        self._check(function, status)
        return rest[0] if rest else None

    def _check(self, function: str, status: Any) -> None:
        if status != self._cuda.CUresult.CUDA_SUCCESS:
            raise DeviceError(f"The GPU failed in {function}: {status.name}; see nvidia-smi, and start again.")


class PyCuda:
    """`Driver` on ``pycuda.driver``, which frees a thing when Python does."""

    def __init__(self, module: Any, index: int = 0) -> None:
        self._cuda = module
        self._held: dict[int, Any] = {}
        self._memory: dict[int, Any] = {}
        self._context: Any = None
        with self._errors("init"):
            module.init()
            count = int(module.Device.count())
            if index >= count:
                raise DeviceError(f"There is no GPU cuda:{index}; this machine has {count}.")
            self._device = module.Device(index)
            self._context = self._device.retain_primary_context()
            self._context.push()
        self.name = "pycuda"

    def facts(self) -> DeviceFacts:
        with self._errors("Device"):
            major, minor = self._device.compute_capability()
            return DeviceFacts(str(self._device.name()), f"{major}.{minor}", _version(self._cuda.get_driver_version()))

    def allocate(self, size: int) -> int:
        with self._errors("mem_alloc"):
            try:
                memory = self._cuda.mem_alloc(size)
            except self._cuda.MemoryError as error:
                raise _no_memory(size) from error
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        memory = self._memory.pop(address, None)
        if memory is not None:
            with self._errors("free"):
                memory.free()

    def upload(self, address: int, array: Array) -> None:
        with self._errors("memcpy_htod"):
            self._cuda.memcpy_htod(address, array)
            self._context.synchronize()  # see CudaPython.upload

    def download(self, array: Array, address: int) -> None:
        with self._errors("memcpy_dtoh"):
            self._cuda.memcpy_dtoh(array, address)

    def stream(self) -> Any:
        with self._errors("Stream"):
            return self._hold(self._cuda.Stream())

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def synchronize(self, stream: Any) -> None:
        with self._errors("synchronize"):
            stream.synchronize()

    def event(self) -> Any:
        with self._errors("Event"):
            return self._hold(self._cuda.Event())

    def record(self, event: Any, stream: Any) -> None:
        with self._errors("record"):
            event.record(stream)

    def elapsed_s(self, start: Any, stop: Any) -> float:
        with self._errors("time_since"):
            return float(stop.time_since(start)) * 1e-3

    def capture(self, stream: Any, work: Callable[[], None]) -> Any | None:
        return None

    def replay(self, graph: Any, stream: Any) -> None:
        raise DeviceError("pycuda captures no CUDA graphs; pip install cuda-python.")

    def release(self, *held: Any) -> None:
        for each in held:
            self._held.pop(id(each), None)

    def close(self) -> None:
        if self._context is None:
            return
        with contextlib.suppress(DeviceError):
            for address in list(self._memory):
                self.free(address)
            self._held.clear()
            with self._errors("pop"):
                self._context.pop()
        self._context = None

    def _hold(self, thing: Any) -> Any:
        self._held[id(thing)] = thing
        return thing

    @contextlib.contextmanager
    def _errors(self, function: str) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            raise DeviceError(
                f"The GPU failed in {function}: {_line(error)}; see nvidia-smi, and start again."
            ) from error


def _no_memory(size: int) -> ModelError:
    return ModelError(f"The GPU has not enough memory for this model: {size / 2**20:.0f} MiB more were asked for.")


def _version(number: int) -> str:
    return f"CUDA {number // 1000}.{number % 1000 // 10}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
