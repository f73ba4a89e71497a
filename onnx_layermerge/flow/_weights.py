"""The last word on a chosen plan's weights.

1. *Refit*: every kept convolution behind the first replaced block is solved again, near its own weights, so that what
   earlier blocks lost is made up for.  Kept where validation gains by it (docs/adr/0015).
2. *All samples*: held-out samples have done their work once the plan is chosen, so the weights that are written come
   from fits on all of them.  What is reported of the plan is measured with the weights from before, which never saw
   the held-out ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_layermerge.data import Calibration
from onnx_layermerge.flow._prepare import Prepared, Progress
from onnx_layermerge.flow._rank import Ranked
from onnx_layermerge.recover import Built, build, refit
from onnx_layermerge.verify import Metric, outputs_of, quality

__all__ = ["Weights", "settle"]

# A refit moves every weight behind the first block; it has to be worth that.
REFIT_GAIN = 0.98


@dataclass(frozen=True, eq=False)
class Weights:
    """``written``: what goes into the file, fitted on ``samples`` samples; ``judged``: what validation has not seen."""

    judged: Built
    written: Built
    samples: int


def settle(
    prepared: Prepared,
    item: Ranked,
    fit_data: Calibration | None,
    everything: Calibration | None,
    validation: Calibration,
    *,
    refitting: bool,
    metric: Metric | None,
    seed: int,
    progress: Progress,
) -> Weights:
    """Refit where that helps, then fit on ``everything`` (None: there is no more than ``fit_data``)."""
    network, batch = prepared.network, prepared.batch
    by_key = {candidate.key: candidate for candidate in prepared.candidates}
    plan = [by_key[key] for key in item.plan.keys]
    if fit_data is None:
        return Weights(item.built, item.built, 0)
    wanted = outputs_of(network.model, validation, batch)

    def loss_of(built: Built) -> float:
        return quality(wanted, built.model, validation, batch).kl

    def no_worse(built: Built, than: Built) -> bool:
        return metric is None or metric.score(built.model) >= metric.score(than.model)

    def again(built: Built, data: Calibration) -> Built:
        def said(done: int, total: int, what: str) -> None:
            progress("refit", done, total, what)

        return refit(network, plan, built, data, images=len(data), batch=batch, seed=seed, progress=said)

    judged, loss = item.built, item.loss
    if refitting:
        tried = again(judged, fit_data)
        new = loss_of(tried)
        if new < REFIT_GAIN * loss and no_worse(tried, judged):
            judged, loss = tried, new
    if everything is None or not (judged.fits or judged.refitted):
        return Weights(judged, judged, len(fit_data))
    progress("refit", 0, 1, "fitting on all samples")
    written = build(network, plan, everything, images=len(everything), batch=batch, seed=seed)
    if judged.refitted:
        written = again(written, everything)
    progress("refit", 1, 1, "fitted on all samples")
    # It has seen what it is judged by here, so it must not look worse; where it does, more samples did not help.
    if loss_of(written) <= loss and no_worse(written, judged):
        return Weights(judged, written, len(everything))
    return Weights(judged, judged, len(fit_data))
