"""The main job, end to end, held against what is required of it.

    python benchmarks/main_job.py [--only resnet20,lite0] [--methods olm,layermerge,drop] [--out FILE] [--profile FILE]

For every network and method, one after the other, each step in a process of its own:
1. **compress**: the whole `olm.compress`, from the start of the interpreter to the file. Its wall time and its peak
   resident memory are the process's, taken from outside and from the kernel's count.
2. **measure**: asks the two files alone and believes nothing that step 1 said. Speed-up: `olm.verify`, one thread,
   process CPU time, original and output in turn within one run, with a 95 % interval. Accuracy: on labelled images
   that step 1 never saw, of the original as well, and how often the two models give the same answer.
3. **repeat** (after method olm): step 1 again with the table that the first filled. Nothing may be timed twice, and
   the file must come out byte for byte.

A network's methods share one latency table, new for each run of this script unless `--profile` names one, and `olm`
goes first: so its wall time includes all timing, and the baselines' does not. A speed-up is met when the measured
ratio is; its interval stands beside. Only what was run is judged. The JSON is written anew after each step, so a crash
loses one step at most. Exit code 1 when a requirement is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# On Linux a new process inherits its parent's memory peak, so this one must stay small: no NumPy, no ONNX here.
from rich import box
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
STEPS = Path(__file__).resolve().with_name("main_job_steps.py")
METHODS = ("olm", "layermerge", "drop")
PACKAGES = ("onnx-layermerge", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "scipy")
Row = dict[str, Any]


@dataclass(frozen=True)
class Requirement:
    """One line of what must be shown: `what` of a run on a network is at least, or at most, `bound`."""

    network: str
    run: str
    what: str
    sense: str
    bound: float


REQUIREMENTS = (
    Requirement("resnet20", "olm", "speedup", "≥", 1.5),
    Requirement("resnet20", "olm", "accuracy", "≥", 0.972),
    Requirement("resnet20", "olm", "wall_s", "≤", 180),
    Requirement("resnet20", "repeat", "timed_blocks", "≤", 0),
    Requirement("resnet20", "repeat", "same_bytes", "≥", 1),
    Requirement("lite0", "olm", "speedup", "≥", 1.2),
    Requirement("lite0", "olm", "top1", "≥", 130),
    Requirement("lite0", "olm", "agreement", "≥", 0.82),
    Requirement("lite0", "olm", "peak_rss_gb", "≤", 4.0),
    Requirement("lite0", "olm", "wall_s", "≤", 1200),
    Requirement("lite0", "repeat", "timed_blocks", "≤", 0),
    Requirement("lite0", "repeat", "same_bytes", "≥", 1),
)


@dataclass(frozen=True)
class Job:
    """A network, its unlabelled samples and the speed-up asked for; paths are relative to the repository."""

    model: str
    calib: str
    speedup: float
    shown: tuple[str, ...]
    missing: str


JOBS = {
    "resnet20": Job(
        "examples/mnist/resnet20.onnx",
        "examples/mnist/data.py:calibration",
        1.5,
        ("speedup", "accuracy", "agreement", "wall_s", "peak_rss_gb", "timed_blocks"),
        "it is part of the repository: restore it, or train it with `python examples/mnist/train.py`.",
    ),
    "lite0": Job(
        "models/efficientnet_lite0.onnx",
        "models/lite0_calib.npz",
        1.2,
        ("speedup", "top1", "top5", "agreement", "wall_s", "peak_rss_gb", "timed_blocks"),
        "run `make models`, then `python benchmarks/lite0_data.py`.",
    ),
}
REPEAT_SHOWN = ("timed_blocks", "same_bytes", "wall_s", "peak_rss_gb")

SHOWN_AS: dict[str, tuple[str, Callable[[float], str]]] = {
    "speedup": ("measured speed-up", lambda x: f"{x:.3f}×"),
    "accuracy": ("held-out accuracy", lambda x: f"{x:.1%}"),
    "top1": ("held-out top-1", lambda x: f"{x:.0f}"),
    "top5": ("held-out top-5", lambda x: f"{x:.0f}"),
    "agreement": ("same answer as the original", lambda x: f"{x:.1%}"),
    "wall_s": ("whole command", lambda x: f"{x:.0f} s"),
    "peak_rss_gb": ("peak memory", lambda x: f"{x:.2f} GB"),
    "timed_blocks": ("blocks timed", lambda x: f"{x:.0f}"),
    "same_bytes": ("same bytes again", lambda x: "yes" if x else "no"),
}


@dataclass(frozen=True)
class Places:
    """Where the models, the latency table and passing files of a run lie."""

    models: Path
    profile: Path
    scratch: Path


def spawn(step: str, spec: Row, scratch: Path) -> Row:
    """Run a step from the repository root; what it found, and the wall seconds of its process."""
    answer = scratch / "answer.json"
    answer.unlink(missing_ok=True)
    command = [sys.executable, str(STEPS), step, json.dumps(spec), str(answer)]
    begin = time.perf_counter()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    wall_s = time.perf_counter() - begin
    if not answer.is_file():
        said = f"the step {step} ended with code {code} and no answer; what it said is above"
        return {"error": said, "exit_code": code, "wall_s": wall_s}
    return {**json.loads(answer.read_text(encoding="utf-8")), "wall_s": wall_s}


def run_compress(network: str, method: str, output: Path, where: Places, options: argparse.Namespace) -> Row:
    """One row: the command, and the digest of its file."""
    job = JOBS[network]
    arguments: Row = {"speedup": options.speedup or job.speedup, "calib": job.calib, "method": method}
    arguments |= {name: getattr(options, name) for name in ("samples", "rivals") if getattr(options, name)}
    asked = dict(arguments)
    arguments |= {"input": job.model, "output": str(output), "profile": str(where.profile)}
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    title = f"{network} {method}"
    row: Row = {"network": network, "run": method, "asked": asked, "load_before": load, "sha256": None}
    row |= spawn("compress", {"title": title, "arguments": arguments}, where.scratch)
    if row.get("report"):
        # Where a file lay while this ran says nothing about the result.
        row["report"] |= {"input": job.model, "output": output.name}
        row |= {name: row["report"][name] for name in ("timed_blocks", "reused_blocks")}
        row["sha256"] = hashlib.sha256(output.read_bytes()).hexdigest()
    return row


def run_network(network: str, methods: list[str], where: Places, options: argparse.Namespace) -> Iterator[Row]:
    """All rows of a network, each as soon as it is there."""
    for method in methods:
        output = where.models / f"{network}-{method}.onnx"
        row = run_compress(network, method, output, where, options)
        if row["sha256"]:
            spec = {"network": network, "original": JOBS[network].model, "output": str(output)}
            row["measured"] = spawn("measure", {**spec, "title": f"measuring {network} {method}"}, where.scratch)
        yield row
        if method == "olm" and row["sha256"]:
            again = run_compress(network, method, where.models / f"{network}-repeat.onnx", where, options)
            yield again | {"run": "repeat", "same_bytes": int(again["sha256"] == row["sha256"])}


def value_of(row: Row, what: str) -> float | None:
    """A number of a row, whichever step it comes from; None when that step did not get so far."""
    found = row.get("measured", {}).get(what) if what not in row else row[what]
    return None if found is None else float(found)


def judge(rows: list[Row]) -> list[Row]:
    """Every requirement of the runs that were made, with what was measured; a run that failed meets nothing."""
    by_run = {(row["network"], row["run"]): row for row in rows}
    networks_run = {row["network"] for row in rows if row["run"] == "olm"}
    judged = []
    for wanted in REQUIREMENTS:
        if wanted.network in networks_run:
            row = by_run.get((wanted.network, wanted.run), {})
            found = None if row.get("error") else value_of(row, wanted.what)
            met = found is not None and (found >= wanted.bound if wanted.sense == "≥" else found <= wanted.bound)
            judged.append({**asdict(wanted), "measured": found, "met": met})
    return judged


def measured_cell(row: Row, what: str) -> str:
    """The number, with what makes it readable beside it."""
    found, measured = value_of(row, what), row.get("measured", {})
    if found is None:
        return "not measured"
    said = SHOWN_AS[what][1](found)
    if what == "speedup":
        said += f" [{measured['ratio']['low']:.3f}, {measured['ratio']['high']:.3f}]"
    elif what in ("top1", "top5"):
        said += f"/{measured['images']} = {found / measured['images']:.1%}"
    elif what == "timed_blocks":
        said += f", {row['reused_blocks']} reused"
    return said


def as_table(rows: list[Row], judged: list[Row]) -> Table:
    """What is required, what was measured, and whether that is enough."""
    table = Table("network", "run", "what", "required", "measured", "original", "met", box=box.SIMPLE)
    verdicts = {(j["network"], j["run"], j["what"]): j for j in judged}
    for row in rows:
        heads = [row["network"], "olm again, warm" if row["run"] == "repeat" else row["run"]]
        error = row.get("error") or row.get("measured", {}).get("error")
        if error:
            table.add_row(*heads, f"exit {row['exit_code']}", "", error)
            heads = ["", ""]
        for what in REPEAT_SHOWN if row["run"] == "repeat" else JOBS[row["network"]].shown:
            verdict = verdicts.get((row["network"], row["run"], what))
            if value_of(row, what) is None and verdict is None:
                continue
            name, form = SHOWN_AS[what]
            required = f"{verdict['sense']} {form(verdict['bound'])}" if verdict else ""
            required = "yes" if what == "same_bytes" else required
            original = row.get("measured", {}).get("original", {}).get(what)
            met = "" if verdict is None else "yes" if verdict["met"] else "NO"
            cells = [name, required, measured_cell(row, what), "" if original is None else form(original), met]
            table.add_row(*heads, *cells)
            heads = ["", ""]
        table.add_section()
    return table


def machine() -> Row:
    """What the numbers depend on besides the code."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": (names or [platform.processor()])[0] if info.is_file() else platform.processor(),
        "cores": usable,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of Python and of what is installed of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_json(path: Path, value: Row) -> None:
    """Write the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def chosen(text: str, known: tuple[str, ...], option: str) -> list[str]:
    """The named ones, in the order of `known`; exits with one sentence when a name is unknown."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise SystemExit(f"{option} {text} is unknown; choose from {', '.join(known)}.")
    return [name for name in known if name in names]


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(JOBS), help="networks (default: %(default)s)")
    parser.add_argument("--methods", default=",".join(METHODS), help="methods (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/records/main_job.json", help="JSON file")
    parser.add_argument("--profile", type=Path, help="latency table to use and fill (default: a new one)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the compressed models in this folder")
    quick = parser.add_argument_group("other than what is required, for a quick look; the JSON says so")
    quick.add_argument("--speedup", type=float, help="ask for this speed-up")
    quick.add_argument("--samples", type=int, help="calibration samples")
    quick.add_argument("--rivals", type=int, help="plans that are built and compared")
    return parser.parse_args(arguments)


