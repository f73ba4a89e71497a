"""What can stand in for a region."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from onnx_layermerge.graph import Conv, Network, Region
from onnx_layermerge.merge import Geometry

__all__ = ["MAX_UNKNOWNS", "TILE", "Candidate", "Stage", "conv_from", "cost_macs", "name_of"]

# D = 4608 means a Gram matrix of 170 MB; beyond, memory and time of a fit are out of proportion.
MAX_UNKNOWNS = 4608

# Widths come in multiples of what the channel-blocked layouts of CPUs and tensor cores fill.
TILE = 8


@dataclass(frozen=True)
class Stage:
    """One convolution of a replacement; ``activation`` is the position of the node whose function follows it."""

    channels_in: int
    channels_out: int
    geometry: Geometry
    groups: int = 1
    activation: int | None = None

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """[C_out, C_in/groups, *kernel]."""
        return (self.channels_out, self.channels_in // self.groups, *self.geometry.kernel)

    @property
    def unknowns(self) -> int:
        """D: how many inputs each output reads."""
        return prod(self.weight_shape[1:])


@dataclass(frozen=True)
class Candidate:
    """A replacement for ``region``: a series of convolutions, none for a drop.

    ``recipe`` names the kind, in ``KINDS``, that makes their weights.  ``keep`` says for a merge which of the region's
    convolutions are composed (the others become the identity); ``hidden`` names for a width the value whose channels
    are thinned out.
    """

    key: str
    region: Region
    recipe: str
    stages: tuple[Stage, ...] = ()
    keep: tuple[bool, ...] = ()
    hidden: str = ""

    @property
    def stage(self) -> Stage:
        """The only, or last, convolution."""
        return self.stages[-1]

    @property
    def structure(self) -> str:
        """Equal for candidates that cost the same time in the same place."""
        return f"{self.region.start}:{self.region.stop}:{self.stages}"


def conv_from(stage: Stage, weight: np.ndarray, bias: np.ndarray | None, dtype: np.dtype) -> Conv:
    """Arrays of one convolution in the model's dtype; ``weight`` is any reshape of the stage's weight shape."""
    return Conv(
        weight=weight.reshape(stage.weight_shape).astype(dtype),
        bias=None if bias is None else bias.astype(dtype),
        stride=stage.geometry.stride,
        dilation=(1,) * len(stage.geometry.kernel),
        pads=stage.geometry.pad_begin + stage.geometry.pad_end,
        groups=stage.groups,
    )


def name_of(network: Network, region: Region) -> str:
    """Readable identity of a region: its first and last node."""
    first, last = network.order[region.start].name, network.order[region.stop - 1].name
    return f"{first}…{last}" if first != last else str(first)


def cost_macs(candidate: Candidate, entry_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of the replacement for an entry of ``entry_shape`` [N, C, *space]."""
    total, space = 0, tuple(entry_shape[2:])
    for stage in candidate.stages:
        space = stage.geometry.out_size(space)
        total += entry_shape[0] * prod(space) * prod(stage.weight_shape)
    return total
