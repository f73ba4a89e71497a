"""Every command on a tiny network: exit code, what stands on which stream, and the keys of the JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import Result

import onnx_layermerge
from olm.frontier import spread
from onnx_layermerge import FrontierPoint
from onnx_layermerge.latency import Ratio
from onnx_layermerge.report import from_json, render_html, render_markdown

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"


@dataclasses.dataclass(frozen=True)
class Compressed:
    """One compression that all tests look at, and the folder it left behind."""

    result: Result
    input: Path
    output: Path
    report: Path
    page: Path
    summary: Path
    digest_before: str


@pytest.fixture(scope="module")
def compressed(tmp_path_factory, tiny_bytes, store, timings, run) -> Compressed:
    folder = tmp_path_factory.mktemp("compressed")
    source = folder / "in.onnx"
    source.write_bytes(tiny_bytes)
    output, report = folder / "out.onnx", folder / "report.json"
    page, summary = folder / "report.html", folder / "report.md"
    result = run(
        "compress", source, output, "--speedup", 1.05, "--calib", store / "calib.npz", "--samples", 32,
        "--rivals", 2, "--report", report, "--report", page, "--report", summary, "--quiet", *timings,
    )  # fmt: skip
    return Compressed(result, source, output, report, page, summary, hashlib.sha256(tiny_bytes).hexdigest())


def _fields(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def _keeps_to(name: str, found: Any) -> None:
    """``found`` has every field of a published schema, in its type, and no other."""
    schema = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
    jsonschema.validate(found, schema)
    assert set(found) == set(schema["properties"])


def _json(result: Result) -> Any:
    """The whole of stdout is one JSON document."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_inspect_shows_layers_blocks_and_refusals(model, run) -> None:
    result = run("inspect", model)
    assert result.exit_code == 0, result.output
    assert "5 convolutions, 5 of them replaceable" in result.stdout
    assert "Conv_c2" in result.stdout and "skip + Relu" in result.stdout and "8 -> 8" in result.stdout
    assert "can be dropped" in result.stdout
    assert "GlobalAveragePool" in result.stdout and "pools over the whole image" in result.stdout
    assert result.stderr == ""


def test_inspect_json(model, run) -> None:
    found = _json(run("inspect", model, "--json"))
    assert set(found) == _fields(onnx_layermerge.Inspection)
    assert found["convs"] == 5
    assert [layer["channels_in"] for chain in found["chains"] for layer in chain["layers"]] == [3, 8, 8, 8, 8]


def test_inspect_shortens_long_lists_unless_asked(model, run, monkeypatch) -> None:
    monkeypatch.setattr("olm.commands.inspect.MOST_LAYERS", 2)
    short, whole = run("inspect", model), run("inspect", model, "--all")
    assert "... and 3 more (--all shows them)" in short.stdout
    assert "Conv_c4" not in short.stdout and "Conv_c4" in whole.stdout
    assert "more (--all" not in whole.stdout


def test_compress_writes_a_model_that_runs(compressed: Compressed, samples) -> None:
    assert compressed.result.exit_code == 0, compressed.result.output
    before, after = onnx.load(compressed.input), onnx.load(compressed.output)
    onnx.checker.check_model(after, full_check=True)
    assert list(after.graph.input) == list(before.graph.input)
    assert [value.name for value in after.graph.output] == [value.name for value in before.graph.output]
    session = ort.InferenceSession(str(compressed.output), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"x": samples})
    assert scores.shape == (40, 5) and np.isfinite(scores).all()


def test_compress_tells_what_it_did_on_stdout(compressed: Compressed) -> None:
    text = compressed.result.stdout
    said = ("95 % interval", "asked 1.05×", "Replaced", "KL alone", "@ chosen", "+----", "Drift", "validation")
    for part in (*said, "plans ", "time ", "verify"):
        assert part in text
    assert "Error" not in compressed.result.stderr


def test_compress_leaves_the_input_and_nothing_else(compressed: Compressed) -> None:
    assert hashlib.sha256(compressed.input.read_bytes()).hexdigest() == compressed.digest_before
    names = {"in.onnx", "out.onnx", "report.json", "report.html", "report.md"}
    assert {path.name for path in compressed.input.parent.iterdir()} == names


