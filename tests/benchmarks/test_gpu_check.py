"""The GPU check where there is no GPU: its bounds, its tables, its record, and what it says then."""

from __future__ import annotations

import gzip
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnx_layermerge.latency.backends import open_backend

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: importlib.import_module(name)


def timed(block: str, seconds: float, half_width_s: float = 0.0) -> dict[str, Any]:
    return {"block": block, "seconds": seconds, "half_width_s": half_width_s, "n": 30, "cold_s": None}


@pytest.mark.parametrize(
    ("first", "second", "missed"),
    [
        (timed("a", 1.0, 0.0099), timed("a", 1.0199), []),
        (timed("a", 1.0), timed("a", 1.021), ["+2.10% in the second process"]),
        (timed("a", 1.0), timed("a", 0.979, 0.011), ["interval ±1.12%", "-2.10% in the second process"]),
        (timed("a", 1.0), {"block": "a", "failure": "no kernel"}, ["no kernel"]),
        (timed("a", 1.0), timed("b", 1.0), ["was not timed in the second process"]),
        (timed("a", 0.0), timed("a", 0.0), ["interval ±100.00%", "+100.00% in the second process"]),
    ],
)
def test_a_repeated_timing(first: Any, second: Any, missed: list[str], steps: Any) -> None:
    found = steps("gpu_steps.judge").repeat([first], [second])
    assert found["missed"] == [f"a: {text}" for text in missed] and found["ok"] is not bool(missed)


def test_nothing_timed_keeps_no_bound(steps: Any) -> None:
    judge = steps("gpu_steps.judge")
    for found in (judge.repeat([], []), judge.additivity([], 8), judge.flow([])):
        assert not found["ok"] and found["missed"]
    assert not judge.backends({"a": {"fp32": "no driver"}})["ok"] and judge.backends({"a": {"fp32": ""}})["ok"]


@pytest.mark.parametrize(("chain_s", "ok"), [(8.39, True), (7.61, True), (8.41, False), (7.59, False)])
def test_chains_add_up(chain_s: float, ok: bool, steps: Any) -> None:
    found = steps("gpu_steps.judge").additivity([{"block": "a", "one_s": 1.0, "chain_s": chain_s}], 8)
    assert found["ok"] is ok and found["rows"][0]["off"] == pytest.approx(chain_s / 8 - 1)


def test_one_driver_without_a_failure_is_enough(steps: Any) -> None:
    def judged(first: tuple[int, int], second: tuple[int, int]) -> bool:
        cases = {name: {"passed": p, "failed": f, "skipped": ""} for name, (p, f) in {"a": first, "b": second}.items()}
        return bool(steps("gpu_steps.judge").drivers(cases)["ok"])

    assert judged((5, 0), (0, 0)) and not judged((0, 0), (0, 0)) and not judged((5, 0), (4, 1))


