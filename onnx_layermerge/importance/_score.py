"""One replacement at a time: fit it on the original's activations, put it in, see what the outputs do.

1. *Fit*, grouped by entry: one run over the images serves every candidate that starts there.
2. *Judge*, grouped by exit: only what follows the block is recomputed.  The values that cross the cut behind it come
   from one run of the original; the replacement supplies the exit; the rest of the network gives the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx_ir as ir

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.data import Calibration, gather
from onnx_layermerge.fit import FITTED, Fit, fit_jobs, job_of, series_of
from onnx_layermerge.graph import Network, Series, Session, append_series, extract, model_of
from onnx_layermerge.importance._direction import direction
from onnx_layermerge.importance._divergence import Divergence, divergence

__all__ = ["Score", "Scores", "collect", "part_runner", "score"]

Progress = Callable[[int, int, str], None]

# Rows per unknown while candidates are only ranked; the build fits the chosen ones on more.
RANKING_ROWS = 8
# A fit that explains less than this share of its target is not worth judging.
LEAST_EXPLAINED = 0.1
# Nor is one whose error is not below this share of a smaller convolution's in the same place.
LEAST_BETTER = 0.95


@dataclass(frozen=True)
class Score:
    """What replacing one block alone does: divergence on validation samples, and how its fit went (None: no fit).

    ``move`` is the way the outputs went, as `direction` sketches it; None where that is not finite.
    """

    divergence: Divergence
    fit_error: float | None = None
    alpha: float | None = None
    rows_per_unknown: float | None = None
    move: np.ndarray | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Scores:
    """Scores by candidate key."""

    by_key: dict[str, Score] = field(default_factory=dict)


def score(
    network: Network,
    candidates: Sequence[Candidate],
    fit_data: Calibration | None,
    validation: Calibration,
    *,
    images: int,
    batch: int,
    seed: int = 0,
    progress: Progress = lambda done, total, what: None,
) -> Scores:
    """Score every candidate; those whose weights come from data need ``fit_data``.

    ``images`` bounds the samples a fit sees, ``batch`` is the model's batch size when it is fixed.
    """
    series: dict[str, Series] = {}
    fits: dict[str, Fit] = {}
    total = 2 * len(candidates)
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.recipe in FITTED:
            groups.setdefault(job_of(network, candidate).entry, []).append(candidate)
        else:
            series[candidate.key] = series_of(network, candidate, None)
    done = len(series)
    inputs = [info.name for info in network.inputs]
    for entry, members in groups.items():
        if fit_data is None:
            raise ValueError("fitted candidates need data")
        progress(done, total, f"fitting from {entry}")
        jobs = [job_of(network, candidate) for candidate in members]
        names = {entry} | {job.site.value for job in jobs} | {job.site.skip for job in jobs if job.site.skip}
        runner = part_runner(network.model, inputs, sorted(names))
        runs = ((values, values) for values in map(runner, fit_data.batches(batch)))
        found = fit_jobs(jobs, runs, images=min(images, len(fit_data)), seed=seed, rows_per_unknown=RANKING_ROWS)
        for candidate in members:
            series[candidate.key] = series_of(network, candidate, found[candidate.key])
        fits.update(found)
        done += len(members)
    hopeless = _dominated(candidates, fits)
    worth = [candidate for candidate in candidates if candidate.key not in hopeless]
    nothing = Divergence(float("inf"), float("inf"), 0.0)
    scores = {key: Score(nothing, fits[key].error, fits[key].alpha, fits[key].rows_per_unknown) for key in hopeless}
    scores |= _judge(network, worth, series, fits, validation, batch, done + len(hopeless), total, progress)
    return Scores(scores)


def _dominated(candidates: Sequence[Candidate], fits: dict[str, Fit]) -> set[str]:
    """Keys of fits that explain next to nothing, or hardly more than a smaller convolution in the same place does."""
    hopeless = {key for key, fit in fits.items() if fit.error > 1 - LEAST_EXPLAINED}
    best: dict[tuple[int, int, int], float] = {}
    convs = [candidate for candidate in candidates if candidate.recipe in ("fit", "low-rank")]
    weights = {each.key: sum(prod(stage.weight_shape) for stage in each.stages) for each in convs}
    for candidate in sorted(convs, key=lambda candidate: (weights[candidate.key], candidate.key)):
        region, count, error = candidate.region, len(candidate.stages), fits[candidate.key].error
        # Two convolutions may take longer than one with more weights, but hardly one longer than two with more.
        rivals = [best.get((region.start, region.stop, fewer), float("inf")) for fewer in range(1, count + 1)]
        if error > LEAST_BETTER * min(rivals):
            hopeless.add(candidate.key)
        best[region.start, region.stop, count] = min(error, rivals[-1])
    return hopeless


def part_runner(model: ir.Model, inputs: list[str], names: list[str]) -> Callable[..., dict[str, np.ndarray]]:
    """Feeds → the named values; an input that is asked for is handed through."""
    computed = [name for name in names if name not in inputs]
    session = Session(extract(model, inputs, computed)) if computed else None

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = session.run(feeds) if session is not None else {}
        return {**values, **{name: feeds[name] for name in names if name in inputs}}

    return run


def _judge(
    network: Network,
    candidates: Sequence[Candidate],
    series: dict[str, Series],
    fits: dict[str, Fit],
    validation: Calibration,
    batch: int,
    done: int,
    total: int,
    progress: Progress,
) -> dict[str, Score]:
    inputs = [info.name for info in network.inputs]
    outputs = list(network.outputs)
    answered, layout = gather(part_runner(network.model, inputs, outputs), validation.batches(batch))
    wanted = layout.join(answered)
    groups: dict[tuple[int, str], list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault((candidate.region.stop, candidate.region.exit), []).append(candidate)
    scores: dict[str, Score] = {}
    for (stop, exit), members in sorted(groups.items()):
        progress(done, total, f"judging blocks that end at {exit}")
        live = [name for name in network.live_at(stop) if name != exit]
        # Handed through without a session where the exit is an output: a runtime may return the very buffer it was fed.
        suffix = part_runner(network.model, [*inputs, *live, exit], outputs)
        entries = {candidate.region.entry for candidate in members}
        prefix = part_runner(network.model, inputs, sorted({*live, *entries}))
        blocks = {candidate.key: _block_session(network, series[candidate.key]) for candidate in members}
        got: dict[str, list[dict[str, np.ndarray]]] = {candidate.key: [] for candidate in members}
        for feeds in validation.batches(batch):
            values = prefix(feeds)
            for candidate in members:
                block = blocks[candidate.key]
                entry_value = values[candidate.region.entry]
                swapped = entry_value if block is None else block.run({"entry": entry_value})["exit"]
                got[candidate.key].append(suffix({**feeds, **values, exit: swapped}))
        for candidate in members:
            joined = layout.join(got[candidate.key])
            fit, found = fits.get(candidate.key), divergence(wanted, joined)
            scores[candidate.key] = Score(
                found,
                fit.error if fit else None,
                fit.alpha if fit else None,
                fit.rows_per_unknown if fit else None,
                _move(wanted, joined) if np.isfinite(found.kl) else None,
            )
        done += len(members)
    progress(total, total, "scored")
    return scores


def _move(wanted: dict[str, np.ndarray], joined: dict[str, np.ndarray]) -> np.ndarray | None:
    """The direction; None where finite outputs lie so far apart that it is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = direction(wanted, joined)
    return found if np.isfinite(found).all() else None


def collect(
    runner: Callable[..., dict[str, np.ndarray]], batches: Iterable[dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The outputs of ``runner`` over all batches, [N, …] by name, less those whose size depends on the data.

    Raises:
        DataError: there is no other output.
    """
    parts, layout = gather(runner, batches)
    return layout.join(parts)


def _block_session(network: Network, series: Series) -> Session | None:
    """A model of the replacement alone; None for a drop."""
    if not series:
        return None
    first = series[0][0].weight
    value = ir.Value(name="entry", type=ir.TensorType(ir.DataType.from_numpy(first.dtype)))
    value.shape = ir.Shape([None] * first.ndim)
    graph = ir.Graph([value], [], nodes=[], name="block", opset_imports=dict(network.model.graph.opset_imports))
    nodes, out = append_series(graph, value, series, "replacement")
    out.name, out.type, out.shape = "exit", value.type, ir.Shape([None] * first.ndim)
    graph.extend(nodes)
    graph.outputs.append(out)
    return Session(model_of(graph, network.model))
