"""A GPU made of numbers, behind the Python interfaces of ``cuda.bindings.driver`` and ``pycuda.driver``.

Its clock moves only when work runs on it; it counts what is open, and fails where it is told to.
"""

from __future__ import annotations

import ctypes
import enum
import types
from collections.abc import Callable
from typing import Any


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900


L2_BYTES = 4 << 20
BUS = "0000:01:00.0"


class Handle(int):
    """An opaque number; two of them are never the same object."""


class Gpu:
    """Memory, streams, events and graphs; ``log`` is what happened, by function."""

    def __init__(self, *, memory: int = 1 << 30, devices: int = 1) -> None:
        self.memory, self.devices = memory, devices
        self.now_s = 0.0
        self.blocks: dict[int, bytearray] = {}
        self.open: dict[str, set[int]] = {"stream": set(), "event": set(), "graph": set(), "context": set()}
        self.times: dict[int, float] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.capturing: list[Callable[[], None]] | None = None
        self.capturable = True
        self.fails: dict[str, CUresult] = {}
        self.log: list[str] = []
        self.fill_s = 0.0  # what a memory set of 1 MiB takes
        self.filled = 0
        self._next = 0x1000

    def left(self) -> dict[str, int]:
        """What was not given back."""
        counts = {kind: len(held) for kind, held in self.open.items()} | {"memory": len(self.blocks)}
        return {kind: count for kind, count in counts.items() if count}

    def new(self, kind: str) -> Handle:
        self._next += 0x1000
        self.open[kind].add(self._next)
        return Handle(self._next)

    def drop(self, kind: str, handle: int) -> None:
        self.open[kind].remove(handle)

    def allocate(self, size: int) -> int | None:
        if sum(map(len, self.blocks.values())) + size > self.memory:
            return None
        self._next += 0x1000 + size
        self.blocks[self._next] = bytearray(size)
        return self._next

    def enqueue(self, work: Callable[[], None]) -> None:
        """Do some work now, or put it into the graph that is being captured."""
        if self.capturing is not None:
            self.capturing.append(work)
        else:
            work()

    def fill(self, address: int, value: int, size: int) -> None:
        def put() -> None:
            assert size <= len(self.blocks[address]), "a memory set beyond the end"
            # Of a large one, which is only there to take time, the first part stands for all.
            done = min(size, 1 << 14)
            self.blocks[address][:done] = bytes([value]) * done
            self.filled += size
            self.now_s += self.fill_s * size / 2**20

        self.enqueue(put)

    def work(self, seconds: float) -> Callable[[], None]:
        def pass_time() -> None:
            self.now_s += seconds

        return pass_time


def cuda_python(gpu: Gpu) -> Any:
    """The module ``cuda.bindings.driver``: every function returns its status first."""
    module = types.SimpleNamespace(
        CUresult=CUresult,
        CUdevice_attribute=types.SimpleNamespace(
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=75, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=76,
            CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE=38,
        ),
        CUstream_flags=types.SimpleNamespace(CU_STREAM_DEFAULT=0, CU_STREAM_NON_BLOCKING=1),
        CUevent_flags=types.SimpleNamespace(CU_EVENT_DEFAULT=0),
        CUstreamCaptureMode=types.SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2),
    )

    def function(name: str) -> Callable[[Callable[..., tuple[Any, ...]]], None]:
        def add(body: Callable[..., tuple[Any, ...]]) -> None:
            def call(*words: Any) -> tuple[Any, ...]:
                gpu.log.append(name)
                if name in gpu.fails:
                    return (gpu.fails[name], None)
                return (CUresult.CUDA_SUCCESS, *body(*words))

            setattr(module, name, call)

        return add

    function("cuInit")(lambda flags: ())
    function("cuDeviceGetCount")(lambda: (gpu.devices,))
    function("cuDeviceGet")(lambda ordinal: (ordinal,))
    function("cuDeviceGetName")(lambda length, device: (b"Made Up 1000\0".ljust(length, b"\0"),))
    function("cuDeviceGetAttribute")(lambda attribute, device: ({75: 8, 76: 6, 38: L2_BYTES}[attribute],))
    function("cuDeviceGetPCIBusId")(lambda length, device: (BUS.encode().ljust(length, b"\0"),))
    function("cuMemsetD8Async")(lambda address, value, size, stream: gpu.fill(int(address), value, size) or ())
    function("cuDriverGetVersion")(lambda: (13010,))
    function("cuDevicePrimaryCtxRetain")(lambda device: (gpu.new("context"),))
    function("cuDevicePrimaryCtxRelease")(lambda device: gpu.open["context"].clear() or ())
    function("cuCtxSetCurrent")(lambda context: ())
    function("cuCtxSynchronize")(lambda: ())
    function("cuMemFree")(lambda address: gpu.blocks.pop(address) and () or ())
    function("cuStreamCreate")(lambda flags: (gpu.new("stream"),))
    function("cuStreamDestroy")(lambda stream: gpu.drop("stream", stream) or ())
    function("cuStreamSynchronize")(lambda stream: ())
    function("cuEventCreate")(lambda flags: (gpu.new("event"),))
    function("cuEventDestroy")(lambda event: gpu.drop("event", event) or ())
    function("cuEventRecord")(lambda event, stream: gpu.times.update({int(event): gpu.now_s}) or ())
    function("cuEventElapsedTime")(lambda start, stop: ((gpu.times[int(stop)] - gpu.times[int(start)]) * 1e3,))
    function("cuGraphInstantiate")(lambda graph, flags: (_graph(gpu, gpu.graphs[int(graph)]),))
    function("cuGraphLaunch")(lambda graph, stream: [work() for work in gpu.graphs[int(graph)]] and () or ())
    function("cuGraphDestroy")(lambda graph: gpu.drop("graph", graph) or ())
    function("cuGraphExecDestroy")(lambda graph: gpu.drop("graph", graph) or ())

    @function("cuMemAlloc")
    def allocate(size: int) -> tuple[Any, ...]:
        return (gpu.allocate(size),)

    plain = module.cuMemAlloc
    module.cuMemAlloc = lambda size: (
        plain(size) if sum(map(len, gpu.blocks.values())) + size <= gpu.memory else (CUresult(2), None)
    )

    @function("cuMemcpyHtoD")
    def upload(target: int, source: int, size: int) -> tuple[Any, ...]:
        gpu.blocks[target][:size] = ctypes.string_at(source, size)
        return ()

    @function("cuMemcpyDtoH")
    def download(target: int, source: int, size: int) -> tuple[Any, ...]:
        ctypes.memmove(target, bytes(gpu.blocks[source][:size]), size)
        return ()

    @function("cuStreamBeginCapture")
    def begin(stream: Any, mode: int) -> tuple[Any, ...]:
        gpu.capturing = []
        return ()

    def end(stream: Any) -> tuple[Any, ...]:
        recorded, gpu.capturing = gpu.capturing or [], None
        if not gpu.capturable:
            return (CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, None)
        return (CUresult.CUDA_SUCCESS, _graph(gpu, recorded))

    module.cuStreamEndCapture = end
    return module


