"""What a run did, what it measured, and what it turned down."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnx_layermerge.candidates import Candidate, merge_of
from onnx_layermerge.graph import Network
from onnx_layermerge.importance import Divergence
from onnx_layermerge.latency import Ratio
from onnx_layermerge.report._rows import conv_label, sizes_label
from onnx_layermerge.report._sketch import Sketch
from onnx_layermerge.verify import Boxes, FitCheck, MetricValues, OutputDrift

__all__ = ["Block", "Keys", "Point", "Rejected", "Report", "as_json", "block_of"]

# docs/schemas/report.v1.json describes it.  Fields may be added under one number, not changed.
SCHEMA = "olm.report/1"


@dataclass(frozen=True)
class Block:
    """One replaced stretch: what stood there, what stands there now, what it saves by the table, how its fit went.

    ``old_ms`` is the table's latency of what stood there, ``saving_ms`` what the replacement takes off it, corrected by
    what whole plans gave in place.  ``replaced`` and ``made`` name convolutions of the input and of the output, ``was``
    and ``now`` are their sizes in the same order.  ``loss_alone`` is what this block alone does to the outputs.
    ``rows_per_unknown`` is how many equations the fit had for each unknown; below 5 only the strongest ridge is used.
    """

    name: str
    recipe: str
    kernel: tuple[int, ...]
    groups: int
    convs: int
    certificate: str
    saving_ms: float
    loss_alone: float
    fit_error: float | None
    alpha: float | None
    rows_per_unknown: float | None
    old_ms: float
    replaced: tuple[str, ...]
    made: tuple[str, ...]
    was: tuple[str, ...]
    now: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """A plan on the frontier by the table and the scores: predicted speed-up, Σ of what its blocks cost alone."""

    speedup: float
    loss: float
    blocks: int


@dataclass(frozen=True)
class Rejected:
    """A plan that was built and not taken; ``metric`` is the user's own, where it was asked.

    ``speedup`` is measured, 0 where the backend refused the model; ``predicted`` is the table's, ``expected`` the Σ of
    what its blocks cost alone, ``divergence`` what the built model really does to the outputs.  ``missed``: it was
    finished and timed again, and then was not fast enough or was refused; all others were no better than the one taken.
    """

    basis: str
    speedup: float
    divergence: float
    blocks: tuple[str, ...]
    metric: float | None = None
    predicted: float = math.nan
    expected: float = math.nan
    missed: bool = False


@dataclass(frozen=True)
class Keys:
    """What tells whether another run is the same one: digests of what went in and came out, and of the software.

    ``input`` is the SHA-256 of the file and of its external data, ``output`` of the file alone, ``calibration`` of the
    samples; ``device`` is the latency table's key, ``profile`` the table's name as it was given ("": the user's own).
    """

    input: str
    output: str
    calibration: str
    device: str
    profile: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Report:
    """One compression, whole; times in seconds.

    ``validation``, ``outputs`` and ``boxes`` compare the outputs on samples that no fit has seen, in one figure, each
    alone, and decoded by the user; None or empty when no data were given.  ``metric`` is the user's own of both models,
    ``fits`` whether the fits know their own samples better than others (None: nothing was fitted).  The weights in the
    file come from fits that were given ``fitted_on`` samples (0: nothing was fitted), those that were compared from
    fits on ``judged_on``, which have not seen the held-out ones.  ``recovery`` says what was done beside the fits
    ("refit", "tune", "finetune"), ``refitted`` names the kept convolutions whose weights the first two changed;
    "finetune" trains all weights there are, on samples that ``fitted_on`` does not count, and any of them may be
    another.  Without it all others outside ``blocks`` are, bit for bit, those of the prepared input, in which norms and
    scales are folded into convolutions; the file's own only where nothing was folded into them.  ``expected`` is the Σ
    of what the blocks cost alone, ``divergence`` what the built plan did to the outputs where plans were compared,
    before ``recovery``, as of the rejected ones.  ``points`` and ``drop_only`` are the frontier of all replacements and
    of drops alone, ``before`` and ``after`` the networks as lines, ``command`` the words after ``olm``, where a command
    line was used, ``plan`` the file of the plan that was followed ("": none; where one was, and the speed-up was not
    ``measured_now``, it is the plan's), ``schema`` the name of this form.
    """

    input: str
    output: str
    method: str
    device: str
    effort: str
    asked: float
    predicted: float
    speedup: Ratio
    measured_now: bool
    validation: Divergence | None
    outputs: tuple[OutputDrift, ...]
    boxes: Boxes | None
    metric: MetricValues | None
    fits: FitCheck | None
    basis: str
    recovery: tuple[str, ...]
    refitted: tuple[str, ...]
    fitted_on: int
    judged_on: int
    blocks: tuple[Block, ...]
    rejected: tuple[Rejected, ...]
    convs_before: int
    convs_after: int
    timed_blocks: int
    reused_blocks: int
    seed: int
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    expected: float
    divergence: float
    points: tuple[Point, ...]
    drop_only: tuple[Point, ...]
    before: Sketch
    after: Sketch
    keys: Keys
    command: tuple[str, ...] = ()
    plan: str = ""
    schema: str = SCHEMA


def block_of(
    network: Network, candidate: Candidate, old_s: float, saving_s: float, loss: float, fit: Any, made: Sequence[str]
) -> Block:
    """The report line of one block; ``made`` names the convolutions that stand for it in the output."""
    merge = merge_of(network, candidate) if candidate.recipe == "merge" else None
    return Block(
        name=candidate.key,
        recipe=candidate.recipe,
        kernel=max((stage.geometry.kernel for stage in candidate.stages), key=math.prod, default=()),
        groups=candidate.stage.groups if candidate.stages else 1,
        convs=len(candidate.region.convs),
        certificate=merge.certificate.kind if merge is not None else "lossy",
        saving_ms=saving_s * 1e3,
        loss_alone=loss,
        fit_error=None if fit is None else fit.error,
        alpha=None if fit is None else fit.alpha,
        rows_per_unknown=None if fit is None else fit.rows_per_unknown,
        old_ms=old_s * 1e3,
        replaced=tuple(str(network.order[position].name) for position in candidate.region.convs),
        made=tuple(made),
        was=tuple(conv_label(network.convs[position]) for position in candidate.region.convs),
        now=tuple(
            sizes_label(
                stage.geometry.kernel, stage.channels_in, stage.channels_out, stage.geometry.stride, (), stage.groups
            )
            for stage in candidate.stages
        ),
    )


def as_json(value: Any, *, ordered: bool = True) -> str:
    """Dataclasses as JSON, ``ordered`` by key or as they are; what is not finite becomes null."""

    def clean(item: Any) -> Any:
        if isinstance(item, float):
            return item if math.isfinite(item) else None
        if isinstance(item, dict):
            return {str(key): clean(entry) for key, entry in item.items()}
        if isinstance(item, (list, tuple)):
            return [clean(entry) for entry in item]
        return item

    data = asdict(value) if hasattr(value, "__dataclass_fields__") else value
    return json.dumps(clean(data), indent=2, sort_keys=ordered)
