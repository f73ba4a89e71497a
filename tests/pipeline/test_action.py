"""The steps of action.yml as they stand: outputs, one summary, annotations, exit codes, and no input that is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from olm.app import olm
from tests.pipeline.conftest import ROOT, VERDICT, Stub, environment, program
from tests.pipeline.github import EXPRESSION, Job

Act = Callable[[Mapping[str, str]], Job]

ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]
# What no shell, no YAML and no workflow command would leave alone.
NASTY = "a 'b' \"c\" $(touch hit) `touch hit` ;touch hit, 100%: é\n::error::made up.onnx"


def test_the_real_thing_ends_well(shipped: Job) -> None:
    assert shipped.code == 0, "\n".join(step.log for step in shipped.steps.values())
    assert list(shipped.steps) == ["install", "compress", "verify", "Summary"] and not shipped.used
    outputs = shipped.outputs
    assert outputs["model"] == "nets/tiny net.fast.onnx" and (shipped.workspace / outputs["model"]).is_file()
    assert outputs["report"] == "report.html"
    assert (shipped.workspace / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads((shipped.workspace / "nets" / "report.json").read_text(encoding="utf-8"))["seed"] == 3
    verdict = json.loads(Path(outputs["verdict"]).read_text(encoding="utf-8"))
    assert verdict["passed"] and verdict["quality"]["kl"] > 0
    assert float(outputs["speedup"]) == pytest.approx(verdict["speedup"]["ratio"], abs=1e-4)
    assert float(outputs["speedup-low"]) == pytest.approx(verdict["speedup"]["low"], abs=1e-4)
    assert float(outputs["latency-ms"]) == pytest.approx(verdict["timing"]["b_ms"], rel=1e-4)


def test_the_real_summary_has_report_and_gate_once(shipped: Job) -> None:
    (summary,) = shipped.summaries
    assert len(re.findall("^## .*tiny net.fast.onnx", summary, re.M)) == 1
    assert summary.count("### Gate: held") == 1
    assert "| same top-1 answer | ≥ 0 |" in summary and "| divergence (KL) | ≤ 1e+09 |" in summary
    assert "loss of the metric" not in summary


def test_every_input_is_used_and_every_used_one_is_there() -> None:
    read = set(re.findall(r"\binputs\.([\w-]+)", yaml.safe_dump(STEPS)))
    assert read == set(ACTION["inputs"])
    assert all(each["description"].strip() for each in (*ACTION["inputs"].values(), *ACTION["outputs"].values()))
    for name, each in ACTION["inputs"].items():
        assert each["required"] == ("default" not in each), name


def test_no_expression_is_inside_of_a_script() -> None:
    scripts = [step["run"] for step in STEPS if "run" in step]
    assert scripts and not any("${{" in script for script in scripts)
    for step in STEPS:
        assert all(EXPRESSION.fullmatch(str(text)) for text in step.get("env", {}).values())
        for script in [step["run"]] if "run" in step else []:
            assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


@pytest.mark.parametrize("command", ["compress", "verify"])
def test_every_input_reaches_its_command(act: Act, stub: Stub, command: str) -> None:
    given = {
        name: f"value of {name}"
        for name in ACTION["inputs"]
        if name not in ("install", "python-version", "lock", "report", "model", "output")
    }
    given |= {"options": "--seed 7", "compress-options": "--effort 'quick'", "verify-options": "--save-onnx 'a b'"}
    job = act({**given, "lock": "true", "python-version": "3.12"})
    assert job.code == 0 and job.used == ["actions/setup-python@v5"]
    words = stub.words(command)
    both = ["samples", "preset", "metric", "device", "backend", "precision"]
    own = {
        "compress": ["speedup", "calib", "val", "profile", "plan"],
        "verify": ["min-speedup", "min-saving", "min-agreement", "max-kl", "max-drop", "time-cap"],
    }[command]
    more = {
        "compress": ["--lock", "--report=olm-report.html", "--seed", "7", "--effort", "quick"],
        "verify": ["--calib=value of verify-calib", "--seed", "7", "--save-onnx", "a b"],
    }[command]
    expected = {*(f"--{name}=value of {name}" for name in both + own), *more, "--json"}
    assert words[0] == command and words[-3:] == ["--", "model.onnx", "model.fast.onnx"]
    assert {word for word in words[1:-3] if not word.endswith("/report.md")} == expected


@pytest.mark.parametrize("command", ["compress", "verify"])
def test_olm_knows_every_option_that_it_is_given(act: Act, stub: Stub, command: str) -> None:
    others = ("install", "lock", "python-version")
    act({**{name: "1" for name in ACTION["inputs"] if name not in others}, "lock": "true"})
    given = {word.split("=")[0] for word in stub.words(command) if word.startswith("--") and word != "--"}
    known = {name for parameter in olm.commands[command].params for name in parameter.opts}
    assert given <= known


def test_inputs_that_were_not_given_are_no_words(act: Act, stub: Stub) -> None:
    assert act({"report": ""}).outputs["report"] == ""
    assert stub.words("verify") == ["verify", "--json", "--", "model.onnx", "model.fast.onnx"]
    *words, report = stub.words("compress")[:-3]
    assert words == ["compress", "--json", "--speedup=1.3"] and report.endswith("/report.md")


def test_the_gate_takes_the_samples_of_calib_where_it_has_none_of_its_own(act: Act, stub: Stub) -> None:
    act({"calib": "c.npz", "preset": "unit"})
    assert {"--calib=c.npz", "--preset=unit"} <= set(stub.words("verify"))


def test_nothing_in_an_input_is_run_or_split(act: Act, stub: Stub) -> None:
    given = {"model": NASTY, "output": f"-{NASTY}", "calib": NASTY, "min-speedup": NASTY, "report": "a $(touch hit).md"}
    job = act(given)
    assert job.code == 0 and not list(job.workspace.rglob("hit"))
    assert stub.words("compress")[-3:] == ["--", NASTY, f"-{NASTY}"]
    assert f"--calib={NASTY}" in stub.words("compress") and f"--min-speedup={NASTY}" in stub.words("verify")
    assert job.outputs["model"] == f"-{NASTY}" and job.outputs["report"] == "a $(touch hit).md"
    assert not job.commands, "a name became a workflow command"


@pytest.mark.parametrize("options", ["$(touch hit)", "`touch hit`;touch hit", "a && touch hit", "*"])
def test_more_words_are_read_as_words_alone(act: Act, stub: Stub, options: str) -> None:
    job = act({"options": options})
    assert job.code == 0 and not (job.workspace / "hit").exists()
    assert options.split() == stub.words("verify")[2:-3]


@pytest.mark.parametrize("code", [1, 2, 4, 5])
def test_compress_that_fails_ends_the_job_with_its_own_code(act: Act, stub: Stub, code: int) -> None:
    sentence = "no plan reaches 1.3×: 50% was left, at a:b, 100%25."
    stub.says("compress", code=code, err=f"Warning: look out\nnoise\nError: {sentence}\n")
    job = act({"model": NASTY})
    assert job.code == code and not stub.was_started("verify")
    warning, error = job.commands
    assert (warning.name, warning.text) == ("warning", "look out")
    assert (error.name, error.text) == ("error", sentence)
    assert error.properties == {"file": NASTY, "title": f"olm compress (exit code {code})"}
    assert not any(job.outputs.values())
    (summary,) = job.summaries
    assert f"exit code {code}" in summary and r"100%25." in summary and "$(touch" not in summary.replace(r"\$", "")


def test_a_gate_that_was_missed_has_figures_but_no_model(act: Act, stub: Stub) -> None:
    missed = ["speed-up 1.312× [1.298, 1.33]: the bound 1.4× is missed", "agreement 90.0% is below 98.0%"]
    said = "".join(f"Error: {each}\n" for each in missed)
    stub.says("verify", code=3, err=said, out=json.dumps({**VERDICT, "passed": False, "failures": missed}))
    job = act({})
    assert job.code == 3
    assert [(each.name, each.text) for each in job.commands] == [("error", text) for text in missed]
    assert job.outputs["model"] == "" and job.outputs["report"] == "olm-report.html"
    assert (job.outputs["speedup"], job.outputs["speedup-low"]) == ("1.3123", "1.2980")
    assert job.outputs["latency-ms"] == "1.5"
    (summary,) = job.summaries
    assert summary.index("stub report") < summary.index("### Gate: missed") < summary.index("agreement 90.0%")
    assert "| speed-up | ≥ 1.25 | 1.312 [1.298, 1.330] |" in summary
    assert "| same top-1 answer | ≥ 0.98 | 0.99 |" in summary


def test_what_is_no_expected_error_points_to_the_log(act: Act, stub: Stub) -> None:
    stub.says("compress", code=70, err="Traceback …\n  boom\n::error file=x::from a name\n::stop-commands::t\n")
    job = act({})
    assert job.code == 70
    (error,) = job.commands
    assert error.text == "olm compress ended with exit code 70; the log of the step says why."


def test_a_killed_olm_counts_as_its_signal(act: Act, stub: Stub) -> None:
    (stub.folder / "olm").write_text("#!/usr/bin/env bash\nkill -9 $$\n", encoding="utf-8")
    job = act({})
    assert job.code == 137 and "137" in job.commands[0].text and len(job.summaries) == 1


@pytest.mark.parametrize(
    ("inputs", "code", "word"),
    [
        ({"speedup": " "}, 2, "speedup"),
        ({"lock": "yes"}, 2, "lock"),
        ({"options": "--shapes 'x"}, 2, "options"),
        ({"install": "'"}, 2, "install"),
    ],
)
def test_inputs_without_sense_are_named(act: Act, stub: Stub, inputs: dict[str, str], code: int, word: str) -> None:
    job = act(inputs)
    assert job.code == code and not stub.was_started("compress")
    assert [each.name for each in job.commands] == ["error"] and word in job.commands[0].text
    assert len(job.summaries) == ("install" not in inputs)


def test_no_olm_where_none_is_to_be_installed(tmp_path: Path, checkout: Path) -> None:
    program(tmp_path / "bin" / "python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "bash").symlink_to(str(shutil.which("bash")))
    (tmp_path / "work").mkdir()
    env = {**environment(), "PATH": str(tmp_path / "bin")}
    job = Job(checkout, tmp_path / "work", env, {"model": "a", "speedup": "2", "install": "none"}).run()
    assert job.code == 127 and "PATH" in job.commands[0].text and list(job.steps) == ["install"]


def test_install_makes_an_environment_that_only_the_action_sees(act: Act, stub: Stub, tmp_path: Path) -> None:
    """A wheel whose olm answers as the package that was asked for; pip is real, and needs no network for it."""
    wheel = tmp_path / "toy_olm-1.0-py3-none-any.whl"
    info = "toy_olm-1.0.dist-info"
    files = {
        "toy_olm.py": "import sys\ndef main():\n    sys.stderr.write('Error: I am the toy\\n')\n    return 4\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: toy-olm\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nolm = toy_olm:main\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    job = act({"install": f"--no-index '{wheel}'"})
    assert job.code == 4 and job.commands[-1].text == "I am the toy", job.steps["install"].log
    assert not stub.was_started("compress")
    assert Path(job.steps["install"].outputs["olm"]).is_relative_to(tmp_path / "temp")


def test_the_checkout_is_installed_from_locks_that_are_there() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("steps", ROOT / "templates" / "github" / "steps.py")
    assert spec is not None and spec.loader is not None
    steps = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(steps)
    locks, package = steps.locked(ROOT)
    assert locks[0] == "--require-hashes" and package[-1] == str(ROOT) and "--no-deps" in package
    files = [Path(word) for word in locks if word.endswith(".txt")]
    assert [file.name for file in files] == ["build.txt", "run.txt", "images.txt"]
    assert all("--hash=" in file.read_text(encoding="utf-8") for file in files)
