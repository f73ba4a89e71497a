"""The gate: bounds, what was measured, and what of it failed."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_layermerge.importance import Divergence
from onnx_layermerge.latency import Ratio
from onnx_layermerge.verify._boxes import Boxes
from onnx_layermerge.verify._drift import OutputDrift
from onnx_layermerge.verify._metric import MetricValues
from onnx_layermerge.verify._quality import Compared
from onnx_layermerge.verify._timing import Timing

__all__ = ["Gate", "Verdict", "judge"]


@dataclass(frozen=True)
class Gate:
    """Bounds to meet; None asks nothing.

    ``min_agreement`` in [0, 1], ``max_kl`` in nats per sample, ``max_drop`` in the units of the user's metric.
    """

    min_speedup: float | None = None
    min_agreement: float | None = None
    max_kl: float | None = None
    max_drop: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What was measured, where and how, and one sentence for every bound that was not met.

    ``quality``, ``outputs`` and ``boxes`` compare the outputs, in one figure, each alone, and decoded by the user;
    ``metric`` is the user's own of both models.  ``warnings`` are sentences on what the samples cannot show.
    """

    speedup: Ratio
    quality: Divergence | None
    failures: tuple[str, ...]
    timing: Timing | None = None
    outputs: tuple[OutputDrift, ...] = ()
    boxes: Boxes | None = None
    metric: MetricValues | None = None
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures


def judge(
    gate: Gate,
    speedup: Ratio,
    found: Compared | None,
    timing: Timing | None = None,
    metric: MetricValues | None = None,
) -> Verdict:
    """Hold the measurements against the gate; the speed-up counts with the lower end of its interval."""
    failures = []
    quality = None if found is None else found.divergence
    if gate.min_speedup is not None and not speedup.low >= gate.min_speedup:
        said = f"{speedup.ratio:.3f}× [{speedup.low:.3f}, {speedup.high:.3f}]"
        verdict = "undecided within the interval" if speedup.high >= gate.min_speedup else "missed"
        failures.append(f"speed-up {said}: the bound {gate.min_speedup:g}× is {verdict}")
    if gate.min_agreement is not None:
        if quality is None:
            failures.append("agreement was not measured: give --calib")
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
    return Verdict(speedup, quality, tuple(failures), timing, outputs, boxes, metric)
