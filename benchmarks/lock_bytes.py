"""Whether one plan gives the same bytes: again and again, in several Pythons.

    python benchmarks/lock_bytes.py PYTHON [PYTHON …] [--runs 3] [--speedup 1.3] [--json FILE]

The first PYTHON compresses the digits network of examples/mnist with `--plan`; then each makes the file `--runs` times,
by turns with `--lock` (held to the recorded bytes by olm itself) and without (followed and timed again).  Digests of
all files are compared here, too.  Each PYTHON has to have the dependencies of requirements/run.txt, in one set of
versions; olm itself is taken from this checkout.  Exit code 1 where a byte differs.
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
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
SAMPLES, INPUT = 256, "image"


def olm(python: str, words: list[str], folder: Path) -> None:
    """One command of this checkout in another Python, on as many BLAS threads as that likes."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "cli")))
    environment = {**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(folder / "cache")}
    subprocess.run([python, "-m", "olm", *words], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def versions(python: str, folder: Path) -> dict[str, Any]:
    paths = os.pathsep.join((str(ROOT), str(ROOT / "cli")))
    done = subprocess.run(
        [python, "-m", "olm", "--version", "--json"], cwd=folder, env={**os.environ, "PYTHONPATH": paths},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="interpreters with the locked dependencies")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--speedup", default="1.3")
    parser.add_argument("--json", type=Path, help="write the record there")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sys.path.insert(0, str(ROOT / "examples" / "mnist"))
        from data import load

        np.savez(folder / "calib.npz", **{INPUT: load()[0][:SAMPLES]})
        words = ["compress", str(ROOT / "examples" / "mnist" / "resnet20.onnx")]
        common = ["--speedup", options.speedup, "--calib", "calib.npz", "--plan", "plan.json", "-q"]
        olm(options.pythons[0], [*words, "first.onnx", *common], folder)
        wanted = hashlib.sha256((folder / "first.onnx").read_bytes()).hexdigest()
        for python in options.pythons:
            said = versions(python, folder)
            for run in range(options.runs):
                lock = ["--lock"] if run % 2 == 0 else []
                olm(python, [*words, "again.onnx", *common, *lock], folder)
                digest = hashlib.sha256((folder / "again.onnx").read_bytes()).hexdigest()
                rows.append({**said, "lock": bool(lock), "sha256": digest, "same": digest == wanted})
    table = Table("python", "numpy", "scipy", "onnxruntime", "lock", "sha256", "same bytes")
    for row in rows:
        held = row["libraries"]
        cells = [row["python"], *(str(held.get(each)) for each in ("numpy", "scipy", "onnxruntime"))]
        table.add_row(*cells, "yes" if row["lock"] else "no", row["sha256"][:12], "yes" if row["same"] else "NO")
    Console(width=110).print(table)
    if options.json:
        record = {"date": datetime.now(timezone.utc).date().isoformat(), "first": wanted, "rows": rows}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["same"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