def test_compress_report_is_the_run_as_json(compressed: Compressed) -> None:
    report = json.loads(compressed.report.read_text())
    _keeps_to("report.v1.json", report)
    assert set(report) == _fields(onnx_layermerge.Report)
    assert report["speedup"]["low"] >= 1.05
    assert report["output"] == str(compressed.output)
    assert report["command"][:3] == ["compress", str(compressed.input), str(compressed.output)]
    assert report["keys"]["output"] == hashlib.sha256(compressed.output.read_bytes()).hexdigest()
    assert report["keys"]["input"] == compressed.digest_before
    assert [line["name"] for line in report["before"]["lines"] if line["kind"] == "conv"] == [
        f"Conv_c{number}" for number in range(5)
    ]
    made = [line["name"] for line in report["after"]["lines"] if line["kind"] == "conv"]
    assert made == [node.name for node in onnx.load(compressed.output).graph.node if node.op_type == "Conv"]
    assert report["points"] and report["drop_only"] and report["keys"]["versions"]["onnx"] == onnx.__version__


def test_compress_writes_a_page_and_a_summary_of_the_same_run(compressed: Compressed) -> None:
    report = from_json(compressed.report.read_text())
    assert compressed.page.read_text(encoding="utf-8") == render_html(report)
    assert compressed.summary.read_text(encoding="utf-8") == render_markdown(report)
    assert "--speedup 1.05" in compressed.summary.read_text(encoding="utf-8")


def test_explain_and_diff_tell_of_the_same_blocks(compressed: Compressed, run) -> None:
    report = from_json(compressed.report.read_text())
    names = [name for block in report.blocks for name in block.replaced]
    explained = run("explain", compressed.output)
    assert explained.exit_code == 0 and explained.stderr == ""
    for part in ("compressed by olm", f"Replaced: {len(report.blocks)}", "asked    1.05×", names[0]):
        assert part in explained.stdout, part
    one = run("explain", compressed.output, names[0])
    assert one.stdout.startswith(names[0]) and "KL" in one.stdout and len(one.stdout.splitlines()) == 2
    found = _json(run("explain", compressed.output, "--json"))
    assert {conv["name"] for conv in found["convs"] if conv["fate"] == "gone"} == set(names)
    differ = run("diff", compressed.input, compressed.output)
    assert differ.exit_code == 0 and f"Convolutions that are gone: {len(names)}" in differ.stdout
    assert "Metadata" in differ.stdout and "olm.plan" in differ.stdout
    found = _json(run("diff", compressed.input, compressed.output, "--json"))
    assert {conv["name"] for conv in found["gone"]} == set(names)
    assert "nothing differs" in run("diff", compressed.input, compressed.input).stdout


def test_diff_tells_of_a_changed_attribute_and_cuts_it_short(compressed: Compressed, run, tmp_path: Path) -> None:
    model = onnx.load(compressed.input)
    node = next(node for node in model.graph.node if node.op_type != "Conv")
    node.attribute.append(onnx.helper.make_attribute("note", "long " * 40))
    node.domain = "own"
    model.opset_import.append(onnx.helper.make_opsetid("own", 1))
    target = tmp_path / "edited.onnx"
    onnx.save(model, target)
    short, whole = run("diff", compressed.input, target), run("diff", compressed.input, target, "--all")
    assert short.exit_code == whole.exit_code == 0 and "nothing differs" not in short.stdout
    assert "Nodes that are gone, new or changed: 1" in short.stdout and f"own.{node.op_type}(" in short.stdout
    assert "long " * 40 in whole.stdout and "long " * 40 not in short.stdout


def test_explain_of_a_file_without_a_record_or_a_name_that_is_none(compressed: Compressed, run) -> None:
    bare = run("explain", compressed.input)
    assert bare.exit_code == 1 and bare.stdout == "" and "no record of olm compress" in bare.stderr
    none = run("explain", compressed.output, "nothing-like-it")
    assert none.exit_code == 2 and "nothing-like-it" in none.stderr and len(none.stderr.splitlines()) == 1


def test_compress_json_without_data_warns_on_stderr(model, timings, run) -> None:
    result = run(
        "compress", model, model.with_name("out.onnx"), "--speedup", 1.05, "--rivals", 1, "--json", "-q", *timings
    )
    report = _json(result)
    _keeps_to("report.v1.json", report)
    assert report["validation"] is None
    assert all(block["recipe"] == "drop" for block in report["blocks"])
    assert any("--calib" in warning for warning in report["warnings"])
    assert "Warning: " in result.stderr and "not protected" in result.stderr


