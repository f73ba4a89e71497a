"""The GitLab template: it parses, its script runs as it stands, and the job ends as the gate did."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from olm.app import olm
from tests.pipeline.conftest import ROOT, VERDICT, Stub, environment

SPEC, JOBS = yaml.safe_load_all((ROOT / "templates" / "olm" / "template.yml").read_text(encoding="utf-8"))
INPUTS = SPEC["spec"]["inputs"]
BLOCK = re.compile(r"\$\[\[ inputs\.([\w-]+) \]\]")
NASTY = "a 'b' \"c\" $(touch hit) `touch hit` ;touch hit $HOME.onnx"

Run = Callable[..., tuple[dict[str, Any], subprocess.CompletedProcess[str], Path]]


def resolved(value: Any, given: dict[str, Any]) -> Any:
    """The template with its inputs put in; a block that is all of a text keeps the input's type."""
    if isinstance(value, dict):
        return {resolved(key, given): resolved(each, given) for key, each in value.items()}
    if isinstance(value, list):
        return [resolved(each, given) for each in value]
    if not isinstance(value, str):
        return value
    if match := BLOCK.fullmatch(value):
        return given[match[1]]
    return BLOCK.sub(lambda match: str(given[match[1]]), value)


@pytest.fixture
def run(tmp_path: Path, stub: Stub) -> Run:
    def call(**inputs: Any) -> tuple[dict[str, Any], subprocess.CompletedProcess[str], Path]:
        named = {"model": "m.onnx", "speedup": "1.3", "install": "none"}
        named |= {name.replace("_", "-"): value for name, value in inputs.items()}
        assert named.keys() <= INPUTS.keys()
        given = {name: each.get("default") for name, each in INPUTS.items()} | named
        ((_, job),) = resolved(JOBS, given).items()
        folder = tmp_path / "project"
        folder.mkdir()
        variables = {name: each["value"] for name, each in job["variables"].items()}
        assert all(isinstance(value, str) for value in variables.values())
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(job["script"])],
            cwd=folder, env={**environment(stub.folder), **variables}, capture_output=True, text=True,
        )  # fmt: skip
        return job, done, folder

    return call


def test_every_input_is_used_and_none_is_in_the_script() -> None:
    text = yaml.safe_dump(JOBS, width=10_000)
    assert set(BLOCK.findall(text)) == set(INPUTS)
    ((_, job),) = JOBS.items()
    assert not any("$[[" in line for line in job["script"])
    assert all(each["expand"] is False for each in job["variables"].values())
    read = set(re.findall(r"\bOLM_[A-Z_]+", "\n".join(job["script"])))
    assert read == set(job["variables"])


def test_figures_and_reports_of_a_gate_that_held(run: Run) -> None:
    job, done, folder = run()
    assert done.returncode == 0, done.stderr
    metrics = (folder / job["artifacts"]["reports"]["metrics"]).read_text(encoding="utf-8")
    assert "olm_speedup 1.3123\n" in metrics and "olm_latency_ms 1.5\n" in metrics and "olm_gate_held 1\n" in metrics
    assert (folder / "olm-report" / "report.html").exists() and (folder / "olm-report" / "verify.json").exists()
    assert job["artifacts"]["when"] == "always" and "model.fast.onnx" in job["artifacts"]["paths"]
    assert job["allow_failure"] == {"exit_codes": [0]} and job["tags"] == []


def test_a_missed_gate_ends_with_3_and_has_its_figures(run: Run, stub: Stub) -> None:
    stub.says("verify", code=3, err="Error: missed\n", out=json.dumps({**VERDICT, "passed": False}))
    job, done, folder = run(tolerate=[3])
    assert done.returncode == 3 and "Error: missed" in done.stderr and job["allow_failure"]["exit_codes"] == [3]
    assert "olm_gate_held 0" in (folder / "olm-report" / "metrics.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", [1, 2, 5])
def test_a_verify_that_measured_nothing_ends_as_it_did(run: Run, stub: Stub, code: int) -> None:
    stub.says("verify", code=code)
    _, done, folder = run()
    assert done.returncode == code and not (folder / "olm-report" / "metrics.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", [1, 4])
def test_a_compress_that_fails_ends_the_job(run: Run, stub: Stub, code: int) -> None:
    stub.says("compress", code=code, err="Error: not to be reached\n")
    _, done, _ = run()
    assert done.returncode == code and not stub.was_started("verify")


def test_every_value_reaches_its_command_whole(run: Run, stub: Stub) -> None:
    kept = ("job", "stage", "image", "tags", "install", "tolerate", "lock", "options")
    given: dict[str, Any] = {name.replace("-", "_"): f"{NASTY} {name}" for name in INPUTS if name not in kept}
    given |= {"lock": "true", "options": "--seed 7 *", "compress_options": "--effort quick", "verify_options": ""}
    _, done, folder = run(**given)
    assert done.returncode == 0 and not list(folder.rglob("hit")), done.stderr
    both = {*(f"--{name}={NASTY} {name}" for name in ("samples", "preset", "metric", "device", "backend", "precision"))}
    own = ("speedup", "profile", "plan", "calib", "val")
    gates = ("min-speedup", "min-saving", "min-agreement", "max-kl", "max-drop", "time-cap")
    reports = {f"--report=olm-report/report.{form}" for form in ("html", "json")}
    tail = ["--", f"{NASTY} model", f"{NASTY} output"]
    words = stub.words("compress")
    more = {"--json", "--seed", "7", "*"}
    assert words[-3:] == tail
    assert set(words[1:-3]) == {*both, *(f"--{name}={NASTY} {name}" for name in own), *reports, *more, "--lock",
                                "--effort", "quick"}  # fmt: skip
    words = stub.words("verify")
    assert words[-3:] == tail
    asked = {*both, *(f"--{name}={NASTY} {name}" for name in gates), f"--calib={NASTY} verify-calib", *more}
    assert set(words[1:-3]) == asked
    for command in ("compress", "verify"):
        known = {name for parameter in olm.commands[command].params for name in parameter.opts}
        assert {word.split("=")[0] for word in stub.words(command) if word.startswith("--") and word != "--"} <= known


def test_a_new_plan_is_kept_with_the_reports(run: Run, stub: Stub) -> None:
    (stub.folder / "olm").write_text('#!/bin/sh\n[ "$1" = verify ] || echo plan > p.json\necho "{}" >&2\n')
    _, _, folder = run(plan="p.json")
    assert (folder / "olm-report" / "p.json").read_text(encoding="utf-8") == "plan\n"