def test_a_chain_is_its_blocks_in_series_with_weights_of_their_own(steps: Any) -> None:
    shapes = steps("gpu_steps.shapes")
    assert len(shapes.SHAPES) == 20 and len({shape.label() for shape in shapes.SHAPES}) == 20
    shape = shapes.Shape(4, 4, 3, 6, groups=2)
    spec = shapes.chain_spec(shape, 3)
    model = onnx.load_from_string(spec.build(2))
    onnx.checker.check_model(model, full_check=True)
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.dims[1:]]
    assert len(weights) == 6 and len({weight.tobytes() for weight in weights}) == 6
    feeds = {name: np.ones(dims, np.float32) for name, dims in spec.shapes(2).items()}
    expected = ReferenceEvaluator(model).run(None, feeds)
    runnable = open_backend().build(spec.build(2), spec.shapes(2))
    for want, got in zip(expected, runnable.outputs(feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    assert [shapes.chainable(each) for each in (shape, shape._replace(stride=2), shape._replace(outs=8))] == [
        True, False, False
    ]  # fmt: skip


def test_the_record_keeps_what_was_run_before(tmp_path: Path, steps: Any) -> None:
    script = steps("gpu_check")
    first = script.Record(tmp_path, False, "a GPU")
    look = {"sm_mhz": 1980, "memory_mhz": 2619, "temperature_c": 40, "power_w": 100.5, "reasons": ["power cap"]}
    about = {"key": "k", "clocks": [look, look], "clocks_missing": "", "warnings": ["The clock moved."]}
    judged = script.judge.repeat([timed("b | c", 1e-5)], [timed("b | c", 1.1e-5)])
    first.put("repeat", "tensorrt, fp16", {**about, **judged}, {"b | c": [1.0, 2.0]})
    second = script.Record(tmp_path, False, "a GPU")
    step = {"step": "profile", "code": None, "seconds": 3, "said": "ended"}
    second.put("flow", "m, b, fp16", script.judge.flow([step]), {})
    page = (tmp_path / "gpu_check.md").read_text(encoding="utf-8")
    assert "| b / c | 10.0 | 11.0 | ±0.00% | +10.00% | – |" in page and "slowed by: power cap" in page
    assert "- warning: The clock moved." in page and "| profile | limit | 3 | ended |" in page
    samples = json.loads(gzip.decompress((tmp_path / "gpu_check.samples.json.gz").read_bytes()))
    assert samples == {"repeat: tensorrt, fp16": {"b | c": [1.0, 2.0]}}
    assert second.missed(("flow",)) == [("flow", "m, b, fp16", "profile: ended")]
    assert second.missed(("additivity",))[1:] == [("additivity", "", "did not run on any backend")]


def test_commands_have_a_limit_and_last_words(steps: Any) -> None:
    flow = steps("gpu_steps.flow")
    assert flow.run([sys.executable, "-c", "import time; time.sleep(60)"], 0.5) == (None, "", "ended after 0 s")
    code = "import sys; print('out'); sys.stderr.write('one\\ntwo\\n'); sys.exit(3)"
    assert flow.run([sys.executable, "-c", code], 60) == (3, "out\n", "two")


def test_the_whole_flow_goes_on_after_a_step_that_fails(
    tmp_path: Path, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, seen = steps("gpu_steps.flow"), []

    def run(command: list[str], limit_s: float) -> tuple[int | None, str, str]:
        seen.append(command)
        step = command[command.index("olm") + 1]
        if step == "profile":
            return 3, "", f"error: {tmp_path}/m.onnx: no block was timed."
        if step == "compress":
            Path(command[command.index("compress") + 2]).write_bytes(b"new")
        return 0, json.dumps({"base_ms": {f"{flow.ROOT}/models/m.onnx": 1.5}, "rows": [1, 2]}), ""

    monkeypatch.setattr(flow, "run", run)
    monkeypatch.setattr(flow, "MODELS", {"m": tmp_path / "in.onnx", "absent": tmp_path / "absent.onnx"})
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [value], [value])), tmp_path / "in.onnx")
    found = flow.whole_flow("m", "tensorrt", "cuda:0", "fp16", tmp_path, 500.0)
    assert [(step["step"], step["code"]) for step in found] == [("profile", 3), ("compress", 0), ("verify", 0)]
    assert found[1]["found"] == {"base_ms": {"models/m.onnx": 1.5}}
    assert found[0]["said"] == "error: m.onnx: no block was timed."
    assert np.load(tmp_path / "m-random.npz")["x"].shape == (flow.SAMPLES, 3, 8, 8)
    assert all(command[command.index("--precision") + 1] == "fp16" for command in seen)
    short = flow.whole_flow("m", "tensorrt", "cuda:0", "fp16", tmp_path, 10.0)
    late, none = "not begun: the time was used up", "not begun: no model"
    assert len(seen) == 3 and [step["said"] for step in short] == [late, late, none]
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    for each in (elsewhere, out):
        each.mkdir()
    onnx.save(onnx.load(tmp_path / "in.onnx"), elsewhere / "in.onnx")
    answers = [(None, "", "ended after 9 s"), (0, json.dumps({"base_ms": {f"{elsewhere}/in.onnx": 1.5}}), "")]
    monkeypatch.setattr(flow, "run", lambda command, limit_s: answers.pop(0))
    late, found, _ = flow.whole_flow(str(elsewhere / "in.onnx"), "tensorrt", "cuda:0", "fp16", out, 500.0)
    assert late["said"].startswith("ended after 9 s; its table keeps")
    assert found["found"] == {"base_ms": {"in.onnx": 1.5}}
    (absent,) = flow.whole_flow("absent", "tensorrt", "cuda:0", "fp16", tmp_path, 500.0)
    assert absent["code"] is None and absent["said"].startswith("absent.onnx is not there")


def test_without_a_gpu_it_says_so_and_exits_with_5(tmp_path: Path, steps: Any) -> None:
    if steps("gpu_check").gpus():
        pytest.skip("there is a GPU here")
    command = [sys.executable, str(FOLDER / "gpu_check.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 5 and done.stdout.startswith("No NVIDIA GPU is visible here") and not done.stderr
    assert not list(tmp_path.iterdir())
