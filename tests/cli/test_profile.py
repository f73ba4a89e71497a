"""``olm profile`` as words: its budget, its overview, its progress."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from olm.commands.profile import Duration
from onnx_layermerge.latency.backends.tensorrt import _library


@pytest.mark.parametrize(("words", "seconds"), [("30s", 30.0), ("10m", 600.0), ("1.5H", 5400.0), ("0.5s", 0.5)])
def test_a_time_has_a_unit(words: str, seconds: float) -> None:
    assert Duration().convert(words, None, None) == seconds


@pytest.mark.parametrize("words", ["10", "", "0s", "-1m", "1d", "nan", "1e9s", "٣m", "9999999h", "1 m", "m"])
def test_words_that_are_no_time(words: str, model: Path, timings: list[str], run) -> None:
    result = run("profile", model, "--budget", words, *timings)
    assert result.exit_code == 2 and "is no time" in result.stderr and "10m" in result.stderr


def test_without_a_model_it_lists_what_is_there(model: Path, tmp_path: Path, run) -> None:
    path = tmp_path / "t.sqlite"
    empty = run("profile", "--profile", path)
    assert empty.exit_code == 0 and "holds nothing yet" in empty.stdout and "tensorrt" in empty.stdout
    assert not path.exists()
    report = json.loads(run("profile", model, model, "--profile", path, "--json", "-q").stdout)
    assert report["timed"] > 0 and report["left"] == [] and report["models_left"] == []
    found = json.loads(run("profile", "--profile", path, "--json").stdout)
    (held,) = found["held"]
    assert held["blocks"] == report["timed"] + report["bounded"] and held["failures"] == 0 and held["models"] == 1
    assert held["device"] == report["device"] and held["newest"].endswith("Z")
    shown = run("profile", "--profile", path)
    assert shown.exit_code == 0 and held["device"] in shown.stdout and held["newest"] in shown.stdout


@pytest.mark.parametrize("models", [[], ["in.onnx"]])
def test_an_unknown_device_is_exit_code_5(models: list[str], run) -> None:
    result = run("profile", *models, "--device", "npu")
    assert result.exit_code == 5 and "'npu'" in result.stderr and result.stdout == ""


def test_what_the_budget_left_out_is_listed(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    import onnx_layermerge
    from olm.app import olm

    seen = {}

    def profile(models, *, progress, **words):
        seen.update(words)
        return onnx_layermerge.ProfileReport(
            "t.sqlite", "a device", {}, 9, 1, 2, {}, (), 3, 4, tuple(f"block {n}" for n in range(12)), ("b.onnx",)
        )

    monkeypatch.setattr(onnx_layermerge, "profile", profile)
    result = CliRunner().invoke(olm, ["profile", str(model), "--budget", "90s"])
    assert result.exit_code == 0 and seen["budget_s"] == 90.0
    assert "Left out for lack of time: 12 blocks" in result.stdout and "b.onnx" in result.stdout
    assert "... and 3 more" in result.stdout and "block 8" in result.stdout and "block 9" not in result.stdout
    assert "3 given up after a look, 4 without one" in result.stdout


def test_what_build_only_builds_needs_build_only(run, model) -> None:
    result = run("profile", model, "--compute-capability", "8.6")
    assert result.exit_code == 2 and "--build-only" in result.stderr
    result = run("profile", model, "--build-only")
    assert result.exit_code == 2 and "compute capability" in result.stderr


def test_build_only_without_the_library_says_what_to_install(run, model, monkeypatch) -> None:
    for names in _library._MODULES.values():
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
    result = run("profile", model, "--build-only", "--compute-capability", "8.6")
    assert result.exit_code == 5 and "tensorrt-rtx" in result.stderr and "Traceback" not in result.stderr
