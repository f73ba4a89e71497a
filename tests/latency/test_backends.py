"""The real backend on a tiny model: structure and numbers, no times."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_layermerge.errors import DeviceError, ModelError
from onnx_layermerge.latency import (
    BlockSpec,
    DeviceKey,
    Measurement,
    available_backends,
    interleave,
    measure,
    open_backend,
    slopes,
)
from onnx_layermerge.latency.backends import preset_input
from onnx_layermerge.latency.backends._cpu import cpu_name, describe_cpuinfo


def conv_model(copies: int = 1, batch: int | str = 1, channels: int = 8) -> bytes:
    rng = np.random.default_rng(copies)
    weights = [
        numpy_helper.from_array(
            rng.standard_normal((channels, channels, 3, 3)).astype(np.float32) / 8, f"w{i}"
        )
        for i in range(copies)
    ]
    nodes = [
        helper.make_node("Conv", [f"t{i}", f"w{i}"], [f"t{i + 1}"], pads=[1, 1, 1, 1]) for i in range(copies)
    ]
    shape = [batch, channels, 12, 12]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("t0", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"t{copies}", onnx.TensorProto.FLOAT, shape)],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def test_outputs_are_those_of_the_reference_evaluator() -> None:
    runnable = open_backend().build(conv_model(2), {})
    x = preset_input((1, 8, 12, 12), np.float32, 3)
    (expected,) = ReferenceEvaluator(onnx.load_from_string(conv_model(2))).run(None, {"t0": x})
    (got,) = runnable.outputs({"t0": x})
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    runnable.run()
    (again,) = runnable.outputs({"t0": x})
    np.testing.assert_array_equal(again, got)
    runnable.close()
    runnable.close()


def test_a_dynamic_batch_needs_a_shape_and_takes_it() -> None:
    backend = open_backend()
    with pytest.raises(ModelError, match=r"'t0' has the dynamic shape.*--shapes"):
        backend.build(conv_model(batch="N"), {})
    runnable = backend.build(conv_model(batch="N"), {"t0": (3, 8, 12, 12)})
    runnable.run()
    assert runnable.outputs({"t0": np.ones((2, 8, 12, 12), np.float32)})[0].shape == (2, 8, 12, 12)


@pytest.mark.parametrize(
    ("model", "shapes", "words"),
    [
        (b"", {}, "onnxruntime cannot build"),
        (b"not a model", {}, "onnxruntime cannot build"),
        (conv_model(), {"t0": (1, 7, 12, 12)}, "onnxruntime cannot build"),
        (conv_model(), {"other": (1, 8, 12, 12)}, "no input 'other'; its inputs are: t0"),
    ],
)
def test_what_cannot_be_built_is_a_sentence(model, shapes, words) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        open_backend().build(model, shapes)
    assert "\n" not in str(caught.value)


def test_wrong_feeds_are_a_sentence() -> None:
    runnable = open_backend().build(conv_model(), {})
    for feeds in ({"t0": np.zeros((1, 8, 12, 12))}, {"nothing": np.zeros(1, np.float32)}, {}):
        with pytest.raises(ModelError, match="onnxruntime cannot run"):
            runnable.outputs(feeds)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8, np.bool_])
def test_preset_inputs_hold_no_zero_and_repeat(dtype) -> None:
    x = preset_input((4, 5), dtype, 7)
    assert x.dtype == dtype and np.all(x != 0)
    np.testing.assert_array_equal(x, preset_input((4, 5), dtype, 7))
    if np.dtype(dtype).kind == "f":
        assert np.abs(x).min() >= 0.099 and (x < 0).any() and (x > 0).any()
        assert not np.array_equal(x, preset_input((4, 5), dtype, 8))


def test_protocol_runs_on_the_real_backend() -> None:
    backend = open_backend("onnxruntime", "cpu")
    block = BlockSpec("k", "conv", lambda copies: conv_model(copies, channels=32), lambda _: {})
    value = slopes([block], backend, cap_s=0.3)["k"]
    assert isinstance(value, Measurement) and value.seconds > 0 and value.wall_s > 0
    one, three = (backend.build(conv_model(copies, channels=32), {}) for copies in (1, 3))
    result = interleave(three, one, cap_s=0.5, max_rounds=60)
    assert result.low <= result.ratio <= result.high
    assert result.ratio > 1.2, "three convolutions take longer than one"
    assert measure(one, cap_s=0.2).seconds > 0


def test_device_key_tells_places_apart() -> None:
    key = open_backend().describe()
    assert key == open_backend().describe()
    assert key.backend == "onnxruntime" and key.threads == 1 and key.device == cpu_name()
    assert key.device in key.text() and "\n" not in key.text()
    changes = [
        {field.name: 9 if isinstance(getattr(key, field.name), int) else "other"}
        for field in dataclasses.fields(DeviceKey)
    ]
    digests = {dataclasses.replace(key, **change).digest() for change in changes}
    assert len(digests | {key.digest()}) == len(changes) + 1
    # Pinned: another value would orphan every table in the field.
    assert DeviceKey("onnxruntime", "1", "cpu", 1, "fp32", 1).digest() == "5b4dba7747ec6801"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (
            "vendor_id : AuthenticAMD\ncpu family : 25\nmodel\t: 17\nmodel name : AMD  EPYC\nstepping : 1\n"
            "flags : sse4_2 avx avx2 avx512f\n\nmodel name : another",
            "AMD EPYC (family 25, model 17, stepping 1, avx512)",
        ),
        ("model name : Old\nflags : sse sse4_2 avx\n", "Old (avx)"),
        (
            "Features : fp asimd asimddp sve\nCPU implementer : 0x41\nCPU variant : 0x1\nCPU part : 0xd40\n",
            "fallback (implementer 0x41, part 0xd40, variant 0x1, sve)",
        ),
        ("", "fallback"),
        ("garbage", "fallback"),
    ],
)
def test_cpu_is_named_by_more_than_its_marketing_name(cpuinfo, expected) -> None:
    assert describe_cpuinfo(cpuinfo, "fallback") == expected


@pytest.mark.parametrize(
    ("name", "device", "words"),
    [
        ("onnxruntime", "cuda:0", "for 'cuda:0' say --backend onnxruntime-cuda or onnxruntime-tensorrt"),
        ("onnxruntime", "tpu", "no device 'tpu'"),
        ("torch", "cpu", "no backend 'torch'"),
    ],
)
def test_backends_and_devices_not_here_say_what_is(name, device, words) -> None:
    with pytest.raises(DeviceError, match=words + ".*use --backend onnxruntime --device cpu") as caught:
        open_backend(name, device)
    assert caught.value.exit_code == 5


def test_doctor_lists_every_backend_with_a_reason() -> None:
    lines = {x.name: x for x in available_backends()}
    assert lines["onnxruntime"].usable and cpu_name() in lines["onnxruntime"].detail
    # Usable where there is a GPU; else the one reason why not.
    for name in ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"):
        assert lines[name].usable or lines[name].detail.endswith((".", "index)."))


def test_a_broken_onnxruntime_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "onnx_layermerge.latency.backends._onnxruntime", raising=False)
    with pytest.raises(DeviceError, match="pip install onnxruntime"):
        open_backend()
    assert not available_backends()[0].usable


def test_importing_the_room_imports_no_vendor_library() -> None:
    code = "import sys, onnx_layermerge.latency; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
