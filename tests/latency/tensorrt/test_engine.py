"""Engines on a made-up GPU: numbers, time, memory, and what goes wrong; on the real one where there is one."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnx_layermerge.errors import DeviceError, ModelError, OlmError
from onnx_layermerge.latency import BlockSpec, Measurement, interleave, slopes
from onnx_layermerge.latency.backends._cuda import CudaPython, PyCuda
from onnx_layermerge.latency.backends.tensorrt import BuildOptions, Library, TensorRTBackend, open_tensorrt
from onnx_layermerge.latency.backends.tensorrt._meter import GATE_BYTES, Meter
from tests.latency.fake_cuda import L2_BYTES, CUresult, Gpu, cuda_python, pycuda
from tests.latency.tensorrt.conftest import fake_library
from tests.latency.tensorrt.fake import World
from tests.latency.tensorrt.nets import conv, residual
from tests.zoo import Net

Open = Callable[..., TensorRTBackend]


@pytest.fixture
def opened(library: Library, world: World) -> Iterator[Open]:
    made: list[TensorRTBackend] = []

    def open_backend(precision: str = "fp32", adapter: str = "cuda-python", **words: Any) -> TensorRTBackend:
        assert world.gpu is not None
        driver = CudaPython(cuda_python(world.gpu)) if adapter == "cuda-python" else PyCuda(pycuda(world.gpu))
        made.append(TensorRTBackend(library, driver, BuildOptions(precision=precision), **words))
        return made[-1]

    yield open_backend
    for backend in made:
        backend.close()


def gpu_of(world: World) -> Gpu:
    assert world.gpu is not None
    return world.gpu


@pytest.mark.parametrize("adapter", ["cuda-python", "pycuda"])
@pytest.mark.parametrize("channels", [16, 12])  # channels last, and linear
def test_outputs_are_those_of_the_reference_evaluator(channels: int, adapter: str, opened: Open) -> None:
    runnable = opened(adapter=adapter).build(residual(channels=channels), {})
    x = np.random.default_rng(1).standard_normal((1, channels, 14, 14)).astype(np.float32)
    (want,) = ReferenceEvaluator(onnx.load_from_string(residual(channels=channels))).run(None, {"x": x})
    (got,) = runnable.outputs({"x": x})
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    assert got.dtype == np.float32 and runnable.captured is (adapter == "cuda-python")


def test_fp16_takes_and_gives_float32(opened: Open) -> None:
    runnable = opened("fp16").build(residual(), {})
    (got,) = runnable.outputs(runnable.inputs())
    (want,) = ReferenceEvaluator(onnx.load_from_string(residual())).run(None, runnable.inputs())
    assert got.dtype == np.float32
    assert 0 < np.max(np.abs(got - want)) < 2e-2 * np.max(np.abs(want))


def test_a_dynamic_batch_takes_the_shape_it_was_built_for(opened: Open) -> None:
    runnable = opened().build(conv(("N", 16, 8, 8)).SerializeToString(), {"x": (3, 16, 8, 8)})
    assert runnable.outputs(runnable.inputs())[0].shape == (3, 16, 8, 8)
    with pytest.raises(ModelError, match=r"'x' of this engine takes the shape \(3, 16, 8, 8\)"):
        runnable.outputs({"x": np.ones((2, 16, 8, 8), np.float32)})
    with pytest.raises(ModelError, match="'x' of this engine takes"):
        runnable.outputs({})


def test_feeding_does_not_change_the_preset_inputs(opened: Open, world: World) -> None:
    runnable = opened().build(residual(), {})
    before = dict(gpu_of(world).blocks)
    kept = {address: bytes(block) for address, block in before.items()}
    runnable.outputs({"x": np.zeros((1, 16, 14, 14), np.float32)})
    address = runnable._addresses["x"]
    assert bytes(before[address]) == kept[address]


def test_the_clock_reads_gpu_seconds_of_the_runs_and_of_nothing_else(opened: Open, world: World) -> None:
    world.conv_s = 0.125  # of which the network has two
    backend = opened()
    runnable = backend.build(residual(), {})
    start = backend.clock()
    for _ in range(3):
        runnable.run()
    gpu_of(world).now_s += 100  # another program's work, after the last run
    stop = backend.clock()
    assert stop.seconds - start.seconds == pytest.approx(0.75)
    assert backend.clock().seconds == stop.seconds
    assert stop.wall_s >= start.wall_s


def test_runs_replay_the_graph_and_events_are_used_again(opened: Open, world: World) -> None:
    backend = opened()
    runnable = backend.build(residual(), {})
    enqueued = world.enqueued
    for _ in range(5):
        runnable.run()
        runnable.run()
        backend.clock()
    assert world.enqueued == enqueued, "a captured graph must not be enqueued anew"
    assert len(gpu_of(world).open["event"]) == 4


def test_without_capture_the_work_is_enqueued(opened: Open, world: World) -> None:
    gpu_of(world).capturable = False
    backend = opened()
    runnable = backend.build(residual(), {})
    enqueued = world.enqueued
    runnable.run()
    assert not runnable.captured and world.enqueued == enqueued + 1


def test_many_runs_without_a_reading_do_not_pile_up() -> None:
    gpu = Gpu()
    driver = CudaPython(cuda_python(gpu))
    meter = Meter(driver, driver.stream())
    for _ in range(2500):
        meter.launch(gpu.work(1e-3))
    assert len(gpu.open["event"]) <= 2 * 1024
    assert meter.clock().seconds == pytest.approx(2.5)


def test_pycuda_captures_nothing_so_there_is_no_gate_and_the_key_says_so(opened: Open) -> None:
    assert " gate=off " in opened("fp16", "pycuda").describe().settings


def test_the_gate_opens_once_a_reading_and_costs_no_time() -> None:
    gpu = Gpu()
    driver = CudaPython(cuda_python(gpu))
    meter = Meter(driver, driver.stream())
    gpu.fill_s, before = 1.0, gpu.filled
    for _ in range(3):
        for _ in range(4):
            meter.launch(gpu.work(1e-3))
        meter.clock()
    assert meter.gated and (gpu.filled - before) == 3 * 64 * GATE_BYTES
    assert meter.clock().seconds == pytest.approx(12e-3) and gpu.now_s > 100


@pytest.mark.parametrize("adapter", ["cuda-python", "pycuda"])
def test_cold_times_overwrite_the_cache_before_each_run_and_outside_of_its_time(
    adapter: str, opened: Open, world: World
) -> None:
    world.conv_s = 0.125
    backend = opened(adapter=adapter)
    runnable = backend.build(residual(), {})
    gpu, before = gpu_of(world), gpu_of(world).filled
    warm = runnable.times(5)
    gate = gpu.filled - before
    gpu.fill_s = 1e-3
    cold = runnable.times(5, cold=True)
    assert warm == cold == pytest.approx([0.25] * 5)
    assert gpu.filled - before - 2 * gate == 5 * max(128 << 20, 2 * L2_BYTES)
    enqueued = world.enqueued
    runnable.times(3, graph=False)
    assert world.enqueued == enqueued + 3
    runnable.close()
    backend.close()
    assert gpu.left().keys() <= {"stream", "event"}, "which pycuda gives back with Python's references"


def test_a_measurement_has_its_cold_figure_and_none_where_memory_is_short(opened: Open, world: World) -> None:
    world.conv_s = 2e-3
    backend = opened()
    spec = BlockSpec("key", "block", _chain, lambda count: {"x": (1, 8, 4, 4)})
    words: dict[str, Any] = {"clock": backend.clock, "min_rounds": 6, "max_rounds": 6, "warm_up_s": 0}
    found = slopes([spec], backend, **words)["key"]
    assert isinstance(found, Measurement) and found.cold_s == pytest.approx(2e-3)
    poor = opened()
    gpu_of(world).memory = sum(map(len, gpu_of(world).blocks.values())) + (64 << 20)
    found = slopes([spec], poor, **{**words, "clock": poor.clock})["key"]
    assert isinstance(found, Measurement) and found.cold_s is None and found.seconds == pytest.approx(2e-3)


def test_runs_bound_by_launches_are_said(opened: Open, world: World) -> None:
    def warned(conv_s: float) -> tuple[str, ...]:
        world.conv_s = conv_s
        backend = opened()
        runnable = backend.build(residual(), {})
        watch = backend.watch()
        for _ in range(20):
            runnable.run()
        backend.clock()
        return tuple(text for text in watch.warnings() if "pace of the launches" in text)

    assert warned(10.0) == ()  # GPU seconds: a host that needs ten for a launch is none
    (text,) = warned(0.0)
    assert text.startswith("100% of the timed runs")


def test_everything_is_given_back(opened: Open, world: World) -> None:
    backend = opened()
    held = gpu_of(world).left()
    runnable = backend.build(residual(), {})
    now = gpu_of(world).left()
    assert now["memory"] == held["memory"] + 2 and now["graph"] == held["graph"] + 1
    runnable.close()
    runnable.close()
    assert gpu_of(world).left() == held
    backend.close()
    backend.close()
    assert gpu_of(world).left() == {}


@pytest.mark.parametrize("fault", ["memory", "upload", "wrong", "capture", "nan"])
def test_a_build_that_fails_gives_everything_back(fault: str, opened: Open, world: World) -> None:
    gpu = gpu_of(world)
    backend = opened()
    held = gpu.left()
    if fault == "memory":
        gpu.memory = 14_000
    elif fault == "upload":
        gpu.fails["cuMemcpyHtoD"] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    elif fault == "capture":
        gpu.fails["cuStreamBeginCapture"] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    else:
        world.wrong = 0.5 if fault == "wrong" else float("nan")
    with pytest.raises(OlmError):
        backend.build(residual(), {})
    gpu.fails.clear()
    assert gpu.left() == held


def test_a_wrong_engine_is_a_failure_and_never_a_fast_one(opened: Open, world: World) -> None:
    world.wrong = 0.5
    with pytest.raises(ModelError, match=r"computes something else: output 0 is off by \d+\.\d% of its largest"):
        opened().build(residual(), {})
    assert opened(check=False).build(residual(), {}).captured


def test_the_inspector_tells_of_a_silent_change_of_precision(version: str, world: World) -> None:
    library = fake_library(version, world)
    backend = TensorRTBackend(library, CudaPython(cuda_python(gpu_of(world))), BuildOptions(precision="fp16"))
    layers = backend.build(residual(), {}).layers
    assert [layer.nodes for layer in layers] == [("conv1",), ("conv2",)]
    world.secretly = "FLOAT"
    with pytest.raises(ModelError, match="did not build this model in fp16: layer 'conv1"):
        backend.build(residual(), {})
    backend.close()


def test_an_engine_that_does_not_load_says_why(version: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    library = fake_library(version, world)
    backend = TensorRTBackend(library, CudaPython(cuda_python(gpu_of(world))), BuildOptions())
    monkeypatch.setattr(library.module.Runtime, "deserialize_cuda_engine", lambda self, data: None)
    if library.capabilities:
        with pytest.raises(DeviceError, match=r"calls this engine INVALID on Made Up 1000 \(compute capability 8\.6\)"):
            backend.build(residual(), {})
    else:
        with pytest.raises(ModelError, match="cannot load the engine"):
            backend.build(residual(), {})
    backend.close()
    assert gpu_of(world).left() == {}


def test_an_engine_that_does_not_run(version: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    library = fake_library(version, world)
    backend = TensorRTBackend(library, CudaPython(cuda_python(gpu_of(world))), BuildOptions())
    monkeypatch.setattr(library.module.IExecutionContext, "execute_async_v3", lambda self, stream_handle: False)
    with pytest.raises(ModelError, match=r"cannot run this engine \(it does not say why\)"):
        backend.build(residual(), {})
    backend.close()
    assert gpu_of(world).left() == {}


def test_the_key_holds_what_a_time_depends_on(opened: Open, library: Library) -> None:
    key = opened("fp16").describe()
    assert (key.backend, key.backend_version) == (library.name, library.version)
    assert key.device == "Made Up 1000 (compute capability 8.6)" and key.driver == "CUDA 13.1"
    assert key.precision == "fp16" and key.threads == 0
    assert key.settings == "aux_streams=0 driver_api=cuda-python gate=on io=channels_last level=default"
    others = {opened(precision).describe().digest() for precision in ("fp32", "tf32", "bf16")}
    assert len(others | {key.digest()}) == 4


def _chain(count: int) -> bytes:
    net = Net()
    value = net.input("x", (1, 8, 4, 4))
    for index in range(count):
        value = net.conv(value, f"conv{index}")
    return bytes(net.proto(value).SerializeToString())


def test_slopes_and_ratios_by_the_backends_own_clock(opened: Open, world: World) -> None:
    """The protocol as it is, with nothing changed but the clock: a block costs what the GPU says."""
    world.conv_s = 2e-3
    backend = opened()
    spec = BlockSpec("key", "block", _chain, lambda count: {"x": (1, 8, 4, 4)})
    found = slopes([spec], backend, clock=backend.clock, min_rounds=6, max_rounds=6, warm_up_s=0)["key"]
    assert isinstance(found, Measurement) and found.seconds == pytest.approx(2e-3)
    three, two = backend.build(_chain(3), {}), backend.build(_chain(2), {})
    ratio = interleave(three, two, clock=backend.clock, min_rounds=6, max_rounds=6)
    assert (ratio.ratio, ratio.a_s) == (pytest.approx(1.5), pytest.approx(6e-3))


def test_no_gpu_here_is_a_device_error_and_a_gpu_here_runs(real: Library) -> None:
    try:
        backend = open_tensorrt("tensorrt-rtx", "cuda:0", "fp16")
    except DeviceError as error:
        assert "\n" not in str(error) and str(error).endswith(".")
        return
    runnable = backend.build(residual(), {})
    start = backend.clock()
    runnable.run()
    assert backend.clock().seconds > start.seconds
    runnable.close()
    backend.close()
    gc.collect()
