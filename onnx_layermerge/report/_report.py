"""What a run did, what it measured, and what it turned down."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from onnx_layermerge.candidates import Candidate, merge_of
from onnx_layermerge.graph import Network
from onnx_layermerge.importance import Divergence
from onnx_layermerge.latency import Ratio
from onnx_layermerge.verify import Boxes, FitCheck, MetricValues, OutputDrift

__all__ = ["Block", "Rejected", "Report", "as_json", "block_of"]


@dataclass(frozen=True)
class Block:
    """One replaced stretch: what stands there now, what it saves by the table, how its fit went.

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


@dataclass(frozen=True)
class Rejected:
    """A plan that was built, or only timed, and not taken; ``metric`` is the user's own, where it was asked."""

    basis: str
    speedup: float
    divergence: float
    blocks: tuple[str, ...]
    metric: float | None = None


@dataclass(frozen=True)
class Report:
    """One compression, whole; times in seconds.

    ``validation``, ``outputs`` and ``boxes`` compare the outputs on samples that no fit has seen, in one figure, each
    alone, and decoded by the user; None or empty when no data were given.  ``metric`` is the user's own of both models,
    ``fits`` whether the fits know their own samples better than others (None: nothing was fitted).  The weights in the
    file come from fits that were given ``fitted_on`` samples (0: nothing was fitted), those that were compared from
    fits on ``judged_on``, which have not seen the held-out ones.  ``recovery`` says what was done
    beside the fits ("refit", "tune"), ``refitted`` names the kept convolutions whose weights that changed; all others
    outside ``blocks`` are the input's own, bit for bit.
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


def block_of(network: Network, candidate: Candidate, saving_s: float, loss: float, fit: Any) -> Block:
    """The report line of one block."""
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
    )


def as_json(value: Any) -> str:
    """Dataclasses as JSON, sorted; what is not finite becomes null."""

    def clean(item: Any) -> Any:
        if isinstance(item, float):
            return item if math.isfinite(item) else None
        if isinstance(item, dict):
            return {str(key): clean(entry) for key, entry in item.items()}
        if isinstance(item, (list, tuple)):
            return [clean(entry) for entry in item]
        return item

    data = asdict(value) if hasattr(value, "__dataclass_fields__") else value
    return json.dumps(clean(data), indent=2, sort_keys=True)
