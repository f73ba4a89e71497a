"""How often `verify` is wrong: two identical models under a bound, and a pair of known speed-up above one.

    python benchmarks/gate_honesty.py [--same 200] [--faster 50] [--idle] [--json FILE]

Both pairs are stacks of equal convolutions with random weights.  The *same* pair is one model twice: a gate of 1.05 may
never pass.  The *faster* pair has so many layers fewer that their number alone makes it 1.3 times as fast; a gate of
1.2 may never fail.  That it really is about 1.3 is measured first, as the median of `KNOWN` long runs.  Meanwhile a
process keeps another core busy with products of matrices, in bursts of random length (`--idle`: none).

Exit code 1 when a verdict was wrong.  The record has every ratio with its interval and the reason for each failure.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

import onnx_layermerge as olm

# (layers, bound, whether it has to pass): layers of the first and of the second model of a pair.
PAIRS = {"same": ((20, 20), 1.05, False), "faster": ((26, 20), 1.2, True)}
KNOWN = 5
CHANNELS, SIZE = 32, 28

err = Console(stderr=True, highlight=False, soft_wrap=True)


def stack(layers: int) -> bytes:
    """``layers`` equal 3×3 convolutions with Relu on [1, 32, 28, 28]."""
    rng = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for number in range(layers):
        weight = rng.standard_normal((CHANNELS, CHANNELS, 3, 3), np.float32) / np.float32(CHANNELS * 3)
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        nodes.append(helper.make_node("Conv", [value, f"w{number}"], [f"c{number}"], pads=[1] * 4))
        value = "y" if number == layers - 1 else f"r{number}"
        nodes.append(helper.make_node("Relu", [f"c{number}"], [value]))
    shape = [1, CHANNELS, SIZE, SIZE]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def burn(seed: int) -> None:
    """A neighbour: works and rests for random whiles."""
    draw, matrix = random.Random(seed), np.random.default_rng(seed).standard_normal((512, 512))
    while True:
        end = time.perf_counter() + draw.uniform(0.05, 2.0)
        while time.perf_counter() < end:
            matrix @ matrix
        time.sleep(draw.uniform(0.0, 0.3))


def run(pair: str, count: int, folder: Path) -> dict[str, Any]:
    """``count`` verdicts on a pair, one after another, each from sessions of its own."""
    layers, bound, passes = PAIRS[pair]
    files = [folder / f"{pair}{number}.onnx" for number in (0, 1)]
    for file, number in zip(files, layers, strict=True):
        onnx.save(onnx.load_from_string(stack(number)), file)
    known = [olm.verify(*files, seed=1000 + number).speedup.ratio for number in range(KNOWN)]
    rows, wrong = [], 0
    begin = time.perf_counter()
    for number in range(count):
        verdict = olm.verify(*files, gate=olm.Gate(min_speedup=bound), seed=number)
        wrong += verdict.passed is not passes
        ratio = verdict.speedup
        rows.append([round(value, 4) for value in (ratio.ratio, ratio.low, ratio.high)])
        err.print(f"{pair} {number + 1}/{count}: {rows[-1]}, wrong {wrong}")
    return {
        "layers": layers,
        "bound": bound,
        "must_pass": passes,
        "known_ratio": round(statistics.median(known), 4),
        "runs": count,
        "wrong": wrong,
        "undecided": sum(low < bound <= high for _, low, high in rows),
        "ratio_least": min(row[0] for row in rows),
        "ratio_most": max(row[0] for row in rows),
        "seconds_each": round((time.perf_counter() - begin) / count, 1),
        "ratio_low_high": rows,
    }


def show(found: dict[str, dict[str, Any]]) -> Table:
    table = Table("pair", "known", "bound", "must", "runs", "wrong", "undecided", "measured", "s a run")
    for name, row in found.items():
        span = f"{row['ratio_least']:.3f} – {row['ratio_most']:.3f}"
        must = "pass" if row["must_pass"] else "fail"
        cells = (f"{row['known_ratio']:.3f}×", f"{row['bound']}×", must, row["runs"], row["wrong"], row["undecided"])
        table.add_row(name, *map(str, cells), span, str(row["seconds_each"]))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--same", type=int, default=200, help="verdicts on two identical models")
    parser.add_argument("--faster", type=int, default=50, help="verdicts on the pair that is 1.3 times as fast")
    parser.add_argument("--idle", action="store_true", help="without the busy neighbour")
    parser.add_argument("--json", type=Path, help="write the record there")
    options = parser.parse_args()
    neighbour = multiprocessing.get_context("spawn").Process(target=burn, args=(0,), daemon=True)
    if not options.idle:
        neighbour.start()
    with tempfile.TemporaryDirectory() as folder:
        counts = {"same": options.same, "faster": options.faster}
        found = {name: run(name, count, Path(folder)) for name, count in counts.items() if count}
    if neighbour.is_alive():
        neighbour.terminate()
    Console(width=110).print(show(found))
    if options.json:
        record = {
            "date": datetime.now(timezone.utc).date().isoformat(),
            "machine": {"cores": os.cpu_count(), "system": platform.system(), "neighbour": not options.idle},
            "versions": {"python": platform.python_version(), "onnxruntime": version("onnxruntime")},
            "pairs": found,
        }
        options.json.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return 1 if any(row["wrong"] for row in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
