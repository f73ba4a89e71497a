"""Sequential build: each block is fitted on what the already compressed prefix hands it.

For a plan's blocks in order of position: the entry (and the skip that is added behind the block) come from the
compressed model so far, the target from the original, so each fit also repairs what the blocks before it broke.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.data import Calibration
from onnx_layermerge.fit import FITTED, Fit, Job, fit_jobs, job_of, series_of
from onnx_layermerge.graph import Network, extract, splice, sweep
from onnx_layermerge.recover._prefix import Prefix

__all__ = ["Built", "build", "refitted"]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Built:
    """The compressed model, its fits by candidate key, and where dropped values now come from."""

    model: ir.Model
    fits: dict[str, Fit]
    aliases: dict[str, str]


def build(
    network: Network,
    plan: Sequence[Candidate],
    data: Calibration | None,
    *,
    images: int,
    batch: int,
    seed: int = 0,
    progress: Progress = lambda done, total, what: None,
) -> Built:
    """Replace the plan's blocks, first to last; ``data`` is needed when one of them is fitted."""
    inputs = [info.name for info in network.inputs]
    model = extract(network.model, inputs, list(network.outputs))
    aliases: dict[str, str] = {}
    fits: dict[str, Fit] = {}
    prefix: Prefix | None = None
    blocks = sorted(plan, key=lambda candidate: candidate.region.start)
    for number, candidate in enumerate(blocks):
        progress(number, len(blocks), candidate.key)
        entry = aliases.get(candidate.region.entry, candidate.region.entry)
        exit = candidate.region.exit
        fit = None
        if candidate.recipe in FITTED:
            if data is None:
                raise ValueError("fitted candidates need data")
            prefix = prefix or Prefix(network, data.batches(batch), images)
            prefix.advance(model, candidate.region.start, aliases)
            fit = refitted(prefix, model, job_of(network, candidate), aliases, images=images, seed=seed)
            fits[candidate.key] = fit
        splice(model.graph, entry, exit, series_of(network, candidate, fit), f"olm/{number}")
        if candidate.recipe == "drop" and exit not in network.outputs:
            aliases[exit] = entry
        sweep(model)
    sweep(model)
    progress(len(blocks), len(blocks), "built")
    return Built(model, fits, aliases)


def refitted(
    prefix: Prefix,
    model: ir.Model,
    job: Job,
    aliases: Mapping[str, str],
    *,
    images: int,
    seed: int,
    alphas: Sequence[float] | None = None,
    prior: np.ndarray | None = None,
) -> Fit:
    """Solve one job with what arrives in ``model`` and what the original had; ``aliases`` name dropped values."""
    entry = aliases.get(job.entry, job.entry)
    skips = {} if job.site.skip is None else {job.site.skip: aliases.get(job.site.skip, job.site.skip)}
    runs = prefix.runs(model, [job.site.value], sorted({entry, *skips.values()}))
    found = fit_jobs([job], runs, entry=entry, skips=skips, images=images, seed=seed, alphas=alphas, prior=prior)
    return found[job.key]