def test_profile_times_nothing_twice(compressed: Compressed, model, timings, run) -> None:
    report = _json(run("profile", model, "--json", "--quiet", *timings))
    assert set(report) == _fields(onnx_layermerge.ProfileReport)
    assert report["profile"] == timings[1]
    again = run("profile", model, "--quiet", *timings)
    assert again.exit_code == 0, again.output
    assert ": 0 blocks timed" in again.stdout
    assert "whole model, ms" in again.stdout


def test_plan_prints_the_frontier_and_writes_no_model(compressed: Compressed, model, store, timings, run) -> None:
    data = ("--calib", store / "calib.npz", "--samples", 32)
    result = run("plan", model, *data, "--quiet", *timings)
    assert result.exit_code == 0, result.output
    assert "speed-up" in result.stdout and "loss of drops alone" in result.stdout
    assert "*" in result.stdout and "+----" in result.stdout
    report = _json(run("plan", model, *data, "--method", "drop", "--json", "--quiet", *timings))
    assert set(report) == _fields(onnx_layermerge.PlanReport)
    speedups = [point["speedup"] for point in report["points"]]
    assert speedups == sorted(speedups) and len(speedups) > 1
    assert list(model.parent.iterdir()) == [model]


def test_plan_table_is_spread_over_the_time_saved() -> None:
    points = [FrontierPoint(1 / (1 - step / 1250), float(step), ()) for step in range(1001)]  # up to 5×
    rows = spread(points, 12, lambda point: point.speedup)
    assert len(rows) == 12
    assert (rows[0], rows[-1]) == (points[0], points[-1])
    gaps = -np.diff([1 / row.speedup for row in rows])
    assert 0 < gaps.max() < 1.05 * gaps.min()
    assert spread(points[:5], 12, lambda point: point.speedup) == points[:5]


def test_compress_keeps_to_a_plan_or_names_what_changed(tmp_path, model, store, timings, run) -> None:
    plan, out = tmp_path / "plan.json", [tmp_path / f"out{number}.onnx" for number in range(3)]
    words = ("--speedup", 1.05, "--samples", 32, "--rivals", 1, "--plan", plan, "--quiet", *timings)
    data = ("--calib", store / "calib.npz")
    assert run("compress", model, out[0], *words, *data).exit_code == 0
    _keeps_to("plan.v1.json", json.loads(plan.read_text()))
    locked = run("compress", model, out[1], *words, *data, "--lock")
    assert locked.exit_code == 0, locked.output
    assert "measured before" in locked.stdout and out[1].read_bytes() == out[0].read_bytes()
    other = run("compress", model, out[2], *words, *data, "--lock", "--seed", 5)
    assert other.exit_code == 6 and not out[2].exists()
    assert other.stderr.startswith("Error: ") and "--seed 5 (the plan: 0)" in other.stderr
    assert len(other.stderr.splitlines()) == 1
    none = run("compress", model, out[2], "--speedup", 1.05, "--lock", *timings)
    assert none.exit_code == 2 and "--plan" in none.stderr


def test_verify_holds_a_gate(compressed: Compressed, store, run) -> None:
    result = run(
        "verify", compressed.input, compressed.output, "--calib", store / "calib.npz", "--min-speedup", 0.2,
        "--min-agreement", 0, "--quiet",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "held" in result.stdout and "agreement" in result.stdout
    assert result.stderr == ""


def test_verify_misses_a_gate_with_a_line_for_each_bound(compressed: Compressed, store, run) -> None:
    result = run(
        "verify", compressed.input, compressed.output, "--calib", store / "calib.npz", "--min-speedup", 100,
        "--max-kl", 0, "--quiet", "--json",
    )  # fmt: skip
    assert result.exit_code == 3
    verdict = json.loads(result.stdout)
    _keeps_to("verify.v1.json", verdict)
    assert verdict["gate"]["min_speedup"] == 100 and verdict["undecided"] is False
    assert [output["name"] for output in verdict["outputs"]] == ["y"]
    assert verdict["passed"] is False
    lines = result.stderr.splitlines()
    assert len(lines) == 2 and all(line.startswith("Error: ") for line in lines)
    assert "100×" in lines[0]


def test_verify_lets_no_broken_model_pass(model, store, run, tmp_path) -> None:
    broken = onnx.load(model)
    for tensor in broken.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, 1e30), tensor.name))
    onnx.save(broken, tmp_path / "broken.onnx")
    result = run("verify", model, tmp_path / "broken.onnx", "--calib", store / "calib.npz", "--quiet")
    assert result.exit_code == 3, result.output
    (said,) = result.stderr.splitlines()
    assert said.startswith("Error: output 'y' holds NaN or Inf in one of the models") and said.endswith("ship it.")


