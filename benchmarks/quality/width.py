"""Uniform width pruning with this project's own fits: the same share off every inner width.

A *hidden* value (see candidates/_width.py) lies between one convolution that writes it and one that reads it, behind
channelwise operators only.  Stretches may overlap where one convolution reads and writes; of those the wider hidden
value is taken, so that what is thinned is disjoint.  Channels are chosen by elimination and the reading convolution is
fitted again, block after block, exactly as for our own candidates: what differs is only that nothing plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnx_layermerge.candidates import Candidate, Stage, enumerate_candidates
from onnx_layermerge.data import Calibration
from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import Network, to_bytes
from onnx_layermerge.latency.blocks import placeholder
from onnx_layermerge.recover import assemble, build
from onnx_layermerge.rewrite import finish

__all__ = ["at_share", "slots", "structure", "thinned"]

TILE = 8


def slots(network: Network) -> tuple[tuple[Candidate, int], ...]:
    """A template for every hidden value that is thinned, with its full width; disjoint, in order of position.

    Raises:
        ModelError: there is none.
    """
    found, _ = enumerate_candidates(network, kinds=("width",))
    by_place = {(c.region.start, c.region.stop, c.hidden): c for c in found}
    wide = sorted(by_place.values(), key=lambda c: (-_full(network, c), c.region.start))
    taken: list[Candidate] = []
    for candidate in wide:
        region = candidate.region
        if all(region.stop <= other.region.start or other.region.stop <= region.start for other in taken):
            taken.append(candidate)
    if not taken:
        raise ModelError("no convolution of this model has an inner width that can be thinned.")
    return tuple((c, _full(network, c)) for c in sorted(taken, key=lambda c: c.region.start))


def _full(network: Network, candidate: Candidate) -> int:
    return network.convs[candidate.region.convs[-1]].channels_in


def at_share(templates: Sequence[tuple[Candidate, int]], share: float) -> list[Candidate]:
    """Every template with ``share`` of its channels taken out; those left at full width are absent.

    Widths are whole tiles.  What rounding gives one stretch too much, the next of the same width gets less: with many
    stretches the share, and so the speed, moves in small steps instead of all of them jumping at once.
    """
    plan = []
    owed: dict[int, float] = {}
    for candidate, full in templates:
        wanted = full * (1 - share) + owed.get(full, 0.0)
        width = min(full, max(TILE, round(wanted / TILE) * TILE))
        owed[full] = wanted - width
        if width < full:
            plan.append(_at_width(candidate, full, width))
    return plan


def _at_width(candidate: Candidate, full: int, width: int) -> Candidate:
    stages: list[Stage] = []
    last = len(candidate.stages) - 1
    for number, stage in enumerate(candidate.stages):
        if number == 0:
            stages.append(replace(stage, channels_out=width))
        elif number == last:
            stages.append(replace(stage, channels_in=width))
        else:
            stages.append(replace(stage, channels_in=width, channels_out=width, groups=width))
    name = candidate.key.split(" ", 2)[2]
    return replace(candidate, key=f"width {width}/{full} {name}", stages=tuple(stages))


def structure(network: Network, plan: Sequence[Candidate]) -> bytes:
    """The model with random weights in the plan's blocks."""
    model, _ = assemble(network, plan, lambda number, candidate, *_: placeholder(network, candidate, seed=number))
    return to_bytes(model)


def thinned(network: Network, plan: Sequence[Candidate], data: Calibration, *, batch: int, seed: int) -> bytes:
    """The model with the plan's blocks fitted on all of ``data``, first to last."""
    built = build(network, plan, data, images=len(data), batch=batch, seed=seed)
    return to_bytes(finish(network, built.model, {"benchmark": "uniform width"}))
