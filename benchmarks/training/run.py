"""Training at equal minutes: reconstruction, distillation behind it, and the paper's method with its training.

    python benchmarks/training/run.py resnet20                        # both speed-ups, all rows
    python benchmarks/training/run.py resnet20 --speedup 2 --row olm+finetune,layermerge-whole --minutes 2
    python benchmarks/training/run.py lite0 --row olm,olm+finetune,layermerge,layermerge+unmerged    # an hour
    python benchmarks/training/run.py lite0 --row layermerge-whole    # hours: importance of a hundred blocks and more
    python benchmarks/training/run.py --device cuda --minutes 60      # the same rows, trained for longer on a GPU
    python benchmarks/training/run.py --page                          # docs/training.md again, from the records

Every training of a table has the same minutes of the process's CPU time, one thread; what the importance trainings of
the paper's rows took is taken off the last training of these rows, but never more than half of it.  With `--device
cuda` the minutes are the clock's, and trainings run there; plans are made for the processor and timed on it all the
same, so these rows differ from those above by their training alone.  All calls of a table are given the same quarter of
the calibration samples as `--val`, so none judges by what it was fitted to.  A row is made by
processes of its own: `work.py` builds or trains, and what `quality/steps.py` measures and scores it takes from the two
files alone.  It lies in benchmarks/records/training/ the moment it is there and is skipped from then on (`--again` runs
it all the same, `--measure` only times and scores its file once more).  The page is written anew after each row, and
models stay in models/training/.  Run it on an idle core: beside busy neighbours one and the same file was measured at
2.12 and at 2.36 times, each within an interval of 3 %, and plans are chosen by such timings.

Needs torch, and the images of `benchmarks/quality/views.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE.parent / "quality"), str(HERE.parent)]

# What is measured starts with this process's memory peak, so no NumPy and no ONNX here.
from jobs import NETWORKS, ROOT  # noqa: E402
from rich.console import Console  # noqa: E402
from rows import package_digest, tree_of  # noqa: E402
from table import DEVICES, HELD_OUT, ROWS, TABLES, file_of, importance_steps, known  # noqa: E402

from main_job import chosen, machine, versions, write_json  # noqa: E402

MODELS = ROOT / "models/training"
# One thread: of BLAS, of OpenMP and with it torch.
ONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
Row = dict[str, Any]
err = Console(stderr=True, highlight=False, soft_wrap=True)


def spawn(step: str, spec: Row, answer: Path) -> Row:
    """Run a step; what it found, or that it broke off."""
    answer.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "work.py"), step, json.dumps(spec), str(answer)]
    code = subprocess.run(command, cwd=ROOT, check=False, env=os.environ | ONE).returncode
    if not answer.is_file():
        return {"error": f"the step {step} ended with code {code} and no answer; it said why above.", "exit_code": code}
    found: Row = json.loads(answer.read_text(encoding="utf-8"))
    return found


def run_row(network: str, speedup: float, name: str, minutes: float, scratch: Path, device: str = "cpu") -> Row:
    """Build or train, measure and score one row, and write it; ``device`` is where it is trained."""
    line = ROWS[name]
    place = file_of(network, speedup, name, minutes, device)
    output = MODELS / f"{place.stem}.onnx"
    spec: Row = {"network": network, "speedup": speedup, "row": name, "minutes": minutes, "device": "cpu"}
    spec |= {"output": str(output), "profile": str(MODELS / f"{network}.sqlite"), "title": place.stem}
    spec |= {"samples": TABLES[network].samples, "importance_steps": importance_steps(network, device)}
    spec |= {"train_on": device, "held_out": HELD_OUT}
    row: Row = {key: spec[key] for key in ("network", "speedup", "row", "minutes", "samples", "importance_steps")}
    row |= {"held_out": HELD_OUT}
    row |= {} if device == "cpu" or line.training == "none" else {"device": device}
    row |= {"method": line.method, "training": line.training, "code": package_digest(), "tree": tree_of()}
    row |= {"machine": machine(), "versions": versions() | {"torch": version("torch")}}
    row |= {"date": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    err.print(f"[bold]{spec['title']}[/]")
    if line.base is not None:
        below = file_of(network, speedup, line.base, minutes)
        built, known_below = MODELS / f"{below.stem}.onnx", known(below)
        stale = known_below is None or not (built.is_file() and digest(built) == known_below.get("sha256"))
        stale = stale or known_below is not None and known_below.get("held_out") != HELD_OUT
        if known_below is None or (stale and not known_below.get("error")):
            known_below = run_row(network, speedup, line.base, minutes, scratch)
        if known_below.get("error"):
            row |= {"error": known_below["error"], "exit_code": known_below["exit_code"]}
            write_json(place, row)
            return row
        row["start"] = spec["start_sha256"] = known_below["sha256"]
        spec["start"] = str(built)
    found = spawn("make", spec, scratch / "answer.json")
    if "device_name" in found:
        row["device_name"] = found.pop("device_name")
    row |= {"error": found.pop("error"), "exit_code": found.pop("exit_code"), "nothing": found.pop("nothing", False)}
    row["build"] = found
    if not row["error"]:
        row["sha256"] = digest(output)
        row |= scored(spec, scratch)
    write_json(place, row)
    err.print(f"  {row['error']}" if row["error"] else f"  {short(row)}")
    return row


def scored(spec: Row, scratch: Path) -> Row:
    """Measured speed-up and held-out answers of the row's file, or why there are none."""
    answer = spawn("score", spec, scratch / "answer.json")
    found = {key: answer.pop(key) for key in ("speed", "scores", "error", "exit_code") if key in answer}
    return found | {"score": answer}


