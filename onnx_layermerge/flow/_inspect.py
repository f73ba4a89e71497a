"""What a model offers: its chains, the blocks that are legal, and why the rest is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.candidates import METHODS, enumerate_candidates
from onnx_layermerge.flow._prepare import Progress, quiet
from onnx_layermerge.graph import Chain, Refusal, barriers, chains, read

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """``covered``: convolutions inside at least one legal block; ``blocks``: candidates by recipe."""

    path: str
    nodes: int
    convs: int
    covered: int
    steps: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    chains: tuple[Chain, ...]
    blocks: Mapping[str, int]
    refusals: tuple[Refusal, ...]


def inspect(
    path: str | Path, *, shapes: Mapping[str, tuple[int, ...]] | None = None, progress: Progress = quiet
) -> Inspection:
    """Read a model and list what could be replaced in it; nothing is timed.

    Raises:
        ModelError: the model cannot be read or holds no Conv.
    """
    progress("read", 0, 2, str(path))
    network = read(path, shapes=shapes)
    progress("read", 1, 2, "listing legal blocks")
    found, refused = enumerate_candidates(network, kinds=METHODS["olm"])
    progress("read", 2, 2, "listed")
    covered = {position for candidate in found for position in candidate.region.convs}
    names = {position: str(network.order[position].name) for position in network.convs}
    alone = tuple(
        Refusal(name, "Conv", "no stretch around it has one way in and one way out")
        for position, name in names.items()
        if position not in covered
    )
    blocks = {recipe: sum(c.recipe == recipe for c in found) for recipe in ("drop", "fit", "merge", "width")}
    return Inspection(
        path=str(path),
        nodes=len(network.order),
        convs=len(network.convs) + len(network.refused),
        covered=len(covered),
        steps=network.steps,
        inputs=tuple(f"{info.name} {list(info.shape)} {info.dtype}" for info in network.inputs),
        outputs=network.outputs,
        chains=chains(network),
        blocks=blocks,
        refusals=(*barriers(network), *refused, *alone),
    )
