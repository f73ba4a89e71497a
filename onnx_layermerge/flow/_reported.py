"""The report of a compression, put together from what each step found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx_layermerge.flow._asked import Asked
from onnx_layermerge.flow._choose import Case
from onnx_layermerge.flow._data import Samples
from onnx_layermerge.flow._judged import Judgement
from onnx_layermerge.flow._record import file_digest, versions
from onnx_layermerge.flow._search import Found, Place
from onnx_layermerge.report import Block, Keys, Report, Sketch, block_of

__all__ = ["report_of"]


def report_of(
    asked: Asked,
    case: Case,
    found: Found,
    judged: Judgement,
    data: Samples,
    place: Place,
    pictures: tuple[Sketch, Sketch, Mapping[str, tuple[str, ...]]],
    followed: str | None,
    seconds: dict[str, float],
    warnings: Sequence[str],
) -> Report:
    """All that was found; the output is written already, and its digest is taken here.

    ``pictures`` are those of ``sketches``; ``followed`` is the plan file that there was; ``seconds`` are by stage.
    """
    chosen, network = found.chosen, case.prepared.network
    return Report(
        input=str(asked.input),
        output=str(asked.output),
        method=asked.method,
        device=place.text,
        effort=asked.effort,
        asked=asked.speedup,
        predicted=chosen.plan.predicted,
        speedup=chosen.speedup,
        measured_now=chosen.measured_now,
        validation=None if judged.compared is None else judged.compared.divergence,
        outputs=() if judged.compared is None else judged.compared.outputs,
        boxes=None if judged.compared is None else judged.compared.boxes,
        metric=judged.metric,
        fits=judged.fits,
        basis=chosen.plan.basis,
        recovery=chosen.weights.steps,
        refitted=chosen.weights.written.refitted,
        fitted_on=chosen.weights.samples,
        judged_on=min(chosen.weights.samples, 0 if data.fit is None else len(data.fit)),
        blocks=_blocks(case, found, pictures[2]),
        rejected=chosen.rejected,
        convs_before=len(network.convs) + len(network.refused),
        convs_after=sum(node.op_type == "Conv" for node in chosen.model.graph),
        timed_blocks=found.timed.timed,
        reused_blocks=found.timed.reused,
        seed=asked.seed,
        seconds=seconds,
        warnings=tuple(warnings),
        expected=sum(found.losses[key] for key in chosen.plan.keys),
        divergence=chosen.loss,
        points=found.points,
        drop_only=found.drop_only,
        before=pictures[0],
        after=pictures[1],
        plan=followed or "",
        keys=Keys(
            input=network.digest,
            output=file_digest(Path(asked.output)),
            calibration=data.digest,
            device=place.digest,
            profile="" if asked.profile is None else str(asked.profile),
            versions=versions(),
        ),
    )


def _blocks(case: Case, found: Found, made: Mapping[str, tuple[str, ...]]) -> tuple[Block, ...]:
    """The plan's blocks as the report has them; ``made`` names what stands for each in the output."""
    by_key = {candidate.key: candidate for candidate in case.prepared.candidates}
    fits = found.chosen.weights.judged.fits
    return tuple(
        block_of(
            case.prepared.network,
            by_key[key],
            found.timed.replaced_s[key],
            found.timed.savings_s[key],
            found.losses[key],
            fits.get(key),
            made[key],
        )
        for key in found.chosen.plan.keys
    )
