"""`Driver` on pycuda, which is found where older TensorRT samples run; it captures no CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from onnx_layermerge.errors import DeviceError
from onnx_layermerge.latency.backends._driver import Array, DeviceFacts, no_memory, one_line, version_words

__all__ = ["PyCuda"]


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
            version = version_words(self._cuda.get_driver_version())
            l2_bytes = int(self._device.get_attribute(self._cuda.device_attribute.L2_CACHE_SIZE))
            name, bus = str(self._device.name()), str(self._device.pci_bus_id())
            return DeviceFacts(name, f"{major}.{minor}", version, l2_bytes, bus)

    def allocate(self, size: int) -> int:
        with self._errors("mem_alloc"):
            try:
                memory = self._cuda.mem_alloc(size)
            except self._cuda.MemoryError as error:
                raise no_memory(size) from error
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

    def fill(self, address: int, size: int, stream: Any) -> None:
        with self._errors("memset_d8_async"):
            self._cuda.memset_d8_async(address, 0, size, stream)

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
                f"The GPU failed in {function}: {one_line(error)}; see nvidia-smi, and start again."
            ) from error
