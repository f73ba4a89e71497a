"""Steps that are commands: the contract tests of the drivers, and the whole flow through ``olm``."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["MODELS", "contract_tests", "label", "model_path", "run", "whole_flow"]

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "efficientnet_lite0": ROOT / "models" / "efficientnet_lite0.onnx",
    "resnet34": ROOT / "models" / "zoo" / "resnet34.torchscript.onnx",
}
CALIB = {"efficientnet_lite0": ROOT / "models" / "lite0_calib.npz"}
SPEEDUP = 1.3
# Wall seconds.  compress may take what the other two leave, since it times what the profile's budget did not reach.
LIMITS = {"profile": 110.0, "verify": 75.0}
BUDGET = "60s"
# Of the calibration: the way through is checked here, not accuracy.
SAMPLES = 16
_DRIVERS = ("cuda-python", "pycuda")
Row = dict[str, Any]


def run(command: list[str], limit_s: float) -> tuple[int | None, str, str]:
    """Exit code (None: ended by the limit), standard output, last line of standard error."""
    paths = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "cli"), os.environ.get("PYTHONPATH", ""))))
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, said = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        return None, "", f"ended after {limit_s:.0f} s"
    lines = said.strip().splitlines()
    return process.returncode, out, lines[-1].strip()[:400] if lines else ""


def contract_tests(folder: Path, limit_s: float) -> dict[str, Row]:
    """By adapter: how many contract tests passed and failed on the GPU, and why they were skipped."""
    cases: dict[str, Row] = {name: {"passed": 0, "failed": 0, "skipped": ""} for name in _DRIVERS}
    if importlib.util.find_spec("pytest") is None:
        return {name: {**case, "skipped": "pytest is not installed"} for name, case in cases.items()}
    report = folder / "contract.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    code, _, said = run([*command, "tests/latency/test_cuda.py"], limit_s)
    if not report.exists():
        return {name: {**case, "failed": 1, "skipped": f"pytest: {said or code}"} for name, case in cases.items()}
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        for name in _DRIVERS:
            if f"[real {name}]" in case.get("name", ""):
                skipped = case.find("skipped")
                if skipped is not None:
                    cases[name]["skipped"] = skipped.get("message", "").partition("\n")[0]
                elif case.find("failure") is not None or case.find("error") is not None:
                    cases[name]["failed"] += 1
                else:
                    cases[name]["passed"] += 1
    return cases


def whole_flow(model: str, backend: str, device: str, precision: str, folder: Path, left_s: float) -> list[Row]:
    """Profile with a budget, compress at 1.3×, verify; each step is recorded, and the time of one that was not begun
    is 0.

    Without a profile compress is still tried.  verify is begun only on the model that this very compress has written:
    what an earlier check left there is removed first.

    The latency table stays in ``folder``: where building so many engines takes longer than the limit, the check is run
    again and goes on with the blocks that are left.
    """
    path, stop_s = model_path(model), time.monotonic() + left_s
    if not path.exists():
        return [_not_begun("profile", f"{path.name} is not there: make models zoo")]
    steps: list[Row] = []
    table, out = folder / f"{backend}-{precision}.sqlite", folder / f"{label(model)}-{backend}-{precision}.onnx"
    out.unlink(missing_ok=True)
    where = ["--device", device, "--backend", backend, "--precision", precision]
    calib = calibration(model, folder)
    commands = {
        "profile": ["profile", str(path), *where, "--profile", str(table), "--budget", BUDGET],
        "compress": [
            "compress", str(path), str(out), "--speedup", str(SPEEDUP), "--calib", str(calib), "--rivals", "2",
            "--samples", str(SAMPLES), *where, "--profile", str(table),
        ],
        "verify": ["verify", str(path), str(out), *where, "--min-speedup", "1"],
    }  # fmt: skip
    for step, words in commands.items():
        left_s = stop_s - time.monotonic()
        limit_s = min(LIMITS[step], left_s) if step in LIMITS else left_s - LIMITS["verify"]
        if step == "verify" and not (steps[-1]["code"] == 0 and out.exists()):
            steps.append(_not_begun(step, "not begun: no model"))
            continue
        if limit_s < 15:
            steps.append(_not_begun(step, "not begun: the time was used up"))
            continue
        start_s = time.monotonic()
        code, found, said = run([sys.executable, "-m", "olm", *words, "--json", "--quiet"], limit_s)
        seconds = round(time.monotonic() - start_s, 1)
        if code is None and step != "verify":
            said += "; its table keeps what was timed: run again, or give more --seconds"
        elsewhere = folder.resolve(), folder, ROOT, path.parent
        row: Row = {"step": step, "code": code, "seconds": seconds, "said": _nowhere(said, elsewhere)}
        with contextlib.suppress(ValueError):
            row["found"] = _short(json.loads(_nowhere(found, elsewhere)))
        steps.append(row)
    return steps


def model_path(model: str) -> Path:
    """Of a model by its name here, or of any other by its file."""
    return MODELS.get(model) or Path(model).resolve()


def label(model: str) -> str:
    """A name for files and tables."""
    return model if model in MODELS else Path(model).name.removesuffix(".onnx")


def _not_begun(step: str, said: str) -> Row:
    return {"step": step, "code": None, "seconds": 0.0, "said": said}


def calibration(model: str, folder: Path) -> Path:
    """The model's own samples; where it has none, random ones, which say nothing about accuracy."""
    known = CALIB.get(model)
    if known is not None and known.exists():
        return known
    import numpy as np
    import onnx

    path = folder / f"{label(model)}-random.npz"
    graph = onnx.load(model_path(model), load_external_data=False).graph
    rng, weights = np.random.default_rng(0), {tensor.name for tensor in graph.initializer}
    arrays = {}
    for value in graph.input:
        if value.name not in weights:
            dims = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
            arrays[value.name] = rng.standard_normal((SAMPLES, *dims[1:])).astype(np.float32)
    np.savez(path, **arrays)
    return path


def _nowhere(text: str, folders: Iterable[Path]) -> str:
    """Without the folders of this machine, which are nothing for a record."""
    for each in folders:
        text = text.replace(f"{each}{os.sep}", "")
    return text


def _short(found: Any) -> Any:
    """The values of a report that are single numbers, texts or small; its tables stay with the commands."""
    if not isinstance(found, dict):
        return None
    small = (str, int, float, bool, type(None))
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, small)
        or (isinstance(value, dict) and len(value) <= 10 and all(isinstance(each, small) for each in value.values()))
    }
