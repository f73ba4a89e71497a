"""The gate: bounds, what was measured, and what of it failed."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_layermerge.importance import Divergence
from onnx_layermerge.latency import Ratio
from onnx_layermerge.verify._timing import Timing

__all__ = ["Gate", "Verdict", "judge"]


@dataclass(frozen=True)
class Gate:
    """Bounds to meet; None asks nothing.  ``min_agreement`` in [0, 1], ``max_kl`` in nats per sample."""

    min_speedup: float | None = None
    min_agreement: float | None = None
    max_kl: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What was measured, where and how, and one sentence for every bound that was not met."""

    speedup: Ratio
    quality: Divergence | None
    failures: tuple[str, ...]
    timing: Timing | None = None

    @property
    def passed(self) -> bool:
        return not self.failures


def judge(gate: Gate, speedup: Ratio, quality: Divergence | None, timing: Timing | None = None) -> Verdict:
    """Hold the measurements against the gate; the speed-up counts with the lower end of its interval."""
    failures = []
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
    return Verdict(speedup, quality, tuple(failures), timing)
