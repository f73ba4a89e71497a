"""The contract of a driver, on every adapter over a made-up GPU, and on the real one where there is one."""

from __future__ import annotations

import gc
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from onnx_layermerge.errors import DeviceError, ModelError
from onnx_layermerge.latency.backends import _cuda
from onnx_layermerge.latency.backends._cuda import CudaPython, Driver, PyCuda, open_driver
from tests.latency.fake_cuda import CUresult, Gpu, cuda_python, pycuda

ADAPTERS: dict[str, tuple[type, Callable[[Gpu], Any]]] = {
    "cuda-python": (CudaPython, cuda_python),
    "pycuda": (PyCuda, pycuda),
}


def opened(adapter: str, gpu: Gpu, index: int = 0) -> Driver:
    kind, fake = ADAPTERS[adapter]
    driver: Driver = kind(fake(gpu), index)
    return driver


@pytest.fixture(params=[*ADAPTERS, "real cuda-python", "real pycuda"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    name = request.param
    if not name.startswith("real"):
        made = opened(name, Gpu())
    else:
        module, kind = {
            "real cuda-python": ("cuda.bindings.driver", CudaPython), "real pycuda": ("pycuda.driver", PyCuda)
        }[name]  # fmt: skip
        try:
            made = kind(importlib.import_module(module))
        except (ImportError, OSError, DeviceError) as error:
            pytest.skip(f"no GPU through {module} here: {error}")
    yield made
    made.close()


def test_memory_keeps_what_was_put_there(driver: Driver) -> None:
    there, back = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
    first, second = driver.allocate(there.nbytes), driver.allocate(there.nbytes)
    assert first != second
    driver.upload(first, there)
    driver.upload(second, -there)
    driver.download(back, first)
    np.testing.assert_array_equal(back, there)
    driver.download(back, second)
    np.testing.assert_array_equal(back, -there)
    driver.free(first)
    driver.free(first)
    driver.free(second)


def test_time_passes_between_two_events(driver: Driver) -> None:
    stream, start, stop = driver.stream(), driver.event(), driver.event()
    assert driver.handle(stream) > 0
    driver.record(start, stream)
    driver.record(stop, stream)
    driver.synchronize(stream)
    assert 0 <= driver.elapsed_s(start, stop) < 1
    driver.release(start, stop, stream)


def test_facts_are_words_of_a_key(driver: Driver) -> None:
    facts = driver.facts()
    major, _, minor = facts.capability.partition(".")
    assert facts.name and "\0" not in facts.name and major.isdigit() and minor.isdigit()
    assert facts.driver.startswith("CUDA 1")
    assert facts.l2_bytes >= 1 << 18 and facts.bus.count(":") == 2


def test_memory_is_filled_with_zeros_on_the_stream(driver: Driver) -> None:
    there, back, stream = np.full(4096, 7, np.uint8), np.ones(4096, np.uint8), driver.stream()
    address = driver.allocate(there.nbytes)
    driver.upload(address, there)
    driver.fill(address, 1024, stream)
    driver.synchronize(stream)
    driver.download(back, address)
    assert not back[:1024].any() and (back[1024:] == 7).all()
    graph = driver.capture(stream, lambda: driver.fill(address, 4096, stream))
    if graph is not None:
        driver.replay(graph, stream)
        driver.synchronize(stream)
        driver.download(back, address)
        assert not back.any(), "a fill that was captured must run when the graph is replayed"
    driver.free(address)
    driver.release(stream)


def test_nothing_captured_or_a_graph_that_replays(driver: Driver) -> None:
    stream, ran = driver.stream(), []
    graph = driver.capture(stream, lambda: ran.append(1))
    if graph is not None:
        driver.replay(graph, stream)
        driver.replay(graph, stream)
        assert ran == [1], "replaying must not call Python again"
        driver.release(graph)
    driver.synchronize(stream)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_elapsed_time_is_in_seconds(adapter: str) -> None:
    gpu = Gpu()
    made = opened(adapter, gpu)
    stream, start, stop = made.stream(), made.event(), made.event()
    made.record(start, stream)
    gpu.now_s += 0.25
    made.record(stop, stream)
    assert made.elapsed_s(start, stop) == pytest.approx(0.25)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_closing_gives_everything_back_and_twice_does_nothing(adapter: str) -> None:
    gpu = Gpu()
    made = opened(adapter, gpu)
    stream = made.stream()
    made.event()
    made.allocate(64)
    made.capture(stream, lambda: gpu.enqueue(gpu.work(1)))
    assert set(gpu.left()) >= {"stream", "event", "memory", "context"}
    del stream
    made.close()
    made.close()
    gc.collect()
    assert gpu.left() == {}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_upload_is_waited_for(adapter: str) -> None:
    """The driver returns once it has read the host's memory, which is before the device's is written."""
    gpu = Gpu()
    made = opened(adapter, gpu)
    made.upload(made.allocate(4), np.zeros(1, np.float32))
    assert gpu.log[-2:] in (["cuMemcpyHtoD", "cuCtxSynchronize"], ["memcpy_htod", "synchronize context"])


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_too_little_memory_is_the_models_fault(adapter: str) -> None:
    made = opened(adapter, Gpu(memory=3 << 20))
    made.allocate(2 << 20)
    with pytest.raises(ModelError, match=r"not enough memory for this model: 2 MiB"):
        made.allocate(2 << 20)


@pytest.mark.parametrize(("adapter", "function"), [("cuda-python", "cuStreamSynchronize"), ("pycuda", "synchronize")])
def test_a_fault_of_the_device_is_a_device_error(adapter: str, function: str) -> None:
    gpu = Gpu()
    made = opened(adapter, gpu)
    stream = made.stream()
    gpu.fails[function] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    with pytest.raises(DeviceError, match=f"{function}.*ILLEGAL_ADDRESS"):
        made.synchronize(stream)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_device_that_is_not_there(adapter: str) -> None:
    with pytest.raises(DeviceError, match="no GPU cuda:2; this machine has 2"):
        opened(adapter, Gpu(devices=2), 2)


def test_a_context_that_cannot_be_made_current_is_given_back() -> None:
    gpu = Gpu()
    gpu.fails["cuCtxSetCurrent"] = CUresult.CUDA_ERROR_NO_DEVICE
    with pytest.raises(DeviceError, match="cuCtxSetCurrent"):
        opened("cuda-python", gpu)
    assert gpu.left() == {}


def test_a_graph_holds_the_work_and_python_is_not_asked_again() -> None:
    gpu = Gpu()
    made = opened("cuda-python", gpu)
    stream = made.stream()
    graph = made.capture(stream, lambda: gpu.enqueue(gpu.work(2.0)))
    assert gpu.now_s == 0, "captured work must not run"
    for _ in range(3):
        made.replay(graph, stream)
    assert gpu.now_s == 6
    made.release(graph)
    assert gpu.left().get("graph") is None


@pytest.mark.parametrize("way", ["unsupported", "refused", "not instantiated"])
def test_a_capture_that_fails_leaves_a_stream_that_works(way: str) -> None:
    gpu = Gpu()
    made = opened("cuda-python", gpu)
    stream = made.stream()

    def work() -> None:
        if way == "refused":
            raise ModelError("no")

    if way == "unsupported":
        gpu.capturable = False
    if way == "not instantiated":
        gpu.fails["cuGraphInstantiate"] = CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
    assert made.capture(stream, work) is None
    assert gpu.capturing is None and "graph" not in gpu.left()


def test_other_errors_end_the_capture_and_go_on() -> None:
    gpu = Gpu()
    made = opened("cuda-python", gpu)

    def work() -> None:
        raise DeviceError("lost")

    with pytest.raises(DeviceError, match="lost"):
        made.capture(made.stream(), work)
    assert gpu.capturing is None and "graph" not in gpu.left()


def test_pycuda_captures_nothing() -> None:
    made = opened("pycuda", Gpu())
    assert made.capture(made.stream(), lambda: None) is None


class _Libcuda(types.ModuleType):
    """``cuda.bindings.driver`` as it is where the driver is missing."""

    def cuInit(self, flags: int) -> None:  # noqa: N802
        raise RuntimeError("libcuda.so.1: cannot open shared object file")


def test_a_missing_libcuda_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", _Libcuda("driver"))
    with pytest.raises(DeviceError, match=r"libcuda\.so\.1 cannot be loaded; install the driver") as caught:
        open_driver("cuda:0")
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_no_binding_and_the_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"pycuda.driver": pycuda(Gpu())}

    def import_module(name: str) -> Any:
        if name not in found:
            raise ModuleNotFoundError(name)
        return found[name]

    monkeypatch.setattr(_cuda.importlib, "import_module", import_module)
    assert open_driver("cuda").name == "pycuda"
    found.clear()
    with pytest.raises(DeviceError, match="pip install cuda-python"):
        open_driver("cuda:0")


@pytest.mark.parametrize("word", ["gpu", "cuda:", "cuda:x", "cpu"])
def test_words_that_name_no_gpu(word: str) -> None:
    with pytest.raises(DeviceError, match="name it as cuda:0"):
        open_driver(word)


def test_the_made_up_module_has_no_function_that_the_real_one_has_not() -> None:
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed")
    for name, member in vars(cuda_python(Gpu())).items():
        assert hasattr(real, name), name
        if isinstance(member, types.SimpleNamespace):
            for word, value in vars(member).items():
                assert int(getattr(getattr(real, name), word)) == value, word
    for status in CUresult:
        assert int(getattr(real.CUresult, status.name)) == status
