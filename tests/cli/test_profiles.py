"""``olm profiles`` and planning from a table alone: streams, exit codes, JSON, and bad words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_layermerge import flow
from onnx_layermerge.latency import DeviceKey, Failure, LatencyTable, Measurement, default_path

CPU = DeviceKey("onnxruntime", "1.32.0", "CPU (family 6, avx2)", 1, "fp32")
GPU = DeviceKey("tensorrt", "10.9", "GPU 8.9", 0, "fp16", driver="570.1")


def cost(ms: float) -> Measurement:
    s = ms / 1e3
    return Measurement(s, s * 0.99, s * 1.01, s, s, s, 20, 0, "precise", s / 100)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder with two tables: in b.json the GPU's block is slower, and another one was measured."""
    for name, ms in (("a.sqlite", 1.0), ("b.json", 1.5)):
        with LatencyTable.open(tmp_path / name) as table:
            table.put(CPU, "k1", "conv 1", cost(3.0))
            table.put(CPU, "k2", "conv 2", Failure("no memory"))
            table.put(GPU, "k1", "conv 1", cost(ms))
            if name == "b.json":
                table.put(GPU, "k3", "conv 3", cost(2.0))
    return tmp_path


def test_words_of_every_command(tables: Path, run) -> None:
    a, b = tables / "a.sqlite", tables / "b.json"
    for words, shown in (
        (["list", "-p", a], [CPU.text(), CPU.digest(), GPU.text(), "2 devices"]),
        (["show", "family 6", "-p", b], ["3.00", "2.97 to 3.03", "precise", "failed", "no memory"]),
        (["show", GPU.digest(), "-p", a, "--match", "CONV"], ["1 of 1 blocks", "1.00"]),
        (["diff", a, b], ["1 differ", "2 agree", "+50.0%", "Only in", "k3 conv 3"]),
        (["merge", tables / "m.json", a, b], ["from", "replaced"]),
        (["export", tables / "x.json", "-p", a, "--device", "gpu"], ["1 devices, 1 blocks, 0 pairs"]),
        (["import", b, "-p", tables / "y.sqlite"], ["b.json", "4"]),
        (["prune", "-p", a, "--failed"], ["would be removed", "--yes"]),
        (["prune", "-p", a, "--failed", "--yes"], ["1 blocks and 0 pairs of models removed"]),
    ):
        result = run("profiles", *words)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        for text in shown:
            assert text in result.stdout, words
    with LatencyTable.open(a) as table:
        assert list(table.entries(CPU)) == ["k1"]


def test_cold_figures_have_a_column_where_there_are_any(tables: Path, run) -> None:
    assert "L2" not in run("profiles", "show", GPU.digest(), "-p", tables / "b.json").stdout
    with LatencyTable.open(tables / "b.json") as table:
        table.put(GPU, "k4", "conv 4", replace(cost(2.0), cold_s=4.56e-3))
    shown = run("profiles", "show", GPU.digest(), "-p", tables / "b.json").stdout
    assert "ms, cold L2" in shown and "4.56" in shown
    found = json.loads(run("profiles", "show", GPU.digest(), "-p", tables / "b.json", "--json").stdout)
    assert {entry["key"]: entry["cold_ms"] for entry in found["entries"]} == {"k1": None, "k3": None, "k4": 4.56}


def test_json_of_every_command_is_what_the_flow_answers(tables: Path, run) -> None:
    a, b = tables / "a.sqlite", tables / "b.json"
    fields = {
        "list": ["-p", a], "show": ["gpu", "-p", b], "diff": [a, b], "merge": [tables / "m.json", a],
        "export": [tables / "x.json", "-p", a], "import": [b, "-p", a], "prune": ["-p", a, "--older-than", "90d"],
    }  # fmt: skip
    kinds = {
        "list": flow.TableSummary, "show": flow.TableContent, "diff": flow.TableDiff, "merge": flow.TableMerge,
        "export": flow.TableExport, "import": flow.TableMerge, "prune": flow.TablePrune,
    }  # fmt: skip
    for command, words in fields.items():
        result = run("profiles", command, *words, "--json", "--quiet")
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        assert set(json.loads(result.stdout)) == set(kinds[command].__dataclass_fields__)
    found = json.loads(run("profiles", "list", "-p", b, "--json").stdout)
    assert {device["digest"]: device["entries"] for device in found["devices"]} == {CPU.digest(): 2, GPU.digest(): 2}


