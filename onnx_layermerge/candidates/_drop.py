"""Drop: the entry itself stands for the exit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from onnx_layermerge.candidates._candidate import Candidate, name_of
from onnx_layermerge.candidates._kind import Given
from onnx_layermerge.candidates._space import Space
from onnx_layermerge.graph import Network, Region, activation_after, repeats_activation
from onnx_layermerge.merge import Geometry

__all__ = ["DROP"]


def drops(network: Network, region: Region, space: Space) -> Iterator[Candidate]:
    """At most one candidate: legal when width and grid stay the same.

    When the activation after the exit would only repeat the one before the entry, it goes as well.
    """
    same = space.geometry.same_grid(Geometry.identity(len(space.geometry.kernel)))
    if space.channels_in != space.channels_out or not same:
        return
    if _beside_its_skip(network, region):
        return
    activation = activation_after(network, region)
    # In the order the activation follows the exit unless a second branch lies between.
    if activation is not None and activation.start == region.stop and repeats_activation(network, region):
        region = replace(region, stop=activation.stop, exit=activation.exit)
    yield Candidate(
        key=f"drop {name_of(network, region)}",
        region=region,
        recipe="drop",
    )


def _beside_its_skip(network: Network, region: Region) -> bool:
    """The exit is added to the entry at once: dropping only the branch would double the skip; drop it with the sum."""
    users = network.users(network.values[region.exit])
    if len(users) != 1 or users[0] >= len(network.order):
        return False
    node = network.order[users[0]]
    return node.op_type == "Add" and region.entry in {str(value.name) for value in node.inputs if value is not None}


DROP = Given(drops, lambda network, candidate: ())
