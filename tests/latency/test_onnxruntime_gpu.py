"""The GPU providers of onnxruntime on a fake of it, whose calls are held against the signatures of the real one."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_layermerge.errors import DeviceError, ModelError, UsageError
from onnx_layermerge.latency import BlockSpec, Failure, Measurement, available_backends, open_backend, slopes
from onnx_layermerge.latency.backends import _onnxruntime_gpu, _providers
from onnx_layermerge.latency.backends._cuda import CudaPython
from onnx_layermerge.latency.backends.tensorrt import cast
from tests.latency.fake_cuda import Gpu, cuda_python
from tests.latency.fake_onnxruntime import Session, World, module
from tests.zoo import Net

NAMES = ("onnxruntime-cuda", "onnxruntime-tensorrt")


def net(batch: int | str = 1, copies: int = 1) -> bytes:
    """Convolutions between two Relus."""
    made = Net()
    value = made.input("x", (batch, 8, 12, 12))  # type: ignore[arg-type]
    for index in range(copies):
        value = made.relu(made.conv(value, f"conv{index}"), f"relu{index}")
    return made.proto(value).SerializeToString()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def gpu(world: World, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A machine with one GPU, its driver, and this onnxruntime."""
    gpu, loaded, real = Gpu(), module(world), importlib.import_module
    fake = lambda name: loaded if name == "onnxruntime" else real(name)  # noqa: E731
    monkeypatch.setattr(_providers.importlib, "import_module", fake)
    monkeypatch.setattr(_onnxruntime_gpu, "open_driver", lambda device: CudaPython(cuda_python(gpu), 0))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    return gpu


def opened(name: str = NAMES[0], precision: str = "fp32") -> Any:
    return open_backend(name, "cuda:0", precision)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
def test_it_computes_what_the_cpu_does_and_keeps_its_presets(gpu, world: World, name: str, precision: str) -> None:
    model = net(copies=2)
    runnable = opened(name, precision).build(model, {})
    assert runnable.recorded and world.sessions[-1].binding.waited == world.sessions[-1].runs
    x = np.random.default_rng(0).standard_normal((1, 8, 12, 12)).astype(np.float32)
    presets = runnable.inputs()
    (got,) = runnable.outputs({"x": x})
    (want,) = open_backend().build(model, {}).outputs({"x": x})
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-2 if precision == "fp16" else 1e-5)
    np.testing.assert_array_equal(world.sessions[-1].binding.inputs["x"].array, presets["x"])
    types = {weight.data_type for weight in onnx.load_from_string(world.sessions[-1].data).graph.initializer}
    assert types == {onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.FLOAT}
    with pytest.raises(ModelError, match="'x' takes the shape"):
        runnable.outputs({"x": x[:, :4]})
    runnable.close()
    runnable.close()


def test_what_is_asked_of_each_provider(gpu, world: World) -> None:
    for name, precision in ((NAMES[0], "fp32"), (NAMES[0], "tf32"), (NAMES[0], "fp16"), (NAMES[1], "fp16")):
        opened(name, precision).build(net(), {})
    asked = [session.options for session in world.sessions[1::2]]
    assert [options.get("use_tf32") for options in asked] == ["0", "1", "0", None]
    assert all(options["enable_cuda_graph"] == "1" for options in asked[:3])
    assert asked[3]["trt_cuda_graph_enable"] == "True" and asked[3]["trt_auxiliary_streams"] == "0"
    assert asked[3]["trt_fp16_enable"] == "False", "its own switch would leave the types to TensorRT"
    for session in world.sessions:
        assert session.fallback == 0 and session.entries["session.disable_cpu_ep_fallback"] == "1"


def test_keys_are_told_apart_and_hold_what_changes_a_time(gpu) -> None:
    keys = [opened(name, precision).describe() for name in NAMES for precision in ("fp32", "tf32", "fp16")]
    assert len({key.digest() for key in keys}) == 6
    for key in keys:
        assert key.threads == 0 and key.backend_version == "1.99.0" and key.driver.startswith("CUDA 13")
        assert key.device == "Made Up 1000 (compute capability 8.6)" and "clock=wall-synchronized" in key.settings
    assert not gpu.left(), "the driver was only asked"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"falls_back": True}, "could not be loaded; onnxruntime took CPUExecutionProvider"),
        ({"on_cpu": ("up",)}, "left Resize 'up' to CPUExecutionProvider"),
        ({"on_cpu": ("up", "down")}, "and 1 other nodes"),
        ({"on_cpu": ("up",), "tells_nodes": False}, "assigned to the default CPU EP"),
        ({"factor": 1.01}, "computes something else: output 0 is off by 1.0%"),
        ({"factor": float("nan")}, "computes something else"),
        ({"fails_at": 4}, "cannot run this model \\(CUDA failure 700.*encountered\\); update onnxruntime-gpu\\.$"),
    ],
)
def test_what_the_gpu_did_not_compute_is_a_failed_entry_and_no_number(
    gpu, world: World, change: dict[str, Any], words: str
) -> None:
    backend = opened()
    for name, value in change.items():
        setattr(world, name, value)
    # Four runs are those of one build: the fault comes where it is timed.
    if "fails_at" not in change:
        with pytest.raises(ModelError, match=words):
            backend.build(net(), {})
    block = BlockSpec("key", "block", lambda copies: net(copies=copies), lambda _: {})
    (value,) = slopes([block], backend, clock=backend.clock, cap_s=0.2).values()
    assert isinstance(value, Failure) and re.search(words, value.reason)


