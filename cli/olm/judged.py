"""How good a compressed model is, as lines of a result: what ``compress`` and ``verify`` both show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from olm.screen import say, table

if TYPE_CHECKING:
    from onnx_layermerge.verify import Boxes, MetricValues, OutputDrift

__all__ = ["show_boxes", "show_metric", "show_outputs"]

_COLUMNS = {
    "kl": ">KL",
    "relative": ">relative error",
    "cosine": ">cosine",
    "snr_db": ">SNR, dB",
    "largest": ">largest difference",
    "rank_correlation": ">rank correlation",
    "agreement": ">same answer",
}


def show_outputs(outputs: Sequence[OutputDrift]) -> None:
    """A table with a row for each output, and the columns that apply to any of them."""
    used = [name for name in _COLUMNS if any(getattr(output, name) is not None for output in outputs)]
    if not used:
        return
    rows = [(output.name, *(_cell(name, getattr(output, name)) for name in used)) for output in outputs]
    table(("output", *(_COLUMNS[name] for name in used)), rows, title="Drift")
    say()


def show_boxes(boxes: Boxes | None) -> None:
    """Matched boxes in both directions."""
    if boxes is None:
        return
    said = f"{boxes.matched} matched of the original's {boxes.original} and the compressed model's {boxes.compressed}"
    if boxes.f1 is not None:
        said += f" ({_share(boxes.found)} and {_share(boxes.right)}, F1 {boxes.f1:.3f})"
    say(f"boxes       {said}")


def show_metric(metric: MetricValues | None) -> None:
    """The user's metric before and after."""
    if metric is not None:
        say(f"metric      {metric.original:.6g} -> {metric.compressed:.6g}, by {metric.name}")


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if name == "agreement":
        return f"{value:.1%}"
    if name == "snr_db":
        return f"{value:.1f}"
    return f"{value:.6f}" if name in ("cosine", "rank_correlation") else f"{value:.4g}"
