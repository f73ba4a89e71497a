"""A case and a device → the best plan found: blocks are timed and scored, plans are drawn, built, judged and timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.flow._choose import Case, Chosen, Run, choose
from onnx_layermerge.flow._effort import Effort
from onnx_layermerge.flow._importance import Importance
from onnx_layermerge.flow._latencies import latencies
from onnx_layermerge.flow._loop import Loop
from onnx_layermerge.flow._rank import joint_loss, loss_bases
from onnx_layermerge.flow._record import frontier
from onnx_layermerge.flow._recorded import MISMATCH, recorded
from onnx_layermerge.flow._scores import scored
from onnx_layermerge.flow._timed import Timed, useful
from onnx_layermerge.latency import Backend, DeviceKey, LatencyTable
from onnx_layermerge.report import Point

__all__ = ["Found", "Place", "search"]


@dataclass(frozen=True)
class Place:
    """The device that a result counts for, as a table's key in words and as a digest; ``mismatch`` is the one whose
    times it was planned with, where that is another."""

    text: str
    digest: str
    mismatch: str | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """A chosen plan, what is known of blocks (times, what each costs alone), the frontiers that it was chosen from
    (empty where a plan file was followed), and sentences on what was odd."""

    chosen: Chosen
    timed: Timed
    losses: Mapping[str, float]
    points: tuple[Point, ...] = ()
    drop_only: tuple[Point, ...] = ()
    warnings: tuple[str, ...] = ()


def search(
    case: Case,
    *,
    opened: Backend,
    profile: str | Path | None,
    other: DeviceKey | None,
    speedup: float,
    effort: Effort,
    single: bool,
    mark: Callable[[str], None],
    importance: Importance | None = None,
) -> Found:
    """Time, score, plan, build, choose; ``mark`` is told the name of each stage at its end.

    ``other`` is the device whose times in ``profile`` stand in for those of ``opened``; ``single`` builds one plan.
    ``importance`` scores blocks, and says what they lose, in the place of what one look at them says.

    Raises:
        TargetError: no plan is as fast as asked; the message names the best measured speed-up.
    """
    prepared, progress, seed = case.prepared, case.progress, case.seed
    with LatencyTable.open(profile) as table:
        warnings: tuple[str, ...] = ()
        if other is None:
            timed = latencies(prepared, opened, table, seed=seed, progress=progress)
        else:
            timed = recorded(prepared, other, table).timed
            warnings = (MISMATCH.format(other=other.text(), here=opened.describe().text()),)
        warnings += timed.warnings
        mark("time blocks")
        candidates = useful(prepared, timed)
        scores = importance.scores(case, candidates, effort) if importance is not None else scored(
            prepared,
            candidates,
            case.fit_data,
            case.held_out,
            effort=effort,
            seed=seed,
            mixing=case.validation is not case.held_out,
            progress=progress,
        )
        mark("score blocks")
        bases = loss_bases(candidates, scores, timed) if importance is None else importance.bases(candidates, timed)
        points = frontier(bases["kl"], timed.base_s) if "kl" in bases else ()
        drop_only = frontier(bases["drop-only"], timed.base_s) if "drop-only" in bases else ()
        if single:
            name = "kl" if "kl" in bases else next(iter(bases))
            bases, effort = {name: bases[name]}, dataclasses.replace(effort, rivals=1, nearby=0)
        losses = {candidate.key: scores.by_key[candidate.key].divergence.kl for candidate in candidates}
        fields = {field.name: getattr(case, field.name) for field in dataclasses.fields(case)}
        loop = Loop(prepared, timed, opened, table, progress, joint_loss(scores))
        chosen = choose(
            Run(**fields, backend=opened, table=table, loop=loop, losses=losses), bases, speedup, effort=effort
        )
    return Found(chosen, timed, losses, points, drop_only, warnings)