@pytest.fixture(scope="module")
def judges(tmp_path_factory, samples) -> Path:
    """A metric and a decoder as a user writes them, in one file with their own data."""
    path = tmp_path_factory.mktemp("judges") / "mine.py"
    np.save(path.with_name("data.npy"), samples)
    path.write_text(
        "from pathlib import Path\nimport numpy as np\n"
        "DATA = np.load(Path(__file__).with_name('data.npy'))\n"
        "def spread(run):\n    return run({'x': DATA})['y'].std()\n"
        "def boxes(outputs):\n    return [([[0, 0, 9, 9]], [y.max()], [y.argmax()]) for y in outputs['y']]\n"
    )
    return path


def test_verify_with_a_metric_and_a_decoder(compressed: Compressed, store, judges, run) -> None:
    words = ("verify", compressed.input, compressed.output, "--calib", store / "calib.npz", "--quiet")
    mine = ("--metric", f"{judges}:spread", "--decoder", f"{judges}:boxes")
    held = run(*words, *mine, "--max-drop", 100)
    assert held.exit_code == 0, held.output
    for part in ("Drift", "cosine", "SNR, dB", "boxes ", "matched of the original's 40", "metric ", "mine.py:spread"):
        assert part in held.stdout
    verdict = _json(run(*words, *mine, "--json"))
    assert verdict["metric"]["original"] == pytest.approx(_spread(compressed.input, judges), rel=1e-4)
    assert verdict["metric"]["compressed"] == pytest.approx(_spread(compressed.output, judges), rel=1e-4)
    _keeps_to("verify.v1.json", verdict)
    assert verdict["boxes"]["found"] == pytest.approx(verdict["quality"]["agreement"])


def _spread(model: Path, judges: Path) -> float:
    (scores,) = ort.InferenceSession(str(model)).run(None, {"x": np.load(judges.with_name("data.npy"))})
    return float(scores.std())


def test_verify_misses_the_bound_on_the_metric(model, judges, run) -> None:
    lower = judges.with_name("lower.py")  # of each model less than of the one before
    lower.write_text("CALLS = []\ndef metric(run):\n    CALLS.append(1)\n    return 5 - len(CALLS)\n")
    result = run("verify", model, model, "--metric", f"{lower}:metric", "--max-drop", 0.5, "--quiet")
    assert result.exit_code == 3
    assert result.stderr == "Error: the metric fell by 1, from 4 to 3, more than 0.5.\n"


def test_doctor_lists_backends_with_reasons(run) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    rows = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    assert " ok " in rows["backend onnxruntime"]
    assert "backend tensorrt" in rows and "backend tensorrt-rtx" in rows
    checks = _json(run("doctor", "--json"))
    assert {frozenset(check) for check in checks} == {frozenset(_fields(onnx_layermerge.Check))}


def test_verify_tells_what_noise_left_undecided(model, run, monkeypatch) -> None:
    noisy = Ratio(1.0, 0.9, 1.1, 1e-3, 1e-3, 1.0, 12, "cap")
    monkeypatch.setattr("onnx_layermerge.flow._verify.measured_speedup", lambda *_, **__: (noisy, True))
    result = run("verify", model, model, "--min-speedup", 1.05, "--min-saving", 0.5, "--time-cap", 7, "-q", "--json")
    assert result.exit_code == 3
    first, second = result.stderr.splitlines()
    assert "speed-up" in first and "undecided" in first and "when the 7 s were over" in first and "--time-cap" in first
    assert "saving" in second and "missed" in second
    found = json.loads(result.stdout)
    assert found["undecided"] is True and found["passed"] is False and found["gate"]["min_saving_ms"] == 0.5
    none = run("verify", model, model, "--time-cap", 0, "-q")
    assert none.exit_code == 2 and "--time-cap" in none.stderr


def test_verify_says_what_the_samples_cannot_show(model, store, run, monkeypatch) -> None:
    found = onnx_layermerge.verify(model, model, calib=store / "calib.npz")
    said = dataclasses.replace(found, warnings=("output 'x' shows nothing",))
    monkeypatch.setattr(onnx_layermerge, "verify", lambda *_, **__: said)
    result = run("verify", model, model, "--quiet", "--json")
    assert "Warning: output 'x' shows nothing" in result.stderr
    assert json.loads(result.stdout)["warnings"] == ["output 'x' shows nothing"]
