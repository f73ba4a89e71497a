"""Identity: a single convolution is left out, and the activation behind it stays.

The layer pruning that LayerMerge (arXiv 2406.12837, §5) compares itself with: only convolutions go, nothing merges.
Unlike a drop it never takes the activation along, and a branch that is nothing but a skip beside a skip is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx_layermerge.candidates._candidate import Candidate, name_of
from onnx_layermerge.candidates._kind import Given
from onnx_layermerge.candidates._space import Space
from onnx_layermerge.graph import Network, Region
from onnx_layermerge.merge import Geometry

__all__ = ["IDENTITY"]


def identities(network: Network, region: Region, space: Space) -> Iterator[Candidate]:
    """One candidate for a region that is one convolution of equal width and grid."""
    same = space.geometry.same_grid(Geometry.identity(len(space.geometry.kernel)))
    if region.stop - region.start > 1 or space.channels_in != space.channels_out or not same:
        return
    yield Candidate(f"identity {name_of(network, region)}", region, "identity")


IDENTITY = Given(identities, lambda network, candidate: ())