def _graph(gpu: Gpu, work: list[Callable[[], None]]) -> Handle:
    handle = gpu.new("graph")
    gpu.graphs[int(handle)] = work
    return handle


def pycuda(gpu: Gpu) -> Any:
    """The module ``pycuda.driver``: classes, exceptions, and things that are given back with their last reference."""

    class Error(Exception):
        pass

    class OutOfMemory(Error):
        pass

    def check(name: str) -> None:
        gpu.log.append(name)
        if name in gpu.fails:
            raise Error(f"{name} failed: {gpu.fails[name].name}")

    class Context:
        def __init__(self) -> None:
            self.held = gpu.new("context")

        def push(self) -> None:
            check("push")

        def synchronize(self) -> None:
            check("synchronize context")

        def pop(self) -> None:
            gpu.drop("context", self.held)

    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        @staticmethod
        def count() -> int:
            return gpu.devices

        def name(self) -> str:
            return "Made Up 1000"

        def compute_capability(self) -> tuple[int, int]:
            return (8, 6)

        def get_attribute(self, attribute: str) -> int:
            return {"l2": L2_BYTES}[attribute]

        def pci_bus_id(self) -> str:
            return BUS

        def retain_primary_context(self) -> Context:
            return Context()

    class Stream:
        def __init__(self) -> None:
            self.handle = int(gpu.new("stream"))

        def synchronize(self) -> None:
            check("synchronize")

        def __del__(self) -> None:
            gpu.drop("stream", self.handle)

    class Event:
        def __init__(self) -> None:
            self.held = gpu.new("event")

        def record(self, stream: Stream) -> None:
            self.at_s = gpu.now_s

        def time_since(self, start: Event) -> float:
            return (self.at_s - start.at_s) * 1e3

        def __del__(self) -> None:
            gpu.drop("event", self.held)

    class Memory:
        def __init__(self, size: int) -> None:
            check("mem_alloc")
            address = gpu.allocate(size)
            if address is None:
                raise OutOfMemory("out of memory")
            self.address = address

        def __int__(self) -> int:
            return self.address

        def free(self) -> None:
            del gpu.blocks[self.address]

    def upload(target: int, source: Any) -> None:
        check("memcpy_htod")
        gpu.blocks[target][: source.nbytes] = source.tobytes()

    def download(target: Any, source: int) -> None:
        ctypes.memmove(target.ctypes.data, bytes(gpu.blocks[source][: target.nbytes]), target.nbytes)

    return types.SimpleNamespace(
        Error=Error, MemoryError=OutOfMemory, init=lambda: check("init"), Device=Device, Stream=Stream, Event=Event,
        device_attribute=types.SimpleNamespace(L2_CACHE_SIZE="l2"),
        memset_d8_async=lambda target, value, count, stream: gpu.fill(int(target), value, count),
        mem_alloc=Memory, memcpy_htod=upload, memcpy_dtoh=download, get_driver_version=lambda: 13010,
    )  # fmt: skip
