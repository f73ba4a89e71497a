"""The words of a compression that what it leaves behind repeats: the plan file, the output's metadata, the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.flow._record import versions
from onnx_layermerge.flow._search import Place
from onnx_layermerge.latency import Backend, EngineOptions
from onnx_layermerge.report import metric_name

__all__ = ["Asked"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Asked:
    """As they were given to ``compress``."""

    input: str | Path
    output: str | Path
    speedup: float
    method: str
    refit: str
    effort: str
    samples: int
    seed: int
    metric: str | Callable[..., float] | None
    backend: str | Backend
    device: str
    precision: str
    engines: EngineOptions | None
    profile: str | Path | None

    def settings(self) -> dict[str, str]:
        """What a plan file is for: a plan stands for no other settings."""
        metric = self.metric
        return {
            "speedup": f"{self.speedup:g}",
            "method": self.method,
            "refit": self.refit,
            "effort": self.effort,
            "samples": str(self.samples),
            "seed": str(self.seed),
            **self._place(),
            "metric": metric_name(metric) if isinstance(metric, str) else "none" if metric is None else "a function",
        }

    def _place(self) -> dict[str, str]:
        """Which devices the words mean; which of several equal ones makes no difference."""
        if not isinstance(self.backend, str):
            key = self.backend.describe()
            return {"backend": key.backend, "device": "its own", "precision": key.precision}
        built = {} if self.engines is None else self.engines.settings()
        return {
            "backend": self.backend,
            "device": self.device.partition(":")[0],
            "precision": self.precision,
            "opt-level": built.get("level", "default"),
            "shapes": built.get("shapes", "no range"),
        }

    def origin(self, place: Place, model: str, data: str) -> dict[str, str]:
        """Notes for the output's metadata; ``model`` and ``data`` are digests."""
        return {
            "version": versions().get("onnx-layermerge", "0.0.0"),
            "method": self.method,
            "speedup.asked": f"{self.speedup:g}",
            "device": place.text,
            "seed": str(self.seed),
            "input.sha256": model,
            "calibration.sha256": data,
            **({} if place.mismatch is None else {"profile.mismatch": place.mismatch}),
        }
