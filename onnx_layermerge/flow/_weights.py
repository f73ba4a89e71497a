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
    """``written``: what goes into the file; ``judged``: the same plan with weights that have not seen the validation.

    ``samples`` is how many the fits behind ``written`` were given (each takes as many as fit in memory), 0 for none.
    """

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
    judged, loss = item.built, item.loss
    if fit_data is None or not (judged.fits or refitting):
        return Weights(judged, judged, 0)
    wanted = outputs_of(network.model, validation, batch)
    scores = {} if item.score is None else {id(judged): item.score}

    def loss_of(built: Built) -> float:
        return quality(wanted, built.model, validation, batch).kl

    def no_worse(built: Built, than: Built) -> bool:
        if metric is None:
            return True
        for each in (built, than):
            if id(each) not in scores:
                scores[id(each)] = metric.score(each.model)
        return scores[id(built)] >= scores[id(than)]

    def fitted(data: Calibration) -> Built:
        return build(network, plan, data, images=len(data), batch=batch, seed=seed)

    def again(built: Built, data: Calibration) -> Built:
        def said(done: int, total: int, what: str) -> None:
            progress("refit", done, total, what)

        return refit(network, plan, built, data, images=len(data), batch=batch, seed=seed, progress=said)

    if judged.fits and item.images < len(fit_data):  # it was only ranked so far, with a few of the images
        progress("refit", 0, 1, "fitting on more samples")
        judged = fitted(fit_data)
        loss = loss_of(judged)
    if refitting:
        tried = again(judged, fit_data)
        new = loss_of(tried)
        if tried.refitted and new < REFIT_GAIN * loss and no_worse(tried, judged):
            judged, loss = tried, new
    if not (judged.fits or judged.refitted):
        return Weights(judged, judged, 0)
    if everything is None:
        return Weights(judged, judged, len(fit_data))
    progress("refit", 0, 1, "fitting on all samples")
    written = fitted(everything)
    if judged.refitted:
        written = again(written, everything)
    progress("refit", 1, 1, "fitted on all samples")
    # It has seen what it is judged by here, so it must not look worse; where it does, more samples did not help.
    if loss_of(written) <= loss and no_worse(written, judged):
        return Weights(judged, written, len(everything))
    return Weights(judged, judged, len(fit_data))
