"""Accuracy kept at one measured speed-up: this tool, the paper's merge, and other tools, on the same images.

    python benchmarks/quality/run.py resnet20 --speedup 1.5                  # all methods, one table
    python benchmarks/quality/run.py lite0 --speedup 1.3 --method olm,drop   # some rows
    python benchmarks/quality/run.py lite0 --speedup 1.3 --method olm --set seed=1 --set samples=128
    python benchmarks/quality/run.py lite0 --device launch-bound             # on a synthetic device (launch_bound.py)
    python benchmarks/quality/run.py --page                                  # docs/quality.md again, from the records

A row is a method at a speed-up on a network. Two processes make it: one builds the model, and one takes speed-up and
answers from the two files alone, believing nothing that the first said. Speed-up is `olm.verify`'s, the median of
three: both models in turn within one run, process CPU time, one thread. It lies in benchmarks/records/quality/ the
moment it is there; a row that is there for the very source files that it was made by is skipped (`--again` runs it
all the same; `--missing` also skips rows of older code, which the page marks). The page is written anew after each row.

Rivals get the same calibration images, all of them, while our own method holds a quarter back to choose between plans;
their one knob is searched until the measured speed-up fits (search.py).  `NAME+refit` is the model of NAME with every
convolution solved again near its weights (refit.py).  Built models stay in models/quality/.

Needs torch, and `pip install --no-deps torch-pruning==1.6.1 onnxsim==0.8.1`, for the methods tp-… and onnxsim….
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))

# On Linux a new process inherits its parent's memory peak, so this one must stay small: no NumPy, no ONNX here.
from jobs import DEVICES, METHODS, NETWORKS, OLM, ROOT  # noqa: E402
from rich.console import Console  # noqa: E402
from rows import code_digest, file_of, outdated, tree_of, variant_of  # noqa: E402

from main_job import chosen, machine, versions, write_json  # noqa: E402

MODELS = ROOT / "models/quality"
Row = dict[str, Any]
err = Console(stderr=True, highlight=False, soft_wrap=True)


def spawn(step: str, spec: Row, answer: Path) -> Row:
    """Run a step from the repository root; what it found, or that it broke off."""
    answer.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "steps.py"), step, json.dumps(spec), str(answer)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if not answer.is_file():
        return {"error": f"the step {step} ended with code {code} and no answer; it said why above.", "exit_code": code}
    found: Row = json.loads(answer.read_text(encoding="utf-8"))
    return found


def run_row(network: str, speedup: float, method: str, options: argparse.Namespace, scratch: Path) -> Row:
    """Build, measure and score one row, and write it."""
    settings, variant = options.settings, variant_of(options.settings)
    place = file_of(network, speedup, method, options.device, variant)
    output = MODELS / place.with_suffix(".onnx").name
    spec: Row = {"network": network, "speedup": speedup, "method": method, "device": options.device}
    spec |= {"settings": settings, "output": str(output), "title": f"{network} {speedup:g}x {method}"}
    profile = options.profile or MODELS / f"{network}-{options.device}.sqlite"
    spec |= {"profile": str(profile.resolve())}
    row: Row = {name: spec[name] for name in ("network", "speedup", "method", "device", "settings")}
    row |= {"variant": variant, "code": code_digest(method), "tree": tree_of(), "machine": machine()}
    row |= {"versions": versions(), "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    base, _, after = method.partition("+")
    if after:
        below = known(file_of(network, speedup, base, options.device, variant))
        built = output.with_name(file_of(network, speedup, base, options.device, variant).stem + ".onnx")
        fresh = below is not None and not below.get("error") and below["code"] == code_digest(base)
        if not (fresh and built.is_file() and digest(built) == below["sha256"]):  # type: ignore[index]
            below = run_row(network, speedup, base, options, scratch)
        if below.get("error"):
            row |= {"error": below["error"], "exit_code": below["exit_code"]}
            write_json(place, row)
            return row
        spec["base"] = str(built)
        row["base"] = below["build"]
    err.print(f"[bold]{spec['title']}[/] {variant} {'' if options.device == 'cpu' else options.device}")
    found = spawn("build", spec, scratch / "answer.json")
    row |= {"error": found.pop("error"), "exit_code": found.pop("exit_code"), "build": found}
    if not row["error"]:
        row["sha256"] = digest(output)
        answer = spawn("score", spec, scratch / "answer.json")
        row |= {name: answer.pop(name) for name in ("speed", "scores", "error", "exit_code") if name in answer}
        row["score"] = answer
    write_json(place, row)
    if row["error"]:
        err.print(f"  {row['error']}", style="yellow")
    else:
        err.print(f"  {row['speed']['ratio']:.3f}x {short(row['scores'])}")
    return row


def short(scores: Row) -> str:
    """One line about a row, while it runs."""
    said = f"unlabelled agreement {scores['unlabelled']['agreement']:.1%}"
    if "plain" in scores:
        plain, views = scores["plain"], scores["views"]
        said = f"{plain['correct']}/{plain['images']}, views {views['correct'] / views['views']:.1%}, {said}"
    else:
        said = f"worst SNR {scores['drift']['snr_db']:.1f} dB, rank {scores['drift']['rank_correlation']:.3f}, {said}"
    return said


def known(place: Path) -> Row | None:
    """The row that lies there."""
    if not place.is_file():
        return None
    found: Row = json.loads(place.read_text(encoding="utf-8"))
    return found


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_page() -> None:
    """docs/quality.md, in a process of its own: the comparison needs NumPy."""
    subprocess.run([sys.executable, str(HERE / "quality_page.py")], cwd=ROOT, check=True)


def setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value a number where it reads as one."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", help=f"one of {', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--speedup", type=float, action="append", help="repeatable (default: the network's own)")
    parser.add_argument("--method", default=",".join(METHODS), help="methods (default: %(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="launch-bound is synthetic")
    parser.add_argument("--profile", type=Path, help="latency table (default: one for the network in models/quality)")
    parser.add_argument("--set", dest="settings", type=setting, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--again", action="store_true", help="also rows that are recorded for this very code")
    parser.add_argument("--missing", action="store_true", help="only rows that are recorded for no code at all")
    parser.add_argument("--page", action="store_true", help="only write the page")
    found = parser.parse_args(arguments)
    found.settings = dict(found.settings)
    return found


def main() -> int:
    options = options_of()
    if options.page:
        write_page()
        return 0
    networks = chosen(options.network or ",".join(NETWORKS), tuple(NETWORKS), "network")
    methods = chosen(options.method, METHODS, "--method")
    MODELS.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="quality-") as scratch:
        for network in networks:
            if not (ROOT / NETWORKS[network].model).is_file():
                raise SystemExit(f"{NETWORKS[network].model} is not there: {NETWORKS[network].missing}.")
            for speedup in options.speedup or NETWORKS[network].speedups:
                for method in methods:
                    place = file_of(network, speedup, method, options.device, variant_of(options.settings))
                    row = known(place)
                    skipped = row is not None if options.missing else not outdated(row, code_digest(method))
                    if skipped and not options.again:
                        err.print(f"{place.stem}: recorded", style="dim")
                        continue
                    row = run_row(network, speedup, method, options, Path(scratch))
                    # That a rival cannot reach a speed-up is a result; that a step broke off is none.
                    failed += bool(row["error"]) and (row["exit_code"] != 4 or method in OLM[:1])
                    write_page()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
