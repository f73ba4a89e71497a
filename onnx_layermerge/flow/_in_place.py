"""How much of what the table promises a network really gives, from a few whole plans timed in place.

A slope over copies is taken with other work in the caches than the network has there, and by how much it errs depends
on the machine, on what else runs on it, and on the kind of replacement: long stretches promise too much, narrower
convolutions too little (docs/adr/0011).  So for each recipe a few plans are drawn at random, from that recipe alone,
and timed against the original, as the closed loop times its own:

    factor(recipe) = median over its plans of  (1 − 1/measured) · base / Σ (old − new).

The table remembers these timings, so a second run, or one on another machine, takes none.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic as now_s

import numpy as np
import onnx_ir as ir

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.errors import ModelError, TargetError
from onnx_layermerge.flow._prepare import Prepared, Progress, quiet
from onnx_layermerge.flow._timed import Timed, useful
from onnx_layermerge.graph import to_bytes
from onnx_layermerge.latency import Backend, DeviceKey, LatencyTable, Ratio
from onnx_layermerge.latency.blocks import placeholder
from onnx_layermerge.recover import assemble
from onnx_layermerge.verify import measured_speedup, structure_key

__all__ = ["in_place", "in_place_recorded", "structure"]

# Plans of a recipe, and the shares of the network that they are to save; below LEAST noise would decide.
SHARES = (0.3, 0.2, 0.4)
LEAST = 0.06
# What lies beyond is no bias of a measurement but a fault, which the closed loop will show.
SANE = (0.75, 1.25)

Measure = Callable[[Sequence[Candidate]], Ratio | None]


def structure(prepared: Prepared, plan: Sequence[Candidate]) -> ir.Model:
    """The model with the plan's blocks in place and random weights in them."""
    network = prepared.network
    model, _ = assemble(network, list(plan), lambda number, block, *_: placeholder(network, block, seed=number))
    return model


def in_place(
    prepared: Prepared,
    timed: Timed,
    backend: Backend,
    table: LatencyTable,
    *,
    stop_s: float = float("inf"),
    progress: Progress = quiet,
) -> Timed:
    """The savings times their recipe's factor; plans that the table lacks are timed until ``stop_s``."""
    done = 0

    def measure(plan: Sequence[Candidate]) -> Ratio | None:
        nonlocal done
        if now_s() >= stop_s:
            return None
        done += 1
        progress("plan", done, 0, f"timing a plan of {len(plan)} blocks in place")
        ratio, _ = measured_speedup(
            backend,
            prepared.network.model,
            structure(prepared, plan),
            prepared.bound,
            table=table,
            cap_s=min(4.0, max(0.5, stop_s - now_s())),
            target_half_width=0.006,
        )
        return ratio

    return _scaled(prepared, timed, measure)


def in_place_recorded(prepared: Prepared, timed: Timed, device: DeviceKey, table: LatencyTable) -> Timed:
    """The same from a table alone: plans that it lacks are left out."""
    original = structure_key(to_bytes(prepared.network.model), prepared.bound)

    def measure(plan: Sequence[Candidate]) -> Ratio | None:
        return table.get_pair(device, original, structure_key(to_bytes(structure(prepared, plan)), prepared.bound))

    return _scaled(prepared, timed, measure)


def _scaled(prepared: Prepared, timed: Timed, measure: Measure) -> Timed:
    try:
        candidates = useful(prepared, timed)
    except TargetError:
        return timed
    ratios: dict[str, list[float]] = {}
    for recipe in sorted({candidate.recipe for candidate in candidates}):
        pool = [candidate for candidate in candidates if candidate.recipe == recipe]
        seen: set[tuple[str, ...]] = set()
        for number, share in enumerate(SHARES):
            plan, promised_s = _draw(pool, timed.savings_s, share * timed.base_s, number)
            keys = tuple(candidate.key for candidate in plan)
            if keys in seen or promised_s < LEAST * timed.base_s:
                continue
            seen.add(keys)
            try:
                ratio = measure(plan)
            except ModelError:
                continue
            if ratio is not None:
                ratios.setdefault(recipe, []).append((1 - 1 / ratio.ratio) * timed.base_s / promised_s)
    if not ratios:
        return timed
    low, high = SANE
    every = statistics.median(value for values in ratios.values() for value in values)
    factors: dict[str, float] = {
        recipe: min(max(statistics.median(ratios.get(recipe, [every])), low), high)
        for recipe in sorted({candidate.recipe for candidate in prepared.candidates})
    }
    savings = {
        candidate.key: factors[candidate.recipe] * timed.savings_s[candidate.key]
        for candidate in prepared.candidates
        if candidate.key in timed.savings_s
    }
    return replace(timed, savings_s=savings, in_place=factors)


def _draw(
    pool: Sequence[Candidate], savings_s: Mapping[str, float], wanted_s: float, seed: int
) -> tuple[list[Candidate], float]:
    """Candidates in random order, none over another, until they save ``wanted_s``; and what they save."""
    plan: list[Candidate] = []
    saved_s = 0.0
    for index in np.random.default_rng(seed).permutation(len(pool)):
        candidate = pool[index]
        region = candidate.region
        apart = all(region.stop <= other.region.start or other.region.stop <= region.start for other in plan)
        # A block much larger than what is missing would make every plan the same one.
        if apart and saved_s + savings_s[candidate.key] <= 1.5 * wanted_s:
            plan.append(candidate)
            saved_s += savings_s[candidate.key]
        if saved_s >= wanted_s:
            break
    return sorted(plan, key=lambda candidate: candidate.region.start), saved_s
