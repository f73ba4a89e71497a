"""From plans that were measured to the one model that is written.

1. Plans that beat the target by a small margin are built and ranked by their divergence on validation data, the best
   few by the user's metric where there is one.
2. The best are finished and timed against the original by their very bytes, in several fresh sessions.
3. A plan nearly as good as the best may take its place when noise spoils the best; a much worse one may not: then the
   loop is asked for plans that are faster by what was missed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from onnx_layermerge.data import Calibration
from onnx_layermerge.errors import ModelError, TargetError
from onnx_layermerge.flow._effort import Effort
from onnx_layermerge.flow._loop import Loop, Plan
from onnx_layermerge.flow._prepare import Prepared, Progress
from onnx_layermerge.flow._rank import Ranked, rank
from onnx_layermerge.flow._record import blocks_note, kept_note
from onnx_layermerge.flow._weights import Weights, settle
from onnx_layermerge.latency import Backend, LatencyTable, Ratio
from onnx_layermerge.plan import Choice
from onnx_layermerge.report import Rejected
from onnx_layermerge.rewrite import finish
from onnx_layermerge.verify import Metric, measured_speedup

__all__ = ["Chosen", "Run", "choose"]

# Two sessions of one model differ by about a percent, so plans aim a little above the target; the last resort does not.
MARGIN = 1.01
# A finished model that misses says by how much; the next plans are asked for that much more, and this.
BEYOND = 1.005
ATTEMPTS = 4
# A stand-in may lose this much more on validation data, or of the user's metric, than the best plan.
TOLERATED = 1.25
SESSIONS = 3


@dataclass(frozen=True, eq=False)
class Run:
    """Everything a choice works with; ``original`` is the input file's model.

    ``losses`` is what each scored block costs alone; ``everything``: the samples of ``fit_data`` and those that were
    held out of the same source; None: no such.
    """

    prepared: Prepared
    backend: Backend
    table: LatencyTable
    loop: Loop
    fit_data: Calibration | None
    validation: Calibration
    seed: int
    progress: Progress
    original: ir.Model
    losses: Mapping[str, float]
    metric: Metric | None = None
    everything: Calibration | None = None


@dataclass(frozen=True, eq=False)
class Chosen:
    """The finished model, the plan behind it with its divergence where plans were compared, its measured speed-up, and
    what was turned down."""

    model: ir.Model
    plan: Plan
    loss: float
    weights: Weights
    speedup: Ratio
    measured_now: bool
    rejected: tuple[Rejected, ...]


def choose(
    run: Run,
    bases: Mapping[str, Sequence[Choice]],
    speedup: float,
    *,
    effort: Effort,
    refitting: bool,
    tuning: bool,
    origin: Mapping[str, str],
) -> Chosen:
    """The least divergent model found whose measured interval lies above ``speedup``.

    ``origin`` goes into its metadata.

    Raises:
        TargetError: there is none; the message names the best measured speed-up.
    """
    tried: dict[tuple[str, ...], Rejected] = {}
    margin = MARGIN
    for attempt in range(ATTEMPTS):
        last = attempt == ATTEMPTS - 1 or margin == 1.0
        margin = 1.0 if last else margin
        try:
            plans = run.loop.plans(bases, speedup * margin, count=effort.rivals, seed=run.seed)
        except TargetError:
            margin = 1.0
            continue
        missed = 1.0
        fresh = [plan for plan in plans if plan.keys not in tried]
        ranked = rank(
            run.prepared,
            fresh,
            run.fit_data,
            run.validation,
            run.seed,
            run.progress,
            effort=effort,
            metric=run.metric,
            near=partial(run.loop.near, bases=bases, speedup=speedup * margin, seed=run.seed),
        )
        for item in ranked:
            if not last and _much_worse(run, item, ranked[0]):
                break
            try:
                chosen = _finished(run, item, refitting, tuning, origin)
            except ModelError as error:  # its structure was fine; with these weights the backend refuses it
                run.loop.refused, tried[item.plan.keys] = str(error), _rejected(run, item, 0.0, missed=True)
                continue
            if chosen.speedup.low >= speedup:
                others = [_rejected(run, other, other.plan.measured.ratio) for other in ranked if other is not item]
                found = {**{other.blocks: other for other in others}, **tried}
                return replace(chosen, rejected=tuple(found.values()))
            tried[item.plan.keys] = _rejected(run, item, chosen.speedup.ratio, missed=True)
            missed = max(missed, speedup / chosen.speedup.low)
        if last:
            break
        margin *= missed * BEYOND
    best = run.loop.best
    if tried and best >= speedup:
        raise TargetError(
            f"plans were timed at up to {best:.2f}×, but none held {speedup:g}× when it was timed again as it would be "
            "written: run again on an idle machine, or ask for a little less."
        )
    raise run.loop.unreachable(speedup)


def _rejected(run: Run, item: Ranked, speedup: float, *, missed: bool = False) -> Rejected:
    plan, expected = item.plan, sum(run.losses[key] for key in item.plan.keys)
    return Rejected(plan.basis, speedup, item.loss, plan.keys, item.score, plan.predicted, expected, missed)


def _much_worse(run: Run, item: Ranked, best: Ranked) -> bool:
    """Whether ``item`` is no stand-in for the best plan, by the metric where the best has one."""
    if run.metric is None or best.score is None:
        return item.loss > TOLERATED * best.loss
    if item.score is None:
        return True
    original = run.metric.original
    return original - item.score > TOLERATED * max(original - best.score, 0.0)


def _finished(run: Run, item: Ranked, refitting: bool, tuning: bool, origin: Mapping[str, str]) -> Chosen:
    """The plan's model as it would be written, timed by its very bytes."""
    plan = item.plan
    weights = settle(
        run.prepared,
        item,
        run.fit_data,
        run.everything,
        run.validation,
        refitting=refitting,
        tuning=tuning,
        metric=run.metric,
        seed=run.seed,
        progress=run.progress,
    )
    network = run.prepared.network
    timed, written = run.loop.timed, weights.written
    provenance = {
        **origin,
        "plan": json.dumps(plan.keys),
        "basis": plan.basis,
        "blocks": blocks_note(run.prepared, timed, run.losses, written, plan.keys),
        "kept": kept_note(run.prepared, timed, run.losses, plan.keys),
    }
    if weights.steps:
        provenance["recovery"] = json.dumps(weights.steps)
    if weights.written.refitted:
        provenance["refitted"] = json.dumps(weights.written.refitted)
    model = finish(network, written.model, provenance)
    ratio, now = measured_speedup(
        run.backend,
        run.original,
        model,
        run.prepared.bound,
        table=run.table,
        exact=True,
        sessions=SESSIONS,
        cap_s=30.0,
        target_half_width=0.005,
        progress=lambda done, total, what: run.progress("verify", done, total, what),
    )
    run.loop.best = max(run.loop.best, ratio.low)
    return Chosen(model, plan, item.loss, weights, ratio, now, ())