def main() -> int:
    options = options_of()
    networks = chosen(options.only, tuple(JOBS), "--only")
    methods = chosen(options.methods, METHODS, "--methods")
    for network in networks:
        for path in (JOBS[network].model, JOBS[network].calib.partition(":")[0]):
            if not (ROOT / path).is_file():
                raise SystemExit(f"{path} is not there: {JOBS[network].missing}")
    if options.profile and not options.profile.resolve().parent.is_dir():
        raise SystemExit(f"--profile {options.profile}: its folder does not exist; create it first.")
    record: Row = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "settings": {name: getattr(options, name) for name in ("speedup", "samples", "rivals")},
        "profile": "given" if options.profile else "new",
        "rows": [],
    }
    with tempfile.TemporaryDirectory(prefix="main_job-") as scratch:
        profile = options.profile or Path(scratch) / "profile.sqlite"
        where = Places((options.keep or Path(scratch)).resolve(), profile.resolve(), Path(scratch))
        where.models.mkdir(parents=True, exist_ok=True)
        for network in networks:
            for row in run_network(network, methods, where, options):
                record["rows"].append(row)
                record["requirements"] = judge(record["rows"])
                write_json(options.out, record)
    out = Console(highlight=False)
    out.width = out.width if out.is_terminal else 150  # a log has no width of its own
    out.print(as_table(record["rows"], record["requirements"]))
    missed = sum(not judged["met"] for judged in record["requirements"])
    judged = len(record["requirements"])
    out.print(f"{judged - missed} of {judged} requirements met; every number is in {options.out}", soft_wrap=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