def test_a_provider_that_only_claims_to_be_there_is_not_opened(gpu, world: World) -> None:
    world.falls_back = True
    with pytest.raises(DeviceError, match=r"1\.99\.0, Made Up 1000: .*could not be loaded") as caught:
        opened()
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_recorded_runs_without_a_graph(gpu, world: World, name: str) -> None:
    world.graphs = False
    runnable = opened(name).build(net(), {})
    assert not runnable.recorded and runnable.outputs(runnable.inputs())[0].shape == (1, 8, 12, 12)


def test_blocks_are_timed_by_the_wall(gpu) -> None:
    backend = opened()
    block = BlockSpec("key", "block", lambda copies: net(copies=8 * copies), lambda _: {})
    (value,) = slopes([block], backend, clock=backend.clock, cap_s=0.3).values()
    assert isinstance(value, Measurement) and value.wall_s == value.seconds > 0


def test_open_sizes_are_fixed_in_what_the_provider_gets(gpu, world: World) -> None:
    opened().build(net(batch="N"), {"x": (3, 8, 12, 12)})
    (declared,) = onnx.load_from_string(world.sessions[-1].data).graph.input
    assert [dim.dim_value for dim in declared.type.tensor_type.shape.dim] == [3, 8, 12, 12]
    with pytest.raises(ModelError, match="--shapes"):
        opened().build(net(batch="N"), {})


def test_weights_in_another_type_are_not_timed_under_this_precision(gpu) -> None:
    model = cast(net(), "fp16")
    with pytest.raises(ModelError, match="weights in fp16 and is not cast to fp32"):
        opened().build(model, {})
    assert opened(precision="fp16").build(model, {}).inputs()["x"].dtype == np.float16


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [
        ("onnxruntime-cuda", "bf16", "not in bf16; use --backend tensorrt"),
        ("onnxruntime-tensorrt", "bf16", "not in bf16"),
        ("onnxruntime-cuda", "int8", "not in int8"),
        ("onnxruntime-tensorrt", "fp32", "--precision tf32, or set NVIDIA_TF32_OVERRIDE=0"),
    ],
)
def test_precisions_that_a_provider_has_not(gpu, monkeypatch, name: str, precision: str, words: str) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    with pytest.raises(UsageError, match=words):
        opened(name, precision)
    opened(name, "tf32")


@pytest.mark.parametrize(
    ("precision", "words"),
    [("fp16", "computes in fp32 on a CPU, not in fp16"), ("int8", "--precision int8 is unknown")],
)
def test_the_cpu_computes_in_fp32_alone(precision: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        open_backend("onnxruntime", "cpu", precision)
    assert caught.value.exit_code == 2


def test_doctor_names_device_and_library_or_the_reason(gpu, world: World, monkeypatch) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    lines = {line.name: line for line in available_backends()}
    for name in NAMES:
        assert lines[name].usable and "Made Up 1000 (compute capability 8.6)" in lines[name].detail
        assert "1.99.0" in lines[name].detail and "driver CUDA 13" in lines[name].detail
        assert lines[name].detail.endswith("fp32, tf32, fp16")
    world.available = ("CPUExecutionProvider",)
    for name in NAMES:
        line = _onnxruntime_gpu.status(name)
        assert not line.usable and "installed without" in line.detail and "pip install onnxruntime-gpu" in line.detail


def test_a_cpu_is_no_place_for_it(gpu, capsys) -> None:
    with pytest.raises(DeviceError, match="say --device cuda:0"):
        open_backend("onnxruntime-cuda", "cpu")
    opened()
    assert capsys.readouterr().out == "", "what a library prints is no result"


def _accepts(function: Callable[..., Any], *words: Any, **named: Any) -> None:
    inspect.signature(function).bind(*words, **named)


def test_the_real_module_takes_the_same_calls() -> None:
    """Names and arguments, as far as they are Python; the providers' options are known to the compiled part alone."""
    values, x = onnxruntime.OrtValue, np.zeros(1)
    _accepts(values.ortvalue_from_numpy, x, "cuda", 0)
    _accepts(values.ortvalue_from_shape_and_type, [1], np.float16, "cuda", 0)
    _accepts(values.update_inplace, None, x)
    _accepts(values.numpy, None)
    _accepts(onnxruntime.IOBinding.bind_ortvalue_input, None, "x", None)
    _accepts(onnxruntime.IOBinding.bind_ortvalue_output, None, "y", None)
    _accepts(onnxruntime.IOBinding.synchronize_outputs, None)
    _accepts(onnxruntime.InferenceSession, b"", None, providers=[("a", {})], enable_fallback=0)
    for name in ("run_with_iobinding", "get_providers", "get_inputs", "get_outputs", "io_binding"):
        words = [None] * (2 if name == "run_with_iobinding" else 1)
        _accepts(getattr(onnxruntime.InferenceSession, name), *words)
        _accepts(getattr(Session, name), *words)


def test_the_real_module_refuses_what_it_would_compute_on_the_cpu(monkeypatch) -> None:
    """No GPU here: without the option this session would exist, on the CPU."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the provider")
    facts = CudaPython(cuda_python(Gpu()), 0).facts()
    backend = _onnxruntime_gpu.OnnxRuntimeGpuBackend(onnxruntime, "onnxruntime-cuda", facts, 0, "fp32")
    with pytest.warns(UserWarning, match="not in available provider names"), pytest.raises(DeviceError) as caught:
        backend.probe()
    assert "fallback to CPU EP has been explicitly disabled" in str(caught.value)
