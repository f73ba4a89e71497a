"""Which plan is best is seen once it is built: scores before, real builds after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.data import Calibration, with_mixtures
from onnx_layermerge.errors import TargetError
from onnx_layermerge.fit import FITTED
from onnx_layermerge.flow._loop import Plan
from onnx_layermerge.flow._prepare import Prepared, Progress
from onnx_layermerge.flow._timed import Timed
from onnx_layermerge.graph import Session
from onnx_layermerge.importance import Scores, collect, score
from onnx_layermerge.plan import Choice, Joint
from onnx_layermerge.recover import Built, build
from onnx_layermerge.verify import Metric, quality

__all__ = ["Ranked", "bounded", "joint_loss", "loss_bases", "rank", "scored"]

# Images a fit sees while single blocks, then whole plans, are only being ranked; the finalists are built with all.
# Fewer would be unfair to fitted plans: they gain from every image, drops do not.
SCORING_IMAGES = 96
SCORING_SAMPLES = 64
RANKING_IMAGES = 192
FINALISTS = 3
# A user's metric may take minutes: it sees this many plans, the best by divergence.
JUDGED = 4
# Outputs of images (segmentation) are large; a set of them is held for every candidate of one exit.
OUTPUT_BYTES = 48 << 20


@dataclass(frozen=True, eq=False)
class Ranked:
    """A plan as built on ``images`` samples, its divergence on validation data, and the user's metric if asked."""

    plan: Plan
    built: Built
    loss: float
    score: float | None = None
    images: int = 0


def scored(
    prepared: Prepared,
    candidates: Sequence[Candidate],
    fit_data: Calibration | None,
    validation: Calibration,
    *,
    seed: int,
    mixing: bool = False,
    progress: Progress,
) -> Scores:
    """Importance of every candidate on at most 64 validation samples, and with ``mixing`` on mixtures of them too."""
    judged = validation.take(min(SCORING_SAMPLES, len(validation)), seed)
    return score(
        prepared.network,
        candidates,
        fit_data,
        bounded(prepared, with_mixtures(judged, seed) if mixing else judged, seed),
        images=SCORING_IMAGES,
        batch=prepared.batch,
        seed=seed,
        progress=lambda done, total, what: progress("score", done, total, what),
    )


def bounded(prepared: Prepared, data: Calibration, seed: int) -> Calibration:
    """As many of the samples as keep one set of outputs within ``OUTPUT_BYTES``."""
    sizes = [prepared.shapes[name] for name in prepared.network.outputs if name in prepared.shapes]
    each = max(1, sum(4 * prod(shape[1:]) for shape in sizes))
    return data.take(min(len(data), max(2, prepared.batch, OUTPUT_BYTES // each)), seed)


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
    metric: Metric | None = None,
) -> list[Ranked]:
    """Build every plan on few images, the best again on all; least validation divergence first.

    With a ``metric`` the ``JUDGED`` best of them come first, in its order.
    """
    network, batch = prepared.network, prepared.batch
    by_key = {candidate.key: candidate for candidate in prepared.candidates}
    wanted = collect(Session(network.model).run, validation.batches(batch))
    everything = len(fit_data) if fit_data is not None else 0

    def attempt(plan: Plan, images: int, done: int) -> Ranked:
        progress("build", done, total, f"plan {done + 1} of {total} ({plan.basis})")
        built = build(network, [by_key[key] for key in plan.keys], fit_data, images=images, batch=batch, seed=seed)
        return Ranked(plan, built, quality(wanted, built.model, validation, batch).kl, images=images)

    def fitted(plan: Plan) -> bool:
        return any(by_key[key].recipe in FITTED for key in plan.keys)

    def order(item: Ranked) -> tuple[float, tuple[str, ...]]:
        return item.loss, item.plan.keys

    enough = min(RANKING_IMAGES, everything)
    again = [plan for plan in plans if fitted(plan)][:FINALISTS] if everything > enough else []
    judged = min(JUDGED, len(plans)) if metric is not None and len(plans) > 1 else 0
    total = len(plans) + len(again) + judged
    first = sorted((attempt(plan, enough, number) for number, plan in enumerate(plans)), key=order)
    finalists = [item.plan for item in first if fitted(item.plan)][: len(again)]
    last = {plan.keys: attempt(plan, everything, len(plans) + number) for number, plan in enumerate(finalists)}
    ranked = sorted((last.get(item.plan.keys, item) for item in first), key=order)
    if metric is not None:
        best = []
        for number, item in enumerate(ranked[:judged]):
            progress("build", total - judged + number, total, f"the metric of plan {number + 1} of {judged}")
            best.append(replace(item, score=metric.score(item.built.model)))
        ranked = [*sorted(best, key=lambda item: (-(item.score or 0.0), *order(item))), *ranked[judged:]]
    progress("build", total, total, "built")
    return ranked