def test_without_a_profile_it_is_the_users_own(tables: Path, run) -> None:
    result = run("profiles", "list")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "none yet" in result.stdout and not default_path().exists()
    assert run("profiles", "import", tables / "b.json").exit_code == 0
    assert default_path().exists() and GPU.text() in run("profiles", "list").stdout


@pytest.mark.parametrize(
    ("words", "code", "shown"),
    [
        (["list", "-p", "none.json"], 1, "no latency table none.json"),
        (["list", "-p", "."], 1, "is a folder"),
        (["show", "-p", "b.json"], 1, "2 devices; name one"),
        (["show", "tpu", "-p", "b.json"], 1, "matches 'tpu'; name one of"),
        (["show", "p", "-p", "b.json"], 1, "2 devices of b.json match 'p'"),
        (["diff", "a.sqlite", "none.json"], 1, "no latency table none.json"),
        (["diff", "a.sqlite"], 2, "Missing argument 'B'"),
        (["merge", "m.json"], 2, "Missing argument 'FROM...'"),
        (["merge", "a.sqlite", "a.sqlite"], 2, "into itself"),
        (["merge", "none/m.json", "a.sqlite"], 1, "no folder none"),
        (["export", "x.csv", "-p", "a.sqlite"], 2, "no .json file"),
        (["export", "none/x.json", "-p", "a.sqlite"], 1, "cannot be written"),
        (["import", "bad.json", "-p", "a.sqlite"], 1, "not JSON"),
        (["import", "bad.sqlite", "-p", "a.sqlite"], 1, "not a readable latency table"),
        (["prune", "-p", "a.sqlite"], 2, "say what is to go"),
        (["prune", "-p", "a.sqlite", "--older-than", "soon"], 2, "is no age"),
        (["prune", "-p", "a.sqlite", "--older-than", "-1d"], 2, "is no age"),
    ],
)
def test_bad_words(words: list[str], code: int, shown: str, tables: Path, run, monkeypatch) -> None:
    (tables / "bad.json").write_text("{")
    (tables / "bad.sqlite").write_text("no database" * 100)
    monkeypatch.chdir(tables)
    before = {path.name: path.read_bytes() for path in tables.iterdir()}
    result = run("profiles", *words)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and line.endswith(".") and shown in line
    assert {path.name: path.read_bytes() for path in tables.iterdir() if "-" not in path.name} == before


def test_no_words_are_a_usage_error_that_shows_the_help(run) -> None:
    result = run("profiles")
    assert (result.exit_code, result.stdout) == (2, "") and "prune" in result.stderr


def test_plan_from_another_machines_table(model: Path, timings: list[str], tmp_path: Path, run) -> None:
    assert run("profile", model, "--quiet", *timings).exit_code == 0
    table = tmp_path / "t.json"
    assert run("profiles", "export", table, *timings).exit_code == 0
    text = table.read_text()

    alone = run("plan", model, "--profile", table, "--quiet", "--json", "--from-table")
    assert alone.exit_code == 0, alone.output
    assert json.loads(alone.stdout)["table_only"] is True and json.loads(alone.stdout)["timed_blocks"] == 0
    named = run("plan", model, "--profile", table, "--quiet", "--json", "--from-table", "onnxruntime")
    assert json.loads(named.stdout)["points"] == json.loads(alone.stdout)["points"]

    with LatencyTable.open(table) as held:
        (key,) = held.devices()
    table.write_text(text.replace(json.dumps(key.device), '"Abacus"'))
    refused = run("plan", model, "--profile", table, "--quiet")
    assert (refused.exit_code, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert "Abacus" in line and key.text() in line and "--allow-mismatch" in line
    allowed = run("plan", model, "--profile", table, "--quiet", "--json", "--allow-mismatch")
    assert allowed.exit_code == 0 and json.loads(allowed.stdout)["mismatch"] == key.text()
    assert "Warning: planned with times of another device" in allowed.stderr

    table.write_text(text.replace('"backend": "onnxruntime"', '"backend": "tensorrt"'))
    absent = run("plan", model, "--profile", table, "--quiet", "--backend", "tensorrt")
    assert absent.exit_code == 0 and f"planned from {table} alone" in absent.stderr
    assert "on tensorrt" in absent.stdout
    assert run("plan", model, "--profile", table, "--backend", "magic").exit_code == 5
