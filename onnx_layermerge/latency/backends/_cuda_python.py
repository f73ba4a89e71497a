"""`Driver` on cuda-python, the first choice: wheels, no compiler, and it captures CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from onnx_layermerge.errors import DeviceError, ModelError, OlmError
from onnx_layermerge.latency.backends._driver import (
    NO_LIBCUDA,
    Array,
    DeviceFacts,
    no_memory,
    one_line,
    version_words,
)

__all__ = ["CudaPython"]


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
            raise DeviceError(f"{NO_LIBCUDA[:-1]} ({one_line(error)}).") from error
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
        version = version_words(self._call("cuDriverGetVersion"))
        l2_bytes = int(self._call("cuDeviceGetAttribute", kinds.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, self._device))
        name, bus = (_text(self._call(f, 256, self._device)) for f in ("cuDeviceGetName", "cuDeviceGetPCIBusId"))
        return DeviceFacts(name, f"{major}.{minor}", version, l2_bytes, bus)

    def allocate(self, size: int) -> int:
        status, *rest = self._cuda.cuMemAlloc(size)
        if status == self._cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise no_memory(size)
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

    def fill(self, address: int, size: int, stream: Any) -> None:
        self._call("cuMemsetD8Async", address, 0, size, stream)

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


def _text(padded: bytes) -> str:
    """A C string in a buffer."""
    return bytes(padded).partition(b"\0")[0].decode(errors="replace")