def measure_again(place: Path, row: Row, scratch: Path) -> Row:
    """The row's file measured and scored once more, as on a machine that is idle now; what made it stands."""
    output = MODELS / f"{place.stem}.onnx"
    if not row.get("sha256") or not output.is_file() or digest(output) != row["sha256"]:
        err.print(f"{place.stem}: its file is not there, or another; run it with --again", style="yellow")
        return row
    spec = {"network": row["network"], "output": str(output), "device": "cpu", "title": place.stem}
    again = scored(spec, scratch)
    if again.get("error"):
        err.print(f"{place.stem}: {again['error']}", style="yellow")
        return row
    row = {**row, **again, "measured_on": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    write_json(place, row)
    err.print(f"{place.stem}: {short(row)}")
    return row


def short(row: Row) -> str:
    """One line about a row, while it runs."""
    plain, views = row["scores"]["plain"], row["scores"]["views"]
    return (
        f"{row['speed']['ratio']:.3f}x {plain['correct']}/{plain['images']}, views "
        f"{views['correct'] / views['views']:.1%}, unlabelled {row['scores']['unlabelled']['agreement']:.1%}"
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_page() -> None:
    """docs/training.md, in a process of its own: the comparison needs NumPy."""
    subprocess.run([sys.executable, str(HERE / "training_page.py")], cwd=ROOT, check=True)


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", help=f"one of {', '.join(TABLES)} (default: all)")
    parser.add_argument("--speedup", type=float, action="append", help="repeatable (default: the network's own)")
    parser.add_argument("--row", default=",".join(ROWS), help="rows (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="of every training, of CPU or, with --device cuda, of the clock")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where trainings run (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="also rows that are recorded")
    parser.add_argument("--measure", action="store_true", help="measure the files of recorded rows once more")
    parser.add_argument("--page", action="store_true", help="only write the page")
    return parser.parse_args(arguments)


def main() -> int:
    options = options_of()
    if options.page:
        write_page()
        return 0
    networks = chosen(options.network or ",".join(TABLES), tuple(TABLES), "network")
    wanted = chosen(options.row, tuple(ROWS), "--row")
    MODELS.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="training-") as scratch:
        if options.device != "cpu":
            there = spawn("look", {"train_on": options.device}, Path(scratch) / "answer.json")
            if there["error"]:
                raise SystemExit(there["error"])
        for network in networks:
            if not (ROOT / NETWORKS[network].model).is_file():
                raise SystemExit(f"{NETWORKS[network].model} is not there: {NETWORKS[network].missing}.")
            minutes = options.minutes or TABLES[network].minutes
            for speedup in options.speedup or TABLES[network].speedups:
                for name in (name for name in wanted if name in TABLES[network].rows):
                    place = file_of(network, speedup, name, minutes, options.device)
                    recorded = known(place)
                    if options.measure:
                        if recorded is not None and recorded.get("scores"):
                            measure_again(place, recorded, Path(scratch))
                            write_page()
                        continue
                    if recorded is not None and not options.again:
                        err.print(f"{place.stem}: recorded", style="dim")
                        continue
                    row = run_row(network, speedup, name, minutes, Path(scratch), options.device)
                    failed += bool(row["error"]) and row["exit_code"] != 4 and not row.get("nothing")
                    write_page()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
