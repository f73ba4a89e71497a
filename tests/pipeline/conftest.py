"""A checkout of the action, a workspace with a tiny model, an olm that only pretends, and one real run."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.pipeline.github import Job
from tests.zoo import Net

ROOT = Path(__file__).resolve().parents[2]

# It writes down its words, then prints what lies ready for the command, in colour where a runner forces it to, and ends
# as it says.
_STUB = """#!/usr/bin/env bash
here=$(dirname "$0")
printf '%s\\0' "$@" > "$here/$1.words"
for word; do case "$word" in --report=*) echo "stub report" > "${word#--report=}" ;; esac; done
[ -n "${FORCE_COLOR:-}" ] && printf '\\033[31m' >&2
[ -f "$here/$1.err" ] && cat "$here/$1.err" >&2
[ -f "$here/$1.out" ] && cat "$here/$1.out"
exit "$(cat "$here/$1.code" 2>/dev/null || echo 0)"
"""
# The Python of the tests as the runner's own, past whatever shims this machine has in front of it.
_PYTHON = f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n'
SPEEDUP = {"ratio": 1.31234, "low": 1.298, "high": 1.33, "a_s": 2e-3, "b_s": 1.5e-3, "n": 40}
VERDICT: dict[str, Any] = {
    "schema": "olm.verify/1",
    "passed": True,
    "failures": [],
    "speedup": SPEEDUP,
    "saving_ms": {"median": 0.5, "low": 0.45, "high": 0.52},
    "quality": {"kl": 0.01, "agreement": 0.99},
    "metric": None,
    "timing": {"a_ms": 2.0, "b_ms": 1.5},
    "gate": {"min_speedup": 1.25, "min_saving_ms": None, "min_agreement": 0.98, "max_kl": None, "max_drop": None},
}


class Stub:
    """An ``olm`` that is on the PATH of a job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program(folder / "olm", _STUB)
        program(folder / "python3", _PYTHON)
        self.says("compress", out="{}")
        self.says("verify", out=json.dumps(VERDICT))

    def says(self, command: str, *, code: int = 0, err: str = "", out: str = "") -> None:
        for name, text in (("code", str(code)), ("err", err), ("out", out)):
            (self.folder / f"{command}.{name}").write_text(text, encoding="utf-8")

    def words(self, command: str) -> list[str]:
        """What it was started with."""
        return (self.folder / f"{command}.words").read_text(encoding="utf-8").split("\0")[:-1]

    def was_started(self, command: str) -> bool:
        return (self.folder / f"{command}.words").exists()


def program(path: Path, text: str) -> None:
    """A script that can be started."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def environment(*first: Path) -> dict[str, str]:
    """A runner's environment with these folders in front on the PATH."""
    own = {"PATH": os.pathsep.join([*map(str, first), os.environ["PATH"]]), "HOME": str(Path.cwd()), "FORCE_COLOR": "1"}
    kept = {name: os.environ[name] for name in ("XDG_CACHE_HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, **own, "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def own_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a hook of git its variables name the repository of the commit: what a test adds would be staged there."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The action as a job finds it, in a folder whose name has a blank; nothing else of the repository is there."""
    folder = tmp_path_factory.mktemp("actions") / "the action"
    shutil.copytree(ROOT / "templates", folder / "templates")
    shutil.copy(ROOT / "action.yml", folder)
    return folder


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    return Stub(tmp_path / "bin")


@pytest.fixture
def act(tmp_path: Path, checkout: Path, stub: Stub) -> Callable[[Mapping[str, str]], Job]:
    """The action with these inputs and the stub, on a file that only has to be there."""
    workspace = tmp_path / "work space"
    workspace.mkdir()

    def run(inputs: Mapping[str, str]) -> Job:
        given = {"model": "model.onnx", "speedup": "1.3", "install": "none", **inputs}
        return Job(checkout, workspace, environment(stub.folder), given).run()

    return run


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Job:
    """The action with the real olm, on a network so small, and bounds so low, that the gate should hold.

    Times are real ones, and other work on the machine may spoil them (exit codes 3 and 4).  So there are three tries,
    each in a workspace of its own, without the table of the one before; what is wrong otherwise is so every time.
    """
    for _ in range(3):
        job = _shipped(tmp_path_factory.mktemp("job") / "work space", checkout)
        if job.code not in (3, 4):
            break
    return job


def _shipped(workspace: Path, checkout: Path) -> Job:
    (workspace / "nets").mkdir(parents=True)
    net = Net()
    value = net.relu(net.conv(net.input("x", ("N", 3, 24, 24)), "stem", 16), "stem.relu")
    for number in range(1):
        inner = net.relu(net.conv(value, f"in{number}"), f"mid{number}")
        value = net.relu(net.add(net.conv(inner, f"out{number}"), value, f"sum{number}"), f"end{number}")
    onnx.save(net.proto(net.classifier(value)), workspace / "nets" / "tiny net.onnx")
    np.savez(workspace / "calib.npz", x=net.rng.standard_normal((12, 3, 24, 24)).astype(np.float32))
    inputs = {
        "model": "nets/tiny net.onnx",
        "output": "nets/tiny net.fast.onnx",
        "speedup": "1.01",
        "calib": "calib.npz",
        "samples": "12",
        "min-agreement": "0",
        "max-kl": "1e9",
        "options": "--seed 3",
        "compress-options": "--method drop --effort quick --rivals 1 --profile 'own table.sqlite'",
        "verify-options": "--time-cap 1",
        "report": "report.html\nnets/report.json",
        "install": "none",
    }
    # Beside the Python of the tests is the olm that was installed with the package: what a runner would have.
    env = {**environment(Path(sys.executable).parent), "PYTHONPATH": f"{ROOT / 'cli'}{os.pathsep}{ROOT}"}
    return Job(checkout, workspace, env, inputs).run()
