"""From plans that were measured to the one model that is written.

1. Plans that beat the target by a small margin are built and ranked by their divergence on validation data, the best
   few by the user's metric where there is one.
2. The best two or so are timed closely and trimmed: what they are faster than asked is given back.
3. The best are finished and timed against the original by their very bytes, in several fresh sessions.
4. A plan nearly as good as the best may take its place when noise spoils the best; a much worse one may not: then the
   loop is asked for plans that are faster by what was missed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from onnx_layermerge.data import Calibration
from onnx_layermerge.errors import ModelError, TargetError
from onnx_layermerge.flow._effort import Effort
from onnx_layermerge.flow._last_timing import as_written
from onnx_layermerge.flow._loop import JOINT, Loop, Plan
from onnx_layermerge.flow._prepare import Prepared, Progress
from onnx_layermerge.flow._rank import Ranked, judge_of, rank
from onnx_layermerge.flow._record import blocks_note, kept_note
from onnx_layermerge.flow._weights import Weights, settle
from onnx_layermerge.latency import Backend, LatencyTable, Ratio
from onnx_layermerge.plan import Choice
from onnx_layermerge.recover import Built
from onnx_layermerge.report import Rejected
from onnx_layermerge.rewrite import finish
from onnx_layermerge.verify import Metric

__all__ = ["Case", "Chosen", "Run", "choose", "made"]

# Two sessions of one model differ by about a percent, so plans aim a little above the target; the last resort does not.
MARGIN = 1.01
# What is trimmed was timed as closely as what is written will be, so it aims less high.
TRIMMED = 1.004
# A finished model that misses says by how much; the next plans are asked for that much more, and this.
BEYOND = 1.005
ATTEMPTS = 4
# A stand-in may lose this much more on validation data, or of the user's metric, than the best plan.
TOLERATED = 1.25


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """What a plan is built and judged on; ``original`` is the input file's model.

    ``held_out``: samples that no fit sees; ``validation``: those, or those and their mixtures, which choose.
    ``everything``: the samples of ``fit_data`` and those that were held out of the same source; None: no such.
    ``refitting``, ``tuning``: what else may move once a plan is built; ``origin`` goes into the output's metadata.
    """

    prepared: Prepared
    fit_data: Calibration | None
    held_out: Calibration
    validation: Calibration
    everything: Calibration | None
    metric: Metric | None
    seed: int
    progress: Progress
    original: ir.Model
    refitting: bool
    tuning: bool
    origin: Mapping[str, str]


@dataclass(frozen=True, eq=False, kw_only=True)
class Run(Case):
    """What a choice works with beside: ``losses`` is what each scored block costs alone."""

    backend: Backend
    table: LatencyTable
    loop: Loop
    losses: Mapping[str, float]


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


def choose(run: Run, bases: Mapping[str, Sequence[Choice]], speedup: float, *, effort: Effort) -> Chosen:
    """The least divergent model found whose measured interval lies above ``speedup``.

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
        # What noise spoils in its trimmed form may do as it was.
        for item in (*_trimmed(run, ranked[: effort.trimmed], bases, speedup), *ranked):
            if item.plan.keys in tried or (not last and _much_worse(run, item, ranked[0])):
                continue
            try:
                chosen = _finished(run, item, speedup)
            except ModelError as error:  # its structure was fine; with these weights the backend refuses it
                run.loop.refused, tried[item.plan.keys] = str(error), _rejected(run, item, 0.0, missed=True)
                continue
            if chosen.speedup.low >= speedup:
                beside = [other for other in ranked if other.plan.keys != item.plan.keys]
                others = [_rejected(run, other, other.plan.measured.ratio) for other in beside]
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


def _trimmed(
    run: Run, best: Sequence[Ranked], bases: Mapping[str, Sequence[Choice]], speedup: float
) -> list[Ranked]:
    """The best plans, less what they do not need once they are timed closely where that does no worse once it is built;
    the best first."""
    judge: Callable[[Plan, int], Ranked] | None = None
    images = 0 if run.fit_data is None else len(run.fit_data)
    found: dict[tuple[str, ...], Ranked] = {}
    for number, item in enumerate(best):
        if _much_worse(run, item, best[0]):
            break
        run.progress("trim", number, len(best), "what the plan does not need")
        plan = run.loop.trimmed(item.plan, bases[item.plan.basis.removesuffix(JOINT)], speedup * TRIMMED)
        if plan is item.plan:
            found[plan.keys] = item
        elif plan.keys not in found:
            judge = judge or judge_of(run.prepared, run.fit_data, run.validation, run.seed)
            gentler = judge(plan, images)
            if run.metric is not None and item.score is not None:
                gentler = replace(gentler, score=run.metric.score(gentler.built.model))
            better = min(gentler, item, key=_order)
            found[better.plan.keys] = better
    run.progress("trim", len(best), len(best), "trimmed")
    return sorted(found.values(), key=_order)


def _order(item: Ranked) -> tuple[float, float, tuple[str, ...]]:
    return -(item.score or 0.0), item.loss, item.plan.keys


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


def _finished(run: Run, item: Ranked, speedup: float) -> Chosen:
    """The plan's model as it would be written, timed by its very bytes."""
    plan = item.plan

    def notes(written: Built) -> dict[str, str]:
        return {
            "blocks": blocks_note(run.prepared, run.loop.timed, run.losses, written, plan.keys),
            "kept": kept_note(run.prepared, run.loop.timed, run.losses, plan.keys),
        }

    weights, model = made(run, item, notes)
    ratio, now = as_written(
        run.backend,
        run.original,
        model,
        run.prepared.bound,
        speedup,
        table=run.table,
        progress=lambda *told: run.progress("verify", *told),
    )
    run.loop.best = max(run.loop.best, ratio.low)
    return Chosen(model, plan, item.loss, weights, ratio, now, ())


def made(case: Case, item: Ranked, notes: Callable[[Built], Mapping[str, str]]) -> tuple[Weights, ir.Model]:
    """A plan's last weights, and the model with them and with what its metadata say; ``notes`` are on the blocks."""
    weights = settle(
        case.prepared,
        item,
        case.fit_data,
        case.everything,
        case.validation,
        refitting=case.refitting,
        tuning=case.tuning,
        metric=case.metric,
        seed=case.seed,
        progress=case.progress,
    )
    provenance = {
        **case.origin,
        "plan": json.dumps(item.plan.keys),
        "basis": item.plan.basis,
        **notes(weights.written),
    }
    if weights.steps:
        provenance["recovery"] = json.dumps(weights.steps)
    if weights.written.refitted:
        provenance["refitted"] = json.dumps(weights.written.refitted)
    return weights, finish(case.prepared.network, weights.written.model, provenance)
