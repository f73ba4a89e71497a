"""The last word on a chosen plan's weights.

1. *Refit*: every kept convolution behind the first replaced block is solved again, near its own weights, so that what
   earlier blocks lost is made up for.  Kept where validation gains by it (docs/adr/0015).
2. *Tuning*: the insides of blocks, thinned ones and kept ones, by small steps (docs/adr/0016), as far as validation
   gains.
3. *All samples*: held-out samples have done their work once the plan is chosen, so the weights that are written come
   from fits on all of them.  What is reported of the plan is measured with the weights from before, which never saw
   the held-out ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx_layermerge.data import Calibration
from onnx_layermerge.flow._prepare import Prepared, Progress
from onnx_layermerge.flow._rank import Ranked
from onnx_layermerge.recover import Built, build, refit, tuned
from onnx_layermerge.verify import Metric, outputs_of, quality

__all__ = ["Weights", "settle"]

# Either step moves weights that have nothing to do with the plan; it has to be worth that.
GAIN = 0.98


@dataclass(frozen=True, eq=False)
class Weights:
    """``written``: what goes into the file; ``judged``: the same plan with weights that have not seen the validation.

    ``samples`` is how many the fits behind ``written`` were given (each takes as many as fit in memory), 0 for none;
    ``steps`` names what was taken of "refit" and "tune".
    """

    judged: Built
    written: Built
    samples: int
    steps: tuple[str, ...] = ()


def settle(
    prepared: Prepared,
    item: Ranked,
    fit_data: Calibration | None,
    everything: Calibration | None,
    validation: Calibration,
    *,
    refitting: bool,
    tuning: bool,
    metric: Metric | None,
    seed: int,
    progress: Progress,
) -> Weights:
    """Refit and tune where that helps, then again on ``everything`` (None: there is no more than ``fit_data``).

    With ``refitting`` convolutions that the plan leaves alone are refitted, and tuned too where there is ``tuning``.
    """
    network, batch = prepared.network, prepared.batch
    by_key = {candidate.key: candidate for candidate in prepared.candidates}
    plan = [by_key[key] for key in item.plan.keys]
    judged, loss = item.built, item.loss
    if fit_data is None or not (judged.fits or refitting):
        return Weights(judged, judged, 0)
    wanted = outputs_of(network.model, validation, batch)
    # With the model itself: what is gone could lend its id to another.
    scores = {} if item.score is None else {id(judged): (judged, item.score)}

    def loss_of(built: Built) -> float:
        return quality(wanted, built.model, validation, batch).kl

    def no_worse(built: Built, than: Built) -> bool:
        if metric is None:
            return True
        for each in (built, than):
            if id(each) not in scores:
                scores[id(each)] = each, metric.score(each.model)
        return scores[id(built)][1] >= scores[id(than)][1]

    def fitted(data: Calibration) -> Built:
        return build(network, plan, data, images=len(data), batch=batch, seed=seed)

    def said(stage: str) -> Callable[[int, int, str], None]:
        return lambda done, total, what: progress(stage, done, total, what)

    def again(built: Built, data: Calibration) -> Built:
        count = len(data)
        return refit(network, plan, built, data, images=count, batch=batch, seed=seed, progress=said("refit"))

    def tune(built: Built, data: Calibration) -> Built:
        return tuned(network, plan, built, data, kept=refitting, batch=batch, seed=seed, progress=said("tune"))

    if judged.fits and item.images < len(fit_data):  # it was only ranked so far, with a few of the images
        progress("refit", 0, 1, "fitting on more samples")
        judged = fitted(fit_data)
        loss = loss_of(judged)
    offered: dict[str, Callable[[Built, Calibration], Built]] = {}
    offered |= {"refit": again} if refitting else {}
    offered |= {"tune": tune} if tuning else {}
    taken = []
    for name, step in offered.items():
        tried = step(judged, fit_data)
        new = loss_of(tried)
        if new < GAIN * loss and no_worse(tried, judged):
            judged, loss = tried, new
            taken.append(name)
    if not (judged.fits or judged.refitted):
        return Weights(judged, judged, 0)
    if everything is None:
        return Weights(judged, judged, len(fit_data), tuple(taken))
    progress("refit", 0, 1, "fitting on all samples")
    written = fitted(everything)
    for name in taken:
        written = offered[name](written, everything)
    progress("refit", 1, 1, "fitted on all samples")
    # It has seen what it is judged by here, so it must not look worse; where it does, more samples did not help.
    if loss_of(written) <= loss and no_worse(written, judged):
        return Weights(judged, written, len(everything), tuple(taken))
    return Weights(judged, judged, len(fit_data), tuple(taken))
