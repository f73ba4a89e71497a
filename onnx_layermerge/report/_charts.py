"""Two small charts of a run, as SVG: plans by speed-up and loss, and the speed-up as asked, predicted and measured."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnx_layermerge.report._report import Point, Report
from onnx_layermerge.report._svg import add, path_data
from onnx_layermerge.report._words import digits, file_name, times

__all__ = ["built_chart", "frontier_chart", "speed_strip"]

W, H = 440.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 26.0, 40.0
# More of the frontier than this much beyond the plans tells nothing of them.
BEYOND = 1.6
# From this ratio on a linear axis would hide the lower half of the losses.
LOGARITHMIC = 30.0
# So many points of a curve are drawn smaller.
MANY = 40
# Decades below the largest loss that are shown.
DECADES = 5


@dataclass(frozen=True)
class Axes:
    """Speed-ups [x0, x1] and losses [y0, y1] in a frame of W × H."""

    x0: float
    x1: float
    y0: float
    y1: float
    log: bool

    def x(self, speedup: float) -> float:
        return LEFT + (speedup - self.x0) / (self.x1 - self.x0) * (W - LEFT - RIGHT)

    def y(self, loss: float) -> float:
        low, high, value = self.y0, self.y1, min(max(loss, self.y0), self.y1)
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return H - BOTTOM - (value - low) / (high - low) * (H - TOP - BOTTOM)


def frontier_chart(report: Report) -> ET.Element | None:
    """The frontier, and every plan that was built where the table and the scores expected it; None without one."""
    line, drops = report.points or report.drop_only, report.drop_only if report.points else ()
    rejected = [plan for plan in report.rejected if plan.speedup > 0 and math.isfinite(plan.expected)]
    reach = max(report.asked, report.speedup.high, *(plan.speedup for plan in rejected), 1.0)
    edge = 1 + (reach - 1) * BEYOND
    shown = [point for point in line if 1 <= point.speedup <= edge and math.isfinite(point.loss)]
    dropped = [point for point in drops if 1 <= point.speedup <= edge and math.isfinite(point.loss)]
    if not shown:
        return None
    # Drops alone soon cost so much that everything else would lie on the floor.
    losses = [*(p.loss for p in shown), *(p.expected for p in rejected), report.expected]
    axes = _axes([*(p.speedup for p in shown), reach], [*losses, *(p.loss for p in dropped)])
    drawn = "the frontier" if not dropped else "the frontier, and drops alone (dashed)"
    svg = _frame(axes, "expected loss", f"Expected loss by speed-up: {drawn}, with the plans that were built")
    _asked(svg, axes, report.asked)
    _curve(svg, axes, dropped, "drops", "drops alone")
    _curve(svg, axes, shown, "curve", "frontier")
    for plan in rejected:
        title = (
            f"not chosen: {times(plan.speedup, 3)} measured, {times(plan.predicted, 3)} predicted\n"
            f"expected loss {digits(plan.expected)}, divergence when built {digits(plan.divergence)}\n"
            f"{len(plan.blocks)} blocks, by {plan.basis}"
        )
        _other(svg, axes, plan.speedup, plan.expected, title)
    if math.isfinite(report.expected):
        _chosen(svg, axes, report, report.expected)
    return svg


def built_chart(report: Report) -> ET.Element | None:
    """What the plans really did to the outputs once they were built; None with nothing to compare."""
    rejected = [plan for plan in report.rejected if plan.speedup > 0 and math.isfinite(plan.divergence)]
    if not rejected or not math.isfinite(report.divergence):
        return None
    speeds = [report.asked, report.speedup.low, report.speedup.high, *(plan.speedup for plan in rejected)]
    axes = _axes(speeds, [report.divergence, *(plan.divergence for plan in rejected)], near=True)
    svg = _frame(axes, "divergence, built", "Measured divergence by measured speed-up of the plans that were built")
    _asked(svg, axes, report.asked)
    for plan in rejected:
        title = (
            f"not chosen: {times(plan.speedup, 3)} measured, divergence {digits(plan.divergence)}\n"
            f"{len(plan.blocks)} blocks, by {plan.basis}"
        )
        _other(svg, axes, plan.speedup, plan.divergence, title)
    _chosen(svg, axes, report, report.divergence)
    return svg


def speed_strip(report: Report) -> ET.Element:
    """Asked, predicted and measured with its interval, on one line."""
    width, height, left, right = 440.0, 74.0, 16.0, 16.0
    ratio = report.speedup
    values = (report.asked, report.predicted, ratio.low, ratio.high)
    spread = max(max(values) - min(values), 0.02 * ratio.ratio)
    low, high = min(values) - 0.35 * spread, max(values) + 0.35 * spread

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - right)

    svg = _svg(width, height, f"Speed-up of {file_name(report.output)}: asked, predicted and measured", "strip")
    middle = 34.0
    add(svg, "path", "axis", d=path_data("M", left, middle, "H", width - right))
    for tick in _ticks(low, high, 6):
        if low <= tick <= high:
            add(svg, "path", "axis", d=path_data("M", x(tick), middle, "v", 5))
            add(svg, "text", "muted t mid", _tick_text(tick), x=x(tick), y=middle + 18)
    asked = add(svg, "g", title=f"asked {times(report.asked, 3)}")
    add(asked, "path", "asked", d=path_data("M", x(report.asked), middle - 20, "v", 28))
    measured = add(svg, "g", title=f"measured {times(ratio.ratio, 3)}, 95 % from {ratio.low:.3f} to {ratio.high:.3f}")
    add(measured, "path", "whisker wide", d=path_data("M", x(ratio.low), middle, "H", x(ratio.high)))
    for end in (ratio.low, ratio.high):
        add(measured, "path", "whisker", d=path_data("M", x(end), middle - 5, "v", 10))
    _diamond(measured, x(ratio.ratio), middle)
    predicted = add(svg, "g", title=f"predicted {times(report.predicted, 3)}")
    add(predicted, "circle", "guess", cx=x(report.predicted), cy=middle, r=4.5)
    legend = height - 4
    marks = (("asked", "asked", 26.0), ("guess", "predicted", 98.0), ("chosen", "measured, 95 % interval", 196.0))
    for css, label, at in marks:
        if css == "asked":
            add(svg, "path", "asked", d=path_data("M", at - 8, legend - 9, "v", 11))
        elif css == "guess":
            add(svg, "circle", "guess", cx=at - 9, cy=legend - 4, r=4)
        else:
            _diamond(svg, at - 10, legend - 4, 5.0)
        add(svg, "text", "muted t", label, x=at, y=legend)
    return svg


# --- parts ----------------------------------------------------------------------------------------------------------


def _svg(width: float, height: float, title: str, css: str) -> ET.Element:
    svg = ET.Element("svg", {"class": css, "role": "img", "viewBox": f"0 0 {width:g} {height:g}"})
    add(svg, "title", text=title)
    return svg


def _axes(speeds: Sequence[float], losses: Sequence[float], *, near: bool = False) -> Axes:
    positive = [loss for loss in losses if 0 < loss < math.inf]
    high = max(positive, default=1.0)
    least = max(min(positive, default=high / 10), high / 10**DECADES)
    log = high / least > LOGARITHMIC
    if near:
        margin = 0.12 * max(max(speeds) - min(speeds), 0.02)
        x0, x1 = min(speeds) - margin, max(speeds) + margin
    else:
        x0, x1 = 1.0, max(max(speeds) * 1.0, 1.02)
        x1 += 0.04 * (x1 - x0)
    return Axes(x0, x1, least / 1.4 if log else 0.0, high * (1.4 if log else 1.08), log)


def _frame(axes: Axes, label: str, title: str) -> ET.Element:
    svg = _svg(W, H, title, "chart")
    for value in _y_ticks(axes):
        y = axes.y(value)
        add(svg, "path", "grid", d=path_data("M", LEFT, y, "H", W - RIGHT))
        add(svg, "text", "muted t end", f"{value:g}", x=LEFT - 7, y=y + 4)
    for value in _ticks(axes.x0, axes.x1, 6):
        if axes.x0 - 1e-9 <= value <= axes.x1 + 1e-9:
            add(svg, "path", "axis", d=path_data("M", axes.x(value), H - BOTTOM, "v", 4))
            add(svg, "text", "muted t mid", _tick_text(value), x=axes.x(value), y=H - BOTTOM + 17)
    add(svg, "path", "axis", d=path_data("M", LEFT, H - BOTTOM, "H", W - RIGHT))
    add(svg, "text", "muted t", f"{label} (KL, nats{'; logarithmic' if axes.log else ''})", x=8, y=13)
    add(svg, "text", "muted t end", "speed-up", x=W - RIGHT, y=H - 6)
    return svg


def _asked(svg: ET.Element, axes: Axes, asked: float) -> None:
    x = axes.x(asked)
    add(svg, "path", "asked", d=path_data("M", x, TOP - 4, "V", H - BOTTOM))
    end = x > W - 110
    add(svg, "text", "muted t end" if end else "muted t", f"asked {times(asked)}", x=x - 5 if end else x + 5, y=TOP + 6)


def _curve(svg: ET.Element, axes: Axes, points: Iterable[Point], css: str, what: str) -> None:
    ordered = sorted(points, key=lambda point: point.speedup)
    if not ordered:
        return
    words: list[float | str] = []
    for point in ordered:
        words += ["L" if words else "M", axes.x(point.speedup), axes.y(point.loss)]
    add(svg, "path", css, d=path_data(*words))
    radius = 2.2 if len(ordered) < MANY else 1.5
    for point in ordered:
        title = f"{what}: {times(point.speedup, 3)} predicted, loss {digits(point.loss)}, {point.blocks} blocks"
        add(svg, "circle", f"{css} dot", cx=axes.x(point.speedup), cy=axes.y(point.loss), r=radius, title=title)


def _other(svg: ET.Element, axes: Axes, speedup: float, loss: float, title: str) -> None:
    add(svg, "circle", "other", cx=axes.x(speedup), cy=axes.y(loss), r=4.5, title=title)


def _chosen(svg: ET.Element, axes: Axes, report: Report, loss: float) -> None:
    ratio = report.speedup
    x, y = axes.x(ratio.ratio), axes.y(loss)
    title = f"chosen: {times(ratio.ratio, 3)} measured, 95 % from {ratio.low:.3f} to {ratio.high:.3f}; {digits(loss)}"
    mark = add(svg, "g", title=title)
    add(mark, "path", "whisker", d=path_data("M", axes.x(ratio.low), y, "H", axes.x(ratio.high)))
    _diamond(mark, x, y)
    end = x > W - 120
    low = y + 20 < H - BOTTOM
    add(
        mark, "text", "ink u b on-page end" if end else "ink u b on-page", f"chosen {times(ratio.ratio)}",
        x=x - 9 if end else x + 9, y=y + 17 if low else y - 10,
    )  # fmt: skip


def _diamond(parent: ET.Element, x: float, y: float, size: float = 6.5) -> None:
    add(parent, "path", "chosen", d=path_data("M", x, y - size, "l", size, size, -size, size, -size, -size, "z"))


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round values from low to high, at most about so many."""
    rough = max((high - low) / most, 1e-12)
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _y_ticks(axes: Axes) -> list[float]:
    if not axes.log:
        return _ticks(axes.y0, axes.y1, 5)
    decades = range(math.floor(math.log10(axes.y0)), math.ceil(math.log10(axes.y1)) + 1)
    tens = [10.0**power for power in decades if axes.y0 <= 10.0**power <= axes.y1]
    if len(tens) >= 3:
        return tens
    return [m * 10.0**power for power in decades for m in (1, 2, 5) if axes.y0 <= m * 10.0**power <= axes.y1]


def _tick_text(value: float) -> str:
    return f"{value:.2f}×" if round(value * 10, 6) % 1 else f"{value:.1f}×"
