"""The gate: bounds, what was measured, and what of it failed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx_layermerge.importance import Divergence
from onnx_layermerge.latency import Ratio
from onnx_layermerge.verify._boxes import Boxes
from onnx_layermerge.verify._drift import OutputDrift
from onnx_layermerge.verify._metric import MetricValues
from onnx_layermerge.verify._quality import Compared
from onnx_layermerge.verify._timing import Timing

__all__ = ["CAP_S", "Gate", "Verdict", "judge"]

# Wall seconds of the timed rounds, of all sessions together, unless the caller says otherwise.
CAP_S = 30.0


@dataclass(frozen=True)
class Gate:
    """Bounds to meet; None asks nothing.

    ``min_speedup`` is a ratio, ``min_saving_ms`` what it has to come to in milliseconds of one inference, since a large
    ratio of next to nothing is not worth a new model.  ``min_agreement`` in [0, 1], ``max_kl`` in nats per sample,
    ``max_drop`` in the units of the user's metric.
    """

    min_speedup: float | None = None
    min_agreement: float | None = None
    max_kl: float | None = None
    max_drop: float | None = None
    min_saving_ms: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What was measured, where and how, and one sentence for every bound that was not met.

    ``quality``, ``outputs`` and ``boxes`` compare the outputs, in one figure, each alone, and decoded by the user;
    ``metric`` is the user's own of both models.  ``warnings`` are sentences on what the samples cannot show.
    ``undecided``: some bound on time lies within the measured interval, so that it is neither met nor surely missed;
    another may be missed beside it.
    """

    speedup: Ratio
    quality: Divergence | None
    failures: tuple[str, ...]
    timing: Timing | None = None
    outputs: tuple[OutputDrift, ...] = ()
    boxes: Boxes | None = None
    metric: MetricValues | None = None
    warnings: tuple[str, ...] = ()
    undecided: bool = False

    @property
    def saving_ms(self) -> tuple[float, float, float]:
        """What one inference saves: the median, and the ends of its interval."""
        return _saving_ms(self.speedup)

    @property
    def passed(self) -> bool:
        return not self.failures


def judge(
    gate: Gate,
    speedup: Ratio,
    found: Compared | None,
    timing: Timing | None = None,
    metric: MetricValues | None = None,
    cap_s: float = CAP_S,
) -> Verdict:
    """Hold the measurements against the gate; times count with the lower end of their interval.

    An output that cannot be compared fails whatever the gate asks: a broken model that is fast is still broken.
    ``cap_s`` is how long the timing was allowed to take.
    """
    failures = []
    undecided = False
    quality = None if found is None else found.divergence
    for name, unit, bound, (middle, low, high) in (
        ("speed-up", "×", gate.min_speedup, (speedup.ratio, speedup.low, speedup.high)),
        ("saving", " ms", gate.min_saving_ms, _saving_ms(speedup)),
    ):
        if bound is None or low >= bound:
            continue
        said = f"{name} {middle:.4g}{unit} [{low:.4g}, {high:.4g}]: the bound {bound:g}{unit} is"
        if high >= bound:
            undecided = True
            failures.append(f"{said} undecided, {_why(speedup, cap_s)}")
        else:
            failures.append(f"{said} missed")
    if gate.min_agreement is not None:
        if quality is None:
            failures.append("agreement was not measured: give --calib")
        elif math.isnan(quality.agreement):
            failures.append(
                "agreement was not measured, as no output is one score for each class: bound --max-kl, here the "
                "relative error, or give --metric agreement:FILE.npz and --max-drop"
            )
        elif not quality.agreement >= gate.min_agreement:
            failures.append(f"agreement {quality.agreement:.1%} is below {gate.min_agreement:.1%}")
    if gate.max_kl is not None:
        if quality is None:
            failures.append("divergence was not measured: give --calib")
        elif not quality.kl <= gate.max_kl:
            failures.append(f"divergence {quality.kl:.4f} is above {gate.max_kl:g}")
    if gate.max_drop is not None:
        if metric is None:
            failures.append("the metric was not measured: give --metric")
        elif not metric.drop <= gate.max_drop:
            failures.append(
                f"the metric fell by {metric.drop:.4g}, from {metric.original:.6g} to {metric.compressed:.6g}, "
                f"more than {gate.max_drop:g}"
            )
    outputs, boxes = (found.outputs, found.boxes) if found is not None else ((), None)
    for each in outputs:
        if each.largest == math.inf:  # for nothing else
            failures.append(
                f"output '{each.name}' holds NaN or Inf in one of the models, or is missing, or has another shape: "
                "do not ship it"
            )
    return Verdict(speedup, quality, tuple(failures), timing, outputs, boxes, metric, undecided=undecided)


def _saving_ms(speedup: Ratio) -> tuple[float, float, float]:
    """What the ratio and the ends of its interval take off the first model's median: a · (1 − 1/ratio)."""
    middle, low, high = (speedup.a_s * (1 - 1 / each) * 1e3 for each in (speedup.ratio, speedup.low, speedup.high))
    return middle, low, high


def _why(speedup: Ratio, cap_s: float) -> str:
    """What kept the interval from leaving the bound on one side, and what to do about it."""
    if speedup.stop_reason == "cap":
        return f"as noise left that interval when the {cap_s:g} s were over: give an idle machine, or --time-cap more"
    if speedup.stop_reason == "rounds":
        return f"as noise left that interval after {speedup.n} rounds: give an idle machine, or --time-cap more"
    return f"as it lies within the precision of {speedup.n} rounds: the model is about that fast, so ask for less"
