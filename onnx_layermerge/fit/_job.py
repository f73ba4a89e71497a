"""A candidate as a fitting job, and a fit as the convolutions that go into the model."""

from __future__ import annotations

from onnx_layermerge.candidates import KINDS, Candidate, Fitted, Job
from onnx_layermerge.fit._ridge import Fit
from onnx_layermerge.graph import Network, Series

__all__ = ["FITTED", "job_of", "series_of"]

# Recipes whose weights come from data.
FITTED = tuple(name for name, kind in KINDS.items() if isinstance(kind, Fitted))


def job_of(network: Network, candidate: Candidate) -> Job:
    """The job behind a candidate whose recipe is one of ``FITTED``.

    Raises:
        ValueError: its weights do not come from data.
    """
    kind = KINDS[candidate.recipe]
    if not isinstance(kind, Fitted):
        raise ValueError(f"{candidate.key} needs no fit")
    return kind.job(network, candidate)


def series_of(network: Network, candidate: Candidate, fit: Fit | None) -> Series:
    """The convolutions that replace the region, with their weights.

    Raises:
        ValueError: its weights come from data, and there is no ``fit``.
    """
    kind = KINDS[candidate.recipe]
    if not isinstance(kind, Fitted):
        return kind.series(network, candidate)
    if fit is None:
        raise ValueError(f"{candidate.key} needs a fit")
    return kind.series(network, candidate, fit)
