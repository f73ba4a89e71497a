"""A plan file and a model of the same structure → the model that the plan makes of it; nothing is searched.

1. *Followed*: the plan's blocks are fitted again, on the samples that are there now, for whatever weights the model has
   now.  The result is timed here; where the plan's device is not here, what was measured there of a model of the same
   structure stands, since weights do not matter for time.
2. *Locked*: as before, from the same model and samples, and the bytes must be those that were measured when the plan
   was made.  Nothing is timed then.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir

from onnx_layermerge.errors import DeviceError, PlanError, TargetError
from onnx_layermerge.flow._choose import Case, Chosen, made
from onnx_layermerge.flow._last_timing import as_written
from onnx_layermerge.flow._loop import Plan
from onnx_layermerge.flow._plan_file import PlanFile, processor, structure_of
from onnx_layermerge.flow._rank import Ranked
from onnx_layermerge.flow._record import blocks_note, versions
from onnx_layermerge.flow._search import Found, Place
from onnx_layermerge.flow._timed import Timed
from onnx_layermerge.graph import to_bytes
from onnx_layermerge.latency import Backend, Ratio
from onnx_layermerge.recover import Built, build
from onnx_layermerge.verify import outputs_of, quality

__all__ = ["follow", "hold", "output_digest", "place_of"]

ELSEWHERE = (
    "nothing was timed here ({why}): {ratio:.3f}× is what the plan's own output took on {device}, a model of the same"
    " structure"
)
PLANNED = "the plan's times of blocks, which the report repeats, are of {other}; the whole result is of {here}"


def place_of(
    plan: PlanFile, here: Callable[[], Backend], lock: bool
) -> tuple[Place, Backend | DeviceError | None]:
    """The device that the result counts for, and where to time it; see ``follow``."""
    recorded = Place(plan.device, plan.device_digest, plan.mismatch)
    if lock:
        return recorded, None
    try:
        opened = here()
    except DeviceError as error:
        return recorded, error
    key = opened.describe()
    # Times of blocks stay those of the device that they were taken on.
    other = plan.mismatch or (plan.device if key.digest() != plan.device_digest else None)
    return Place(key.text(), key.digest(), other), opened


def _recorded_times(plan: PlanFile) -> tuple[Timed, dict[str, float]]:
    """What the plan knows of its blocks: seconds, and what each costs alone."""
    return (
        Timed(
            savings_s={block.name: block.saves_ms / 1e3 for block in plan.blocks},
            replaced_s={block.name: block.old_ms / 1e3 for block in plan.blocks},
            base_s=plan.speedup.a_s,
            timed=0,
            reused=0,
            failed={},
        ),
        {block.name: block.kl for block in plan.blocks},
    )


def _check_same(path: str | Path, plan: PlanFile, case: Case, lock: bool) -> None:
    """Raises PlanError where the plan is of another structure or, with ``lock``, of other weights or samples."""
    network = case.prepared.network
    if structure_of(case.prepared) != plan.structure:
        raise PlanError(
            f"{network.source} has another structure than the model of {path} (layers, sizes, --shapes or --batch); "
            "remove the file to plan anew."
        )
    if lock:
        changed = [
            words
            for words, now, then in (
                (f"the model {network.source}", network.digest, plan.input),
                ("the samples (or how they are prepared)", case.origin["calibration.sha256"], plan.calibration),
            )
            if now != then
        ]
        if changed:
            raise PlanError(
                f"{path} is locked, but since it was made {' and '.join(changed)} changed; leave --lock out to fit "
                "the plan's blocks again, or remove the file to plan anew."
            )
    by_key = {candidate.key: candidate for candidate in case.prepared.candidates}
    missing = [block.name for block in plan.blocks if block.name not in by_key]
    if missing:
        why = "give --calib, which its fits need" if case.fit_data is None else "remove the file to plan anew"
        raise PlanError(f"{path} has blocks that are not on offer now ({', '.join(missing[:3])}); {why}.")
    regions = sorted((by_key[block.name].region for block in plan.blocks), key=lambda region: region.start)
    if any(before.stop > after.start for before, after in itertools.pairwise(regions)):
        raise PlanError(
            f"{path} was changed by hand: two of its blocks overlap; take it as --plan wrote it, or remove it to plan "
            "anew."
        )


def follow(
    case: Case, *, path: str | Path, plan: PlanFile, opened: Backend | DeviceError | None, speedup: float, lock: bool
) -> Found:
    """The plan's blocks, fitted and finished as they were.

    ``opened``: where to time the result; an error: why there is no such place here; None: it is not to be timed.

    Raises:
        PlanError: the plan is of another structure, or what a lock holds changed; in one sentence.
        TargetError: the result is not as fast as asked any more.
        DeviceError: it cannot be timed here, and its structure is not the one that was timed.
    """
    _check_same(path, plan, case, lock)
    prepared, data = case.prepared, case.fit_data
    timed, losses = _recorded_times(plan)
    keys = tuple(block.name for block in plan.blocks)
    by_key = {candidate.key: candidate for candidate in prepared.candidates}
    case.progress("build", 0, 1, f"the plan of {len(keys)} blocks")
    count = 0 if data is None else len(data)
    built = build(
        prepared.network, [by_key[key] for key in keys], data, images=count, batch=prepared.batch, seed=case.seed
    )
    wanted = outputs_of(prepared.network.model, case.validation, prepared.batch)
    loss = quality(wanted, built.model, case.validation, prepared.batch).kl
    case.progress("build", 1, 1, "built")

    def notes(written: Built) -> dict[str, str]:
        kept = json.dumps(plan.kept, separators=(",", ":"), ensure_ascii=False)
        return {"blocks": blocks_note(prepared, timed, losses, written, keys), "kept": kept}

    drawn = Plan(keys, plan.basis, plan.predicted, plan.speedup, math.fsum(losses.values()))
    weights, model = made(case, Ranked(drawn, built, loss, images=count), notes)
    ratio, now, warnings = _time(plan, case, model, opened, speedup)
    if now and "profile.mismatch" in case.origin:
        warnings = (PLANNED.format(other=case.origin["profile.mismatch"], here=case.origin["device"]),)
    return Found(Chosen(model, drawn, loss, weights, ratio, now, ()), timed, losses, warnings=warnings)


def _time(
    plan: PlanFile, case: Case, model: ir.Model, opened: Backend | DeviceError | None, speedup: float
) -> tuple[Ratio, bool, tuple[str, ...]]:
    """The speed-up, whether it was measured now, and where it is from if not."""
    if opened is None:
        return plan.speedup, False, ()
    if isinstance(opened, DeviceError):
        if structure_of(case.prepared, model) != plan.output_structure:
            raise DeviceError(
                f"{str(opened).rstrip('.')}, and what the plan makes of this model has another structure than what "
                "was timed for it, so remove the file to plan anew."
            ) from opened
        said = ELSEWHERE.format(why=str(opened).rstrip("."), ratio=plan.speedup.ratio, device=plan.device)
        return plan.speedup, False, (said,)
    ratio, now = as_written(
        opened,
        case.original,
        model,
        case.prepared.bound,
        speedup,
        table=None,
        progress=lambda *told: case.progress("verify", *told),
    )
    if not ratio.low >= speedup:
        raise TargetError(
            f"the plan gives {ratio.ratio:.3f}× [{ratio.low:.3f}, {ratio.high:.3f}] here, not surely {speedup:g}×: run "
            "again on an idle machine, or remove the file to plan anew."
        )
    return ratio, now, ()


def output_digest(model: ir.Model) -> str:
    """SHA-256 of a model as it is written; large weights count by their own."""
    return hashlib.sha256(to_bytes(model)).hexdigest()


def hold(path: str | Path, plan: PlanFile, model: ir.Model) -> None:
    """Raises PlanError, with what differs as far as that is known, where the bytes are not the recorded ones."""
    if output_digest(model) == plan.output:
        return
    now: Mapping[str, str] = {**versions(), "processor": processor()}
    then: Mapping[str, str] = {**plan.versions, "processor": plan.processor}
    changed = [
        f"{name} is {now.get(name, 'missing')}, was {then.get(name, 'missing')}"
        for name in sorted({*now, *then})
        if now.get(name) != then.get(name)
    ]
    why = "; ".join(changed) or "neither versions nor the processor (please report it)"
    raise PlanError(
        f"{path} is locked, and the same model, samples and options gave other bytes than it records; what differs: "
        f"{why}; use what was used then, or leave --lock out to take the weights that come out here."
    )
