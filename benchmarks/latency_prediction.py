"""How well a table of blocks predicts whole networks: predicted against measured speed-up, plan by plan.

For each network the table is filled as ``olm profile`` does it. Then plans are drawn: non-overlapping candidates in
random order, of one kind or of all, until the table promises a wanted speed-up. The structure of each plan is built
and timed interleaved with the original. Beside it stands what the same plan would be promised by blocks timed alone:
each cut out at its own ends, one copy, and added up.

    python benchmarks/zoo/export.py mobilenet_v2 --size 224 --into models/224 --exporters torchscript
    python benchmarks/latency_prediction.py mobilenet_v2=models/224/mobilenet_v2.torchscript.onnx … \
        --plans 12 --loop --record benchmarks/records/latency_prediction.json

CPU time of one thread; ratios from interleaved runs. The closed loop (asked against reached) follows with --loop.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.errors import TargetError
from onnx_layermerge.flow._latencies import latencies
from onnx_layermerge.flow._loop import Loop
from onnx_layermerge.flow._prepare import Prepared, prepare
from onnx_layermerge.flow._timed import Timed, useful
from onnx_layermerge.graph import append_series, extract, model_of, to_bytes
from onnx_layermerge.latency import Backend, LatencyTable, open_backend
from onnx_layermerge.latency._clock import cpu_clock
from onnx_layermerge.latency._sampling import repeats_for, sample
from onnx_layermerge.latency.blocks import placeholder
from onnx_layermerge.plan import Choice, solve

KINDS = (("drop",), ("fit", "merge", "low-rank"), ("width",), ("drop", "fit", "merge", "width", "low-rank"))
ASKED = (1.1, 1.25, 1.5, 1.75, 2.0)


def apart(one: Candidate, two: Candidate) -> bool:
    return one.region.stop <= two.region.start or two.region.stop <= one.region.start


def draw(candidates: Sequence[Candidate], timed: Timed, wanted: float, rng: np.random.Generator) -> list[Candidate]:
    """Candidates in random order until the table promises ``wanted``."""
    needed = timed.base_s * (1 - 1 / wanted)
    plan: list[Candidate] = []
    saved = 0.0
    for index in rng.permutation(len(candidates)):
        candidate = candidates[index]
        if saved < needed and all(apart(candidate, other) for other in plan):
            plan.append(candidate)
            saved += timed.savings_s[candidate.key]
    return sorted(plan, key=lambda candidate: candidate.region.start)


class Alone:
    """Seconds of a region, or of its replacement, cut out at its own ends: what a naive table would hold."""

    def __init__(self, prepared: Prepared, backend: Backend) -> None:
        self.prepared, self.backend = prepared, backend
        self.known: dict[bytes, float] = {}

    def saving(self, candidate: Candidate) -> float:
        network, region = self.prepared.network, candidate.region
        before = extract(network.model, [region.entry, *region.sides], [region.exit])
        if not candidate.stages:
            return self.seconds(to_bytes(before))
        after = extract(network.model, [region.entry], [region.entry])
        nodes, value = append_series(after.graph, after.graph.inputs[0], placeholder(network, candidate), "new")
        after.graph.extend(nodes)
        value.name, value.type = "new.out", network.values[region.exit].type
        after.graph.outputs[0] = value
        return self.seconds(to_bytes(before)) - self.seconds(to_bytes(model_of(after.graph, network.model)))

    def seconds(self, model: bytes, rounds: int = 25) -> float:
        if model not in self.known:
            import onnx

            names = [value.name for value in onnx.load_from_string(model).graph.input]
            runnable = self.backend.build(model, {name: self.prepared.shapes[name] for name in names})
            try:
                once = statistics.median(sample(runnable, 1, cpu_clock).seconds for _ in range(5))
                repeats = repeats_for(once)
                times = [sample(runnable, repeats, cpu_clock).seconds for _ in range(rounds)]
            finally:
                runnable.close()
            self.known[model] = statistics.median(times)
        return self.known[model]


def predictions(prepared: Prepared, timed: Timed, loop: Loop, plans: int, seed: int) -> list[dict[str, object]]:
    """One row a plan."""
    alone, rng = Alone(prepared, loop.backend), np.random.default_rng(seed)
    candidates = useful(prepared, timed)
    rows: list[dict[str, object]] = []
    seen: set[tuple[str, ...]] = set()
    for number in range(10 * plans):
        kinds = KINDS[number % len(KINDS)]
        pool = [candidate for candidate in candidates if candidate.recipe in kinds]
        plan = draw(pool, timed, rng.uniform(1.1, 2.0), rng)
        keys = tuple(candidate.key for candidate in plan)
        if not keys or keys in seen or len(rows) >= plans:
            continue
        seen.add(keys)
        measured = loop.time(keys)
        saved = sum(alone.saving(candidate) for candidate in plan)
        by_alone = timed.base_s / max(timed.base_s - saved, 0.05 * timed.base_s)
        predicted = loop.predicted(keys)
        rows.append(
            {
                "kinds": "+".join(kinds),
                "blocks": len(keys),
                "predicted": round(predicted, 4),
                "measured": round(measured.ratio, 4),
                "interval": [round(measured.low, 4), round(measured.high, 4)],
                "error": round(predicted / measured.ratio - 1, 4),
                "error_alone": round(by_alone / measured.ratio - 1, 4),
            }
        )
        print("  ", rows[-1], flush=True)
    return rows


def closed_loop(prepared: Prepared, timed: Timed, loop: Loop, seed: int) -> list[dict[str, object]]:
    """Asked against reached: what the loop makes of the table's errors.

    Losses grow faster than savings, as those of real blocks do, with a random factor; blocks that save a quarter of
    the network at no cost would leave the frontier no steps to stop at.
    """
    rng = np.random.default_rng(seed)
    choices = []
    for candidate in useful(prepared, timed):
        saved = timed.savings_s[candidate.key]
        loss = (saved / timed.base_s) ** 1.5 * float(rng.lognormal(0.0, 0.5))
        choices.append(Choice(candidate.key, candidate.region.start, candidate.region.stop, saved, loss))
    most = solve(choices)
    reachable = timed.base_s / max(timed.base_s - most.best_saving, 1e-3 * timed.base_s)
    rows: list[dict[str, object]] = []
    for asked in ASKED:
        if asked > 0.97 * reachable:
            rows.append({"asked": asked, "reached": None, "why": f"the table promises at most {reachable:.2f}"})
            continue
        try:
            plan, _ = loop.reach("random", choices, asked)
        except TargetError as error:
            rows.append({"asked": asked, "reached": None, "why": str(error)})
            continue
        row: dict[str, object] = {"asked": asked, "reached": None}
        if plan is not None:
            ratio = plan.measured
            row |= {"reached": round(ratio.ratio, 4), "interval": [round(ratio.low, 4), round(ratio.high, 4)]}
            row["overshoot"] = round(ratio.ratio / asked - 1, 4)
        rows.append(row)
        print("  ", row, flush=True)
    return rows


def summary(rows: Sequence[dict[str, object]]) -> dict[str, float]:
    errors = [abs(float(str(row["error"]))) for row in rows]
    alone = [abs(float(str(row["error_alone"]))) for row in rows]
    pairs = [(float(str(row["predicted"])), float(str(row["measured"]))) for row in rows]
    return {
        "mean_error": round(statistics.mean(errors), 4),
        "max_error": round(max(errors), 4),
        "spearman": round(float(spearmanr(*zip(*pairs, strict=True)).statistic), 4),
        "mean_error_alone": round(statistics.mean(alone), 4),
        "max_error_alone": round(max(alone), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--plans", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", default="models/latency_prediction.sqlite")
    parser.add_argument("--loop", action="store_true", help="also asked against reached")
    parser.add_argument("--record", help="JSON file to write; other networks in it stay")
    words = parser.parse_args()
    record = Path(words.record) if words.record else None
    known = json.loads(record.read_text()) if record is not None and record.exists() else {}
    backend = open_backend("onnxruntime", "cpu")
    for given in words.models:
        name, _, path = given.partition("=")
        start = time.perf_counter()
        with LatencyTable.open(words.profile) as table:
            prepared = prepare(path)
            timed = latencies(prepared, backend, table)
            spent = time.perf_counter() - start
            print(f"{name}: {len(prepared.candidates)} candidates, {timed.timed} blocks timed in {spent:.0f} s")
            loop = Loop(prepared, timed, backend, table)
            rows = predictions(prepared, timed, loop, words.plans, words.seed)
            result: dict[str, object] = {"device": backend.describe().text(), "base_ms": round(timed.base_s * 1e3, 3)}
            result |= {"summary": summary(rows), "plans": rows}
            print(f"{name}: {result['summary']}", flush=True)
            if words.loop:
                result["loop"] = closed_loop(prepared, timed, loop, words.seed)
        known[name] = result
        if record is not None:
            record.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
