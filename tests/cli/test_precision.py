"""``--precision`` and ``--require-builds`` as words, and what ``olm verify`` says of its times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import onnx_layermerge
from onnx_layermerge.flow import _verify
from onnx_layermerge.latency import DeviceKey, Ratio
from onnx_layermerge.verify import End, Timing, trtexec_command

RATIO = Ratio(1.5, 1.4, 1.6, 3e-3, 2e-3, 1.5, 30, "precise")


@pytest.mark.parametrize("command", ["profile", "plan", "compress", "verify"])
def test_a_precision_that_the_backend_has_not_is_exit_code_2(command: str, model: Path, run, timings) -> None:
    words = {"compress": [model.parent / "out.onnx", "--speedup", "1.1"], "verify": [model]}.get(command, [])
    table = [] if command == "verify" else timings
    result = run(command, model, *words, "--precision", "fp16", *table)
    assert result.exit_code == 2 and "computes in fp32 on a CPU, not in fp16" in result.stderr
    assert result.stdout == "" and len(result.stderr.strip().splitlines()) == 1
    assert not (model.parent / "out.onnx").exists()
    result = run(command, model, *words, "--precision", "int4", *table)
    assert result.exit_code == 2 and "int4" in result.stderr


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_gpu_backend_that_is_not_here_is_exit_code_5(backend: str, model: Path, run) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has GPU providers")
    result = run("verify", model, model, "--backend", backend, "--device", "cuda:0", "--precision", "tf32")
    assert result.exit_code == 5 and "onnxruntime-gpu" in result.stderr


def test_doctor_names_every_backend(run) -> None:
    named = {check["name"]: check for check in json.loads(run("doctor", "--json").stdout)}
    for name in ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"):
        assert named[f"backend {name}"]["detail"]
    assert "clock" in named["gpu clocks"]["detail"].lower() or "NVML sees" in named["gpu clocks"]["detail"]


@pytest.mark.parametrize("command", ["plan", "compress"])
def test_a_missing_report_of_builds_is_an_error_before_any_work(command: str, model: Path, run, timings) -> None:
    words = [model.parent / "out.onnx", "--speedup", "1.1"] if command == "compress" else []
    result = run(command, model, *words, "--require-builds", model.parent / "none.json", *timings)
    assert result.exit_code == 1 and "none.json cannot be read" in result.stderr


def test_verify_says_what_its_times_are(model: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_verify, "measured_speedup", lambda *words, **named: (RATIO, True))
    result = run("verify", model, model, "-q")
    assert "medians of CPU time, 3.00 ms -> 2.00 ms, on onnxruntime" in result.stdout
    assert "trtexec" not in result.stdout
    timing = json.loads(run("verify", model, model, "-q", "--json").stdout)["timing"]
    assert timing["kind"] == "CPU time" and timing["a_ms"] == pytest.approx(3.0) and timing["commands"] == []


def test_verify_prints_the_commands_of_nvidias_tool(model: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    key = DeviceKey("tensorrt", "10.16", "A GPU", 0, "fp16", driver="CUDA 13.0", settings="io=channels_last")
    ends = [End("x", (1, 3, 8, 8), dynamic=True)]
    commands = [trtexec_command(f"{which}.fp16.onnx", key, ends, ()) for which in ("original", "compressed")]
    seen = {}

    def verify(original, compressed, *, gate, progress, **words):
        seen.update(words)
        timing = Timing(key.text(), "fp16", "GPU compute time", 3.0, 2.0, tuple(map(str, commands)), unwritten=True)
        return onnx_layermerge.Verdict(RATIO, None, (), timing)

    monkeypatch.setattr(onnx_layermerge, "verify", verify)
    words = ("--backend", "tensorrt", "--device", "cuda:0", "--precision", "fp16")
    result = run("verify", model, model, *words, "--save-onnx", model.parent)
    assert result.exit_code == 0 and seen["precision"] == "fp16" and seen["save_onnx"] == str(model.parent)
    assert "medians of GPU compute time, 3.00 ms -> 2.00 ms, on tensorrt 10.16 / A GPU" in result.stdout
    assert all(f"the same by {command}" in result.stdout for command in commands)
    assert "--save-onnx DIR" in result.stdout
    found = json.loads(run("verify", model, model, *words, "--json").stdout)["timing"]
    assert found["commands"] == commands and found["a_ms"] == 3.0 and found["device"] == key.text()
