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
from onnx_layermerge.graph import Network, Series, extract, splice, sweep
from onnx_layermerge.recover._prefix import Prefix

__all__ = ["Built", "assemble", "build", "refitted"]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Built:
    """The compressed model, its fits by candidate key, and where dropped values now come from.

    ``refitted`` names the kept convolutions whose weights were solved again.
    """

    model: ir.Model
    fits: dict[str, Fit]
    aliases: dict[str, str]
    refitted: tuple[str, ...] = ()


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
    fits: dict[str, Fit] = {}
    prefixes: list[Prefix] = []

    def series(number: int, candidate: Candidate, model: ir.Model, aliases: Mapping[str, str]) -> Series:
        progress(number, len(plan), candidate.key)
        if candidate.recipe in FITTED:
            if data is None:
                raise ValueError("fitted candidates need data")
            if not prefixes:
                prefixes.append(Prefix(network, data, batch, images))
            prefixes[0].advance(model, candidate.region.start, aliases)
            job = job_of(network, candidate)
            fits[candidate.key] = refitted(prefixes[0], model, job, aliases, images=images, seed=seed)
        return series_of(network, candidate, fits.get(candidate.key))

    model, aliases = assemble(network, plan, series)
    progress(len(plan), len(plan), "built")
    return Built(model, fits, aliases)


def assemble(
    network: Network,
    plan: Sequence[Candidate],
    series: Callable[[int, Candidate, ir.Model, Mapping[str, str]], Series],
) -> tuple[ir.Model, dict[str, str]]:
    """A copy of the network with the plan's blocks replaced, first to last, and the names that drops made aliases.

    ``series(number, candidate, model so far, aliases so far)`` gives what replaces each block.
    """
    model = extract(network.model, [info.name for info in network.inputs], list(network.outputs))
    aliases: dict[str, str] = {}
    for number, candidate in enumerate(sorted(plan, key=lambda candidate: candidate.region.start)):
        entry, exit = aliases.get(candidate.region.entry, candidate.region.entry), candidate.region.exit
        splice(model.graph, entry, exit, series(number, candidate, model, aliases), f"olm/{number}")
        if not candidate.stages and exit not in network.outputs:
            aliases[exit] = entry
        sweep(model)
    sweep(model)
    return model, aliases


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
