"""What one run of the GPU check answers for: its own entries, its own GPU, its own models."""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnx_layermerge.errors import DeviceError
from onnx_layermerge.latency.backends._cuda import CudaPython
from onnx_layermerge.latency.backends.tensorrt import BuildOptions, TensorRTBackend
from onnx_layermerge.latency.backends.tensorrt._library import library_of
from tests.latency import fake_nvml
from tests.latency.fake_cuda import Gpu, cuda_python
from tests.latency.tensorrt.fake import VERSIONS, World, fake

FOLDER = Path(__file__).parents[2] / "benchmarks"
CARD = "A GPU, compute capability 8.6, CUDA 13.0"
Check = Callable[..., int]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The check on a made-up GPU whose two timings are clean; `opens` is what the part backends would find."""
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("gpu_check")
    clean = {**script.failed(""), "missed": [], "ok": True}
    monkeypatch.setattr(script, "gpus", lambda: 1)
    monkeypatch.setattr(script, "card", lambda device: CARD)
    monkeypatch.setattr(script.Part, "repeat", lambda part, backend: (clean, {}))
    monkeypatch.setattr(script.Part, "backends", lambda part: {"opens": {"tensorrt": {"fp16": "", "fp32": "no"}}})
    return script


@pytest.fixture
def check(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    def check(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(tmp_path), *words])
        return int(script.main())

    return check


def written(folder: Path, name: str = "gpu_check.json") -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", ["repeat", "additivity", "flow"])
def test_a_part_that_finds_no_backend_is_missed(
    part: str, check: Check, script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = script.Record(tmp_path, False, CARD)
    earlier.put(part, "tensorrt, fp16", {**script.failed(""), "missed": [], "ok": True}, {})
    assert check("--only", part, "--precision", "fp32") == 1
    said = capsys.readouterr().out
    assert f"missed: {part} any backend, fp32: did not run: no backend opens here in fp32" in said
    assert "all bounds kept" not in said
    assert written(tmp_path)["parts"][part]["any backend, fp32"]["ok"] is False
    assert f"## {part}: any backend, fp32" in (tmp_path / "gpu_check.md").read_text(encoding="utf-8")


def test_a_part_that_did_not_run_is_forgotten_once_it_does(check: Check, tmp_path: Path) -> None:
    assert check("--only", "repeat", "--precision", "fp32") == 1
    assert check("--only", "repeat", "--precision", "fp32", "--backend", "tensorrt") == 0
    assert set(written(tmp_path)["parts"]["repeat"]) == {"tensorrt, fp32"}


def test_only_this_run_is_judged(check: Check, script: Any, tmp_path: Path) -> None:
    earlier = script.Record(tmp_path, False, CARD)
    earlier.put("repeat", "onnxruntime-cuda, fp16", script.failed("interval ±2 %"), {})
    assert earlier.missed(["repeat"]) == [("repeat", "onnxruntime-cuda, fp16", "interval ±2 %")]
    assert check("--only", "repeat") == 0
    assert set(written(tmp_path)["parts"]["repeat"]) == {"onnxruntime-cuda, fp16", "tensorrt, fp16"}


@pytest.mark.parametrize("words", [
    ("--precision", "bf16"), ("--shapes", "0"), ("--model", "absent.onnx"),
    ("--device", "cpu", "--precision", "fp16"), ("--device", "cpu", "--backend", "tensorrt"),
])  # fmt: skip
def test_what_is_not_checked_is_refused(words: tuple[str, ...], check: Check, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        check(*words)
    assert ended.value.code == 2 and not list(tmp_path.iterdir())


def test_another_gpu_begins_a_record_of_its_own(
    check: Check, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script.Record(tmp_path, False, CARD).put("repeat", "tensorrt-rtx, fp16", script.failed("old"), {"b": [1.0]})
    for at, name in enumerate(["Another", "A third"]):
        monkeypatch.setattr(script, "card", lambda device, name=name: name)
        assert check("--only", "repeat") == 0
        record = written(tmp_path)
        assert record["device"] == name and set(record["parts"]["repeat"]) == {"tensorrt, fp16"}
        assert f"This is {name}; the record of {[CARD, 'Another'][at]} stays as" in capsys.readouterr().out
    assert written(tmp_path, "gpu_check.old.json")["parts"]["repeat"]["tensorrt-rtx, fp16"]["missed"] == ["old"]
    assert written(tmp_path, "gpu_check.old2.json")["device"] == "Another"
    assert {path.name for path in tmp_path.glob("*.old.*")} == {
        f"gpu_check.old.{end}" for end in ("json", "md", "samples.json.gz")
    }


class Libcuda:
    """The driver's own library with one GPU."""

    def __init__(self, fails: str = "") -> None:
        self._fails = fails

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*words: Any) -> int:
            if name == self._fails or (name == "cuDeviceGet" and words[1] != 0):
                return 101
            if name == "cuDeviceGetName":
                words[0].value = b"A GPU"
            elif name not in ("cuInit", "cuDeviceGet"):
                told = {"cuDeviceGetCount": 1, "cuDriverGetVersion": 13000}
                words[0]._obj.value = told[name] if name in told else {75: 8, 76: 6}[words[1]]
            return 0

        return call


