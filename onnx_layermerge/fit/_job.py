"""A candidate as a fitting job, and a fit as the convolutions that go into the model."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from onnx_layermerge.candidates import Candidate, Site, Stage, conv_from, merge_of, site_of
from onnx_layermerge.fit._ridge import Fit
from onnx_layermerge.graph import Activation, Conv, Network, Series, activation_of

__all__ = ["FITTED", "Job", "job_of", "series_of"]

FEWEST_ROWS = 4000
PATCH_BYTES = 384 << 20
# Recipes whose weights come from data.
FITTED = ("fit", "width")


@dataclass(frozen=True, eq=False)
class Job:
    """One least-squares problem: patches of ``entry`` under ``stage``, judged at ``site``.

    ``width`` channels of the entry are to stay (None: all); ``prior`` [C_out, D] are weights to stay near.
    """

    key: str
    entry: str
    stage: Stage
    site: Site
    width: int | None = None
    prior: np.ndarray | None = None

    def rows(self, rows_per_unknown: int) -> int:
        """How many rows the fit wants, as far as patches fit in memory."""
        patch = self.stage.channels_in * prod(self.stage.geometry.kernel) * 4
        return min(max(FEWEST_ROWS, rows_per_unknown * self.stage.unknowns), max(PATCH_BYTES // patch, 1000))


def job_of(network: Network, candidate: Candidate) -> Job:
    """The job behind a candidate whose recipe is one of ``FITTED``."""
    site = site_of(network, candidate)
    if candidate.recipe != "width":
        return Job(candidate.key, candidate.region.entry, candidate.stage, site)
    reader = network.convs[candidate.region.convs[-1]]
    full = reader.channels_in
    last = candidate.stage
    stage = Stage(full, last.channels_out, last.geometry, 1)
    return Job(
        candidate.key, candidate.hidden, stage, site, last.channels_in, reader.weight.reshape(len(reader.weight), -1)
    )


def series_of(network: Network, candidate: Candidate, fit: Fit | None) -> Series:
    """The convolutions that replace the region, with their weights."""
    dtype = network.convs[candidate.region.convs[0]].weight.dtype
    if candidate.recipe == "drop":
        return ()
    if candidate.recipe == "merge":
        affine = merge_of(network, candidate).conv
        if affine.groups != candidate.stage.groups:
            affine = affine.dense()
        return ((conv_from(candidate.stage, affine.weight, affine.bias, dtype), None),)
    if fit is None:
        raise ValueError(f"{candidate.key} needs a fit")
    if candidate.recipe == "fit":
        return ((conv_from(candidate.stage, fit.weight, fit.bias, dtype), None),)
    return _slimmed(network, candidate, fit, dtype)


def _slimmed(network: Network, candidate: Candidate, fit: Fit, dtype: np.dtype) -> Series:
    """The region's own convolutions with the kept channels only, the last one as fitted."""
    series: list[tuple[Conv, Activation | None]] = []
    for stage, position in zip(candidate.stages[:-1], candidate.region.convs[:-1], strict=True):
        conv = network.convs[position]
        bias = None if conv.bias is None else conv.bias[fit.kept]
        activation = None if stage.activation is None else activation_of(network, stage.activation)
        series.append((conv_from(stage, conv.weight[fit.kept], bias, dtype), activation))
    series.append((conv_from(candidate.stage, fit.weight, fit.bias, dtype), None))
    return tuple(series)
