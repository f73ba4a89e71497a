"""What a profile costs: how many blocks are timed for how many candidates, in which time, and again.

    python benchmarks/profile_cost.py mobilenet_v2.onnx resnet34.onnx > rows.json

For each model, with a table and a memory of its own that start empty: one profile from nothing, and the same once
more, both as a user runs it, each in a process of its own.  Seconds are wall time, start of Python included.

With ``--check N``, N candidates (drawn at random) that were given up or skipped are timed in full after all, and the
row says how many of them would have been worth an entry in a plan, and the largest share of the network that such an
entry would have saved.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def profiled(model: str, folder: Path) -> tuple[float, dict[str, Any]]:
    """Wall seconds and report of ``olm profile``."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "olm", "profile", model, "--profile", str(folder / "t.sqlite"), "--json", "-q"]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, env={**os.environ, "XDG_CACHE_HOME": str(folder)}
    )
    return time.perf_counter() - start, json.loads(done.stdout)


def row(model: str, check: int) -> dict[str, Any]:
    """One model's figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first_s, first = profiled(model, folder)
        again_s, again = profiled(model, folder)
        full, candidates = first["timed"], first["candidates"]
        found = {
            "model": Path(model).name,
            "device": first["device"],
            "base_ms": first["base_ms"][model],
            "candidates": candidates,
            "structures": full + first["reused"] + first["bounded"] + first["skipped"],
            "full_measurements": full,
            "share_of_candidates": round(full / candidates, 4),
            "bounds": first["bounded"],
            "skipped": first["skipped"],
            "failed": len(first["failed"]),
            "seconds": round(first_s, 1),
            "again_measurements": again["timed"],
            "again_seconds": round(again_s, 2),
            "warnings": first["warnings"],
        }
        if check:
            found["check"] = checked(model, folder, check)
        return found


def checked(model: str, folder: Path, count: int) -> dict[str, Any]:
    """Time some of what was not timed in full: was any of it worth having?"""
    from onnx_layermerge.flow._latencies import base_latency
    from onnx_layermerge.flow._prepare import prepare
    from onnx_layermerge.flow._sheet import sheet_of
    from onnx_layermerge.flow._timed import LEAST_GAIN, LEAST_SHARE
    from onnx_layermerge.latency import LatencyTable, Measurement, fill, open_backend

    prepared, backend = prepare(model), open_backend()
    sheet, device = sheet_of(prepared), backend.describe()
    with LatencyTable.open(folder / "t.sqlite") as table, LatencyTable.open(folder / "check.sqlite") as own:
        base_s = base_latency(prepared, backend, table)
        held = {key: entry.value for key, entry in table.entries(device).items()}
        untimed = [use for use in sheet.uses if not isinstance(held.get(use.new), Measurement)]
        drawn = random.Random(0).sample(untimed, min(count, len(untimed)))
        # Both sides of the comparison again, in one run.
        keys = dict.fromkeys(key for use in drawn for key in (use.old, use.new))
        fill(own, backend, [sheet.blocks[key] for key in keys], floor_s=LEAST_SHARE * base_s / 2)
        timed = {key: entry.value for key, entry in own.entries(device).items()}
    lost = []
    for use in drawn:
        old, new = timed[use.old], timed[use.new]
        if isinstance(old, Measurement) and isinstance(new, Measurement):
            saved_s = old.seconds - new.seconds
            if saved_s >= max(LEAST_GAIN * old.seconds, LEAST_SHARE * base_s):
                lost.append((saved_s / base_s, use.candidate.key))
    lost.sort(reverse=True)
    return {
        "untimed_candidates": len(untimed),
        "drawn": len(drawn),
        "worth_having": len(lost),
        "largest_saving": round(lost[0][0], 4) if lost else 0.0,
        "which": [f"{key}: {share:.4f}" for share, key in lost[:5]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--check", type=int, default=0, metavar="N")
    words = parser.parse_args()
    print(json.dumps([row(model, words.check) for model in words.models], indent=1))


if __name__ == "__main__":
    main()