def test_the_driver_names_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("gpu_check")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libcuda())
    assert script.gpus() == 1 and script.card("cuda:0") == CARD
    assert script.card("cuda:1") == script.card("gpu") == ""
    for name in ("cuInit", "cuDeviceGetName", "cuDeviceGetAttribute", "cuDriverGetVersion"):
        monkeypatch.setattr(ctypes, "CDLL", lambda _, name=name: Libcuda(name))
        assert script.card("cuda:0") == ""


def test_a_gpu_that_is_not_there_is_no_record(
    check: Check, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "card", lambda device: "")
    assert check("--only", "repeat", "--device", "cuda:7") == 5 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [4, None])
def test_only_a_model_of_this_compress_is_verified(
    code: int | None, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, begun = importlib.import_module("gpu_steps.flow"), []
    (tmp_path / "m.onnx").touch()
    stale = tmp_path / "m-tensorrt-fp16.onnx"
    stale.write_bytes(b"of an earlier run")
    limits: dict[str, float] = {}

    def run(command: list[str], limit_s: float) -> tuple[int | None, str, str]:
        step = command[command.index("olm") + 1]
        begun.append((step, stale.exists()))
        limits[step] = limit_s
        if step == "compress" and code is None:
            stale.write_bytes(b"half")
        return (code if step == "compress" else 0), "{}", ""

    monkeypatch.setattr(flow, "run", run)
    monkeypatch.setattr(flow, "calibration", lambda model, folder: folder / "c.npz")
    steps = flow.whole_flow(str(tmp_path / "m.onnx"), "tensorrt", "cuda:0", "fp16", tmp_path, 540.0)
    assert begun == [("profile", False), ("compress", False)]
    assert [step["code"] for step in steps] == [0, code, None] and steps[2]["said"] == "not begun: no model"
    # What the profile did not use is for compress, but for the time that verify needs.
    assert limits["profile"] == flow.LIMITS["profile"]
    assert limits["compress"] == pytest.approx(540.0 - flow.LIMITS["verify"], abs=10)
    page = importlib.import_module("gpu_steps.page").render({
        "title": "t", "date": "2026-01-01", "device": "d", "parts": {"flow": {"m": script.judge.flow(steps)}},
    })  # fmt: skip
    assert "| verify | not begun | 0 | not begun: no model |" in page


def test_a_backend_gives_nvml_back_with_every_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, instruments = Gpu(), fake_nvml.Instruments()
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml.pynvml(instruments))
    facts = types.SimpleNamespace(name="A", capability="8.6", driver="CUDA 13.0", l2_bytes=0, bus=instruments.bus)
    driver = CudaPython(cuda_python(gpu))
    monkeypatch.setattr(driver, "facts", lambda: facts)
    version = VERSIONS[0]
    library = library_of("tensorrt-rtx" if "rtx" in version else "tensorrt", fake(version, World(gpu)))
    backend = TensorRTBackend(library, driver, BuildOptions())
    first, second = backend.watch(), backend.watch()
    for watch in (first, second):
        assert not watch.missing
        watch.look(now=True)
    assert instruments.open == 2
    first.close()
    first.close()
    assert instruments.open == 1
    backend.close()
    assert instruments.open == 0
    second.look(now=True)
    assert len(second.looks) == 1, "NVML was given back: there is nothing to read"


def test_a_job_that_fails_closes_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    jobs, closed = importlib.import_module("gpu_steps.jobs"), []

    def lost(*words: Any, **options: Any) -> Any:
        raise DeviceError("The GPU is lost.")

    backend = types.SimpleNamespace(close=lambda: closed.append(True))
    monkeypatch.setattr(jobs, "open_backend", lambda *words: backend)
    monkeypatch.setattr(jobs, "slopes", lost)
    with pytest.raises(DeviceError):
        jobs.repeat({"backend": "b", "device": "cuda:0", "precision": "fp16", "shapes": 1})
    assert closed == [True]
