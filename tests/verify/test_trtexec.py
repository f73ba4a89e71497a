"""Command lines for NVIDIA's tools: the flags of each version, and no others."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from onnx_layermerge.latency import DeviceKey
from onnx_layermerge.verify import End, kind_of_time, trtexec_command

KEY = DeviceKey(
    "tensorrt", "10.16.1", "A GPU (compute capability 8.6)", 0, "fp16", driver="CUDA 13.0",
    settings="aux_streams=0 driver_api=cuda-python io=channels_last level=default",
)  # fmt: skip
INPUTS = (End("image", (1, 3, 224, 224)),)
OUTPUTS = (End("scores", (1, 1000)),)
# Of `trtexec --help`; those from 11 on warn of the ones in the second row, and have no typed layouts.
FLAGS = {
    "--onnx", "--noTF32", "--shapes", "--maxAuxStreams", "--builderOptimizationLevel", "--warmUp", "--iterations",
    "--duration", "--device", "--inputIOFormats", "--outputIOFormats",
}  # fmt: skip
BEFORE_11 = {"--stronglyTyped", "--useCudaGraph", "--noDataTransfers", "--useSpinWait"}


def flags(command: str | None) -> dict[str, str]:
    assert command is not None
    words = shlex.split(command)[1:]
    found = dict((*word.split("=", 1), "")[:2] for word in words)
    assert len(found) == len(words), "no flag twice"
    return found


def test_version_10_has_to_be_told_what_version_11_does_anyway() -> None:
    old = flags(trtexec_command("m.onnx", KEY, INPUTS, OUTPUTS, device="cuda:2"))
    new = flags(trtexec_command("m.onnx", replace(KEY, backend_version="11.4.0"), INPUTS, OUTPUTS))
    assert set(old) - set(new) == BEFORE_11 and set(new) <= FLAGS
    assert old["--onnx"] == "m.onnx" and old["--device"] == "2" and new["--device"] == "0"
    assert old["--maxAuxStreams"] == "0" and int(old["--iterations"]) >= 100


def test_tensorrt_rtx_has_a_tool_of_its_own() -> None:
    command = trtexec_command("m.onnx", replace(KEY, backend="tensorrt-rtx", backend_version="1.7.1"), INPUTS, OUTPUTS)
    assert command is not None and command.startswith("tensorrt_rtx ") and "--stronglyTyped" not in command
    assert flags(command)["--rtxCudaGraphStrategy"] == "wholeGraph"


@pytest.mark.parametrize("backend", ["onnxruntime", "onnxruntime-tensorrt"])
def test_other_backends_have_none(backend: str) -> None:
    assert trtexec_command("m.onnx", replace(KEY, backend=backend), INPUTS, OUTPUTS) is None


def test_tf32_stays_on_where_it_was_asked_for_alone() -> None:
    on = {p: "--noTF32" in flags(trtexec_command("m", replace(KEY, precision=p), (), ())) for p in ("fp32", "tf32")}
    assert on == {"fp32": True, "tf32": False}


def test_a_range_is_said_of_all_open_inputs() -> None:
    span = ((1, 3), (4, 3), (8, 3))
    open_ends = (End("x", (4, 3), dynamic=True, span=span), End("y", (2, 5), dynamic=True), End("z", (1, 1)))
    found = flags(trtexec_command("m", KEY, open_ends, OUTPUTS))
    assert found["--shapes"] == found["--optShapes"] == "x:4x3,y:2x5"
    assert found["--minShapes"] == "x:1x3,y:2x5" and found["--maxShapes"] == "x:8x3,y:2x5"


def test_shapes_are_said_of_open_sizes_alone() -> None:
    assert "--shapes" not in flags(trtexec_command("m", KEY, INPUTS, OUTPUTS)), "trtexec refuses them for a fixed model"
    ends = (End("in:0", (2, 3, 8, 8), dynamic=True), End("fixed", (2, 4)), End("b", (2, 9), dynamic=True))
    assert flags(trtexec_command("m", KEY, ends, OUTPUTS))["--shapes"] == "'in:0':2x3x8x8,b:2x9"


def test_layouts_are_those_that_were_timed() -> None:
    ends = (End("a", (1, 16, 8, 8)), End("b", (1, 3, 8, 8)))
    found = flags(trtexec_command("m", KEY, ends, OUTPUTS))
    assert found["--inputIOFormats"] == "fp16:hwc8,fp16:chw" and "--outputIOFormats" not in found
    full = flags(trtexec_command("m", replace(KEY, precision="tf32"), INPUTS, ends[:1]))
    assert full["--outputIOFormats"] == "fp32:hwc"
    newer = replace(KEY, backend_version="11.0")
    assert flags(trtexec_command("m", newer, (End("v", (1, 8, 4, 4, 4)),), OUTPUTS))["--inputIOFormats"] == "dhwc8"
    linear = replace(KEY, settings=KEY.settings.replace("channels_last", "linear"))
    assert "--inputIOFormats" not in flags(trtexec_command("m", linear, ends, OUTPUTS))


def test_a_level_and_a_path_with_a_space_survive_the_shell() -> None:
    command = trtexec_command("my models/m.onnx", replace(KEY, settings="level=4"), INPUTS, OUTPUTS)
    assert flags(command)["--onnx"] == "my models/m.onnx" and flags(command)["--builderOptimizationLevel"] == "4"


def test_each_kind_of_time_has_its_name() -> None:
    wall = replace(KEY, backend="onnxruntime-cuda", settings="clock=wall-synchronized cuda_graph=where-possible")
    kinds = [kind_of_time(key) for key in (replace(KEY, threads=1), KEY, wall)]
    assert kinds == ["CPU time", "GPU compute time", "wall time of synchronized runs on the GPU"]
