"""Where a fit is judged: at the site, unless the sum there broadcasts what the convolution makes.

A map of one channel that is added to all, or one of one pixel, is only a part of that sum: no row of it is a row of the
convolution's output, and what the activation behind it forgives in one channel or place it does not in another.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnx_layermerge.candidates._candidate import Candidate
from onnx_layermerge.candidates._site import Site, site_of
from onnx_layermerge.graph import Network

__all__ = ["judged_at"]


def judged_at(network: Network, candidate: Candidate) -> Site:
    """The site of a replacement; the exit itself where what is added to it is larger along some axis."""
    site = site_of(network, candidate)
    made, there = network.values[site.exit].shape, network.values[site.value].shape
    if made is None or there is None or not any(one == 1 != other for one, other in zip(made, there, strict=True)):
        return site
    return replace(site, value=site.exit, skip=None, low=-np.inf, high=np.inf)
