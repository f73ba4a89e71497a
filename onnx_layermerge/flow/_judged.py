"""How good the result is: output by output, by the user's own measures, and whether the fits overfit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from math import ceil, log10
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_layermerge.data import Calibration
from onnx_layermerge.errors import UsageError
from onnx_layermerge.fit import FEW_ROWS, Fit
from onnx_layermerge.flow._choose import Case, Chosen
from onnx_layermerge.flow._prepare import Prepared, Progress
from onnx_layermerge.flow._scores import bounded
from onnx_layermerge.graph import Session
from onnx_layermerge.importance import class_scores, collect
from onnx_layermerge.verify import (
    WORST,
    Compared,
    Decoder,
    FitCheck,
    Metric,
    MetricValues,
    compared,
    decoder_of,
    fit_check,
    metric_of,
    out_of_proportion,
    outputs_of,
    sample_losses,
)

__all__ = ["Judgement", "Judges", "judge", "judges", "misjudged", "overfitted", "underdetermined"]

# Enough for ranks; the last fifth of what a fit is given decides on its ridge and is not solved on.
CHECKED = 256
SOLVED = 0.8
# Fewer held-out samples than this, and no test sees even fits that know nothing but their samples.
FEW_HELD_OUT = 8

OVERFITTED = (
    "the fits know their own samples better than others: {held_out} are typically {ratio:.1f} times as far from the"
    " original as those that were fitted on; give --calib about {needed} samples (now {now}){more}"
)

FEW_EQUATIONS = (
    "block '{block}' was fitted with {rows:.2g} equations for each unknown, so only the strongest ridge was used; below"
    " {enough} give --calib more samples"
)

UNDECIDED = (
    "{held_out} held-out samples are too few to tell whether the fits know only their own {fitted}: give --calib more"
    " samples (now {now}); if they do, it takes about {needed}"
)


@dataclass(frozen=True, eq=False)
class Judges:
    """The user's own measures, loaded and tried on the original."""

    metric: Metric | None = None
    decoder: Decoder | None = None


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is said of the result; ``compared`` and ``fits`` need data, ``fits`` a fit among the plan's blocks."""

    compared: Compared | None
    metric: MetricValues | None
    fits: FitCheck | None


def judges(
    prepared: Prepared,
    metric: str | Callable[..., float] | None,
    decoder: str | Callable[..., Any] | None,
    data: Calibration | None,
    progress: Progress,
) -> Judges:
    """Load both and try them on the original, so that a mistake is seen before anything takes long.

    Raises:
        UsageError: one is not there, fails, or returns something else; a decoder without ``data``.
    """
    decode = None if decoder is None else decoder_of(decoder)
    if decode is not None:
        if data is None:
            raise UsageError("--decoder compares detections on data; give --calib too.")
        # As it gets them in the end: with samples in front, and none whose size depends on the data.
        decode.check(collect(Session(prepared.network.model).run, islice(data.batches(prepared.batch), 1)))
    if metric is None:
        return Judges(decoder=decode)
    progress("read", 0, 1, "the metric of the original")
    judged = metric_of(metric, prepared.network, prepared.batch)
    progress("read", 1, 1, "the metric of the original")
    return Judges(judged, decode)


def judge(case: Case, chosen: Chosen, held_out: Calibration | None, by: Judges) -> Judgement:
    """Hold the chosen plan against the original; ``held_out`` are plain samples that no fit has seen.

    On samples with the weights from before those were fitted on too, by the user's metric with those that are written.
    """
    prepared = case.prepared
    values = None
    if by.metric is not None:
        case.progress("verify", 0, 0, "the metric of the result")
        values = by.metric.values(by.metric.score(chosen.model))
    if held_out is None:
        return Judgement(None, values, None)
    wanted = outputs_of(prepared.network.model, held_out, prepared.batch)
    got = outputs_of(chosen.weights.judged.model, held_out, prepared.batch)
    fits = None
    built = chosen.weights.judged
    if case.fit_data is not None and (built.fits or built.refitted):
        # A fit with large features holds fewer samples than there are; none but those count as seen.
        given = min((fit.images for fit in built.fits.values()), default=len(case.fit_data))
        classes = class_scores(wanted)
        seen = _seen(case, chosen, case.fit_data, given, classes)
        # Copies are no samples more.
        different = len(set(case.fit_data.fingerprints()[:given]))
        fits = fit_check(seen, sample_losses(wanted, got, classes), different)
    return Judgement(compared(wanted, got, by.decoder), values, fits)


def _seen(case: Case, chosen: Chosen, data: Calibration, given: int, classes: Collection[str]) -> np.ndarray:
    """Losses [n] of samples that all fits were solved on: of the ``given`` first ones, as far as memory allows."""
    prepared = case.prepared
    count = min(CHECKED, ceil(SOLVED * given), len(bounded(prepared, data, case.seed)))

    def outputs(model: ir.Model) -> dict[str, np.ndarray]:
        # Inputs are read twice: of large ones not even a hundred could be held.
        return collect(Session(model).run, islice(data.batches(prepared.batch), ceil(count / prepared.batch)))

    return sample_losses(outputs(prepared.network.model), outputs(chosen.weights.judged.model), classes)[:count]


def misjudged(judgement: Judgement) -> tuple[str, ...]:
    """The warnings about outputs whose KL hides how far their values are from the original's."""
    return () if judgement.compared is None else out_of_proportion(judgement.compared.outputs)


def underdetermined(fits: Mapping[str, Fit]) -> list[str]:
    """The warning about the block, by key, whose fit had the fewest equations for each unknown, where they are few."""
    fewest = min(fits.items(), key=lambda item: item[1].rows_per_unknown, default=None)
    if fewest is None or fewest[1].rows_per_unknown >= FEW_ROWS:
        return []
    return [FEW_EQUATIONS.format(block=fewest[0], rows=fewest[1].rows_per_unknown, enough=FEW_ROWS)]


def overfitted(
    fits: FitCheck | None, *, held_out: int, separate: bool, samples: int, there: int = 0
) -> list[str]:
    """The warning about a plan whose fits need more samples, or where nobody can tell.

    ``there`` is how many samples there were to fit on: where memory held fewer, more would be no use.  ``held_out`` is
    how many were held out, of --calib or, where ``separate``, of --val.  Both count copies once, as ``fits`` does;
    ``samples`` is the limit on both sources.
    """
    if fits is None or fits.samples < there:
        return []
    now = fits.samples + (0 if separate else held_out)
    if fits.needed is None and held_out < FEW_HELD_OUT:
        needed = _rounded(WORST * now)
        return [UNDECIDED.format(held_out=held_out, fitted=fits.samples, now=now, needed=needed)]
    if fits.needed is None:
        return []
    needed = _rounded(fits.needed * now / fits.samples)
    more = " and raise --samples" if needed > samples else ""
    if separate:
        more += ", of the kind that --val has: what --calib does not show at all cannot be learned from more of it"
    said = "the samples of --val" if separate else "held-out samples"
    return [OVERFITTED.format(held_out=said, ratio=fits.ratio, needed=needed, now=now, more=more)]


def _rounded(number: float) -> int:
    """Up to two digits: it is an estimate."""
    step = int(10 ** max(0, int(log10(number)) - 1))
    return ceil(number / step) * step
