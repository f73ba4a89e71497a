"""Which plan is best is seen once it is built.

Scores of single blocks make the bases that plans are drawn from; every plan is built and held against the original.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.data import Calibration, check_finite
from onnx_layermerge.errors import TargetError
from onnx_layermerge.fit import FITTED
from onnx_layermerge.flow._effort import Effort
from onnx_layermerge.flow._loop import Plan
from onnx_layermerge.flow._prepare import Prepared, Progress
from onnx_layermerge.flow._timed import Timed
from onnx_layermerge.graph import Session
from onnx_layermerge.importance import Scores, collect
from onnx_layermerge.plan import Choice, Joint
from onnx_layermerge.recover import Built, build
from onnx_layermerge.verify import Metric, quality

__all__ = ["Near", "Ranked", "joint_loss", "judge_of", "loss_bases", "rank"]

# From a plan and the keys of those that are known already to new ones around it, timed and fast enough.
Near = Callable[[Plan, Collection[tuple[str, ...]]], Iterable[Plan]]

# A user's metric may take minutes: it sees this many plans, the best by divergence.
JUDGED = 4
# Divergences below this are rounding of the outputs.
ROUNDING = 1e-12

@dataclass(frozen=True, eq=False)
class Ranked:
    """A plan as built on ``images`` samples, its divergence on validation data, and the user's metric if asked.

    ``relative`` is the relative error, which decides where the divergence does not.
    """

    plan: Plan
    built: Built
    loss: float
    score: float | None = None
    images: int = 0
    relative: float = 0.0


def loss_bases(candidates: Sequence[Candidate], scores: Scores, timed: Timed) -> dict[str, tuple[Choice, ...]]:
    """The same blocks with several losses: they rank plans differently, and none is right alone (METHOD §4)."""
    losses = {
        "kl": lambda d: d.kl,
        "relative": lambda d: d.relative,
        "geometric": lambda d: (d.kl * d.relative) ** 0.5,
        "root": lambda d: d.kl**0.5,
    }
    finite = [c for c in candidates if np.isfinite(scores.by_key[c.key].divergence.kl)]
    if not finite:
        raise TargetError(
            "no replacement keeps anything of the outputs on these samples; give more of them to --calib."
        )

    def choices(name: str, members: Sequence[Candidate]) -> tuple[Choice, ...]:
        return tuple(
            Choice(
                c.key,
                c.region.start,
                c.region.stop,
                timed.savings_s[c.key],
                losses[name](scores.by_key[c.key].divergence),
            )
            for c in members
        )

    bases = {}
    drops = [c for c in finite if c.recipe == "drop"]
    if drops:
        bases["drop-only"] = choices("kl", drops)
    if len(drops) < len(finite):
        bases.update({name: choices(name, finite) for name in losses})
    else:
        bases.update({f"drop-only {name}": choices(name, drops) for name in losses if name != "kl"})
    return bases


def joint_loss(scores: Scores) -> Joint | None:
    """What the scored blocks cost together; None when no block leaves the outputs finite."""
    moved = {key: score for key, score in scores.by_key.items() if score.move is not None}
    if not moved:
        return None
    moves = {key: score.move for key, score in moved.items() if score.move is not None}
    return Joint.of({key: score.divergence.kl for key, score in moved.items()}, moves)


def rank(
    prepared: Prepared,
    plans: Sequence[Plan],
    fit_data: Calibration | None,
    validation: Calibration,
    seed: int,
    progress: Progress,
    *,
    effort: Effort,
    metric: Metric | None = None,
    near: Near | None = None,
) -> list[Ranked]:
    """Build every plan on few samples, the best again on all, then plans ``near`` the best; least divergence first.

    With a ``metric`` the ``JUDGED`` best of them come first, in its order.
    """
    by_key = {candidate.key: candidate for candidate in prepared.candidates}
    judge = judge_of(prepared, fit_data, validation, seed)
    everything = len(fit_data) if fit_data is not None else 0

    def attempt(plan: Plan, images: int, done: int) -> Ranked:
        progress("build", done, max(total, done + 1), f"plan {done + 1} of {total} ({plan.basis})")
        return judge(plan, images)

    def fitted(plan: Plan) -> bool:
        return any(by_key[key].recipe in FITTED for key in plan.keys)

    enough = min(effort.ranking_fit, everything)
    again = [plan for plan in plans if fitted(plan)][: effort.finalists] if everything > enough else []
    around = effort.nearby if near is not None and plans else 0
    judged = min(JUDGED, len(plans) + around) if metric is not None and len(plans) + around > 1 else 0
    total = len(plans) + len(again) + around + judged
    first = sorted((attempt(plan, enough, number) for number, plan in enumerate(plans)), key=_order)
    finalists = [item.plan for item in first if fitted(item.plan)][: len(again)]
    last = {plan.keys: attempt(plan, everything, len(plans) + number) for number, plan in enumerate(finalists)}
    ranked = sorted((last.get(item.plan.keys, item) for item in first), key=_order)
    if around and near is not None:
        done = len(plans) + len(again)
        ranked = _searched(ranked, near, around, lambda plan, number: attempt(plan, everything, done + number))
    if metric is not None and len(ranked) > 1:
        best = []
        for number, item in enumerate(ranked[:judged]):
            progress("build", total - judged + number, total, f"the metric of plan {number + 1} of {judged}")
            best.append(replace(item, score=metric.score(item.built.model)))
        ranked = [*sorted(best, key=lambda item: (-(item.score or 0.0), *_order(item))), *ranked[judged:]]
    progress("build", total, total, "built")
    return ranked


def judge_of(
    prepared: Prepared, fit_data: Calibration | None, validation: Calibration, seed: int
) -> Callable[[Plan, int], Ranked]:
    """What builds a plan on so many samples and holds it against the original.

    Raises:
        DataError: the original's outputs are not finite: any plan would look as good as any other.
    """
    network, batch = prepared.network, prepared.batch
    by_key = {candidate.key: candidate for candidate in prepared.candidates}
    wanted = collect(Session(network.model).run, validation.batches(batch))
    check_finite(wanted, validation.source)

    def judge(plan: Plan, images: int) -> Ranked:
        built = build(network, [by_key[key] for key in plan.keys], fit_data, images=images, batch=batch, seed=seed)
        found = quality(wanted, built.model, validation, batch)
        return Ranked(plan, built, found.kl, images=images, relative=found.relative)

    return judge


def _searched(
    ranked: Sequence[Ranked], near: Near, count: int, attempt: Callable[[Plan, int], Ranked]
) -> list[Ranked]:
    """Local search: ``count`` plans around the best, which moves to whatever turns out better."""
    found = sorted(ranked, key=_order)
    tried = {item.plan.keys for item in found}
    best, source = found[0], iter(near(found[0].plan, tried))
    for number in range(count):
        plan = next(source, None)
        if plan is None:
            break
        tried.add(plan.keys)
        item = attempt(plan, number)
        found.append(item)
        if _order(item) < _order(best):
            best, source = item, iter(near(item.plan, tried))
    return sorted(found, key=_order)


def _order(item: Ranked) -> tuple[float, float, tuple[str, ...]]:
    """Least divergence first; a saturated softmax has none for any plan, and then values tell them apart."""
    return max(item.loss, ROUNDING), item.relative, item.plan.keys
