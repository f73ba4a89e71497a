"""Draw docs/frontier.svg: what every speed-up of EfficientNet-Lite0 is expected to cost, and what was then measured.

    python benchmarks/frontier_svg.py --measure --profile FILE     # plan, write the record, draw
    python benchmarks/frontier_svg.py                              # draw again from the records

x is the speed-up, y the expected loss Σ d, where d is the KL divergence (nats per image) that a block causes when it
is the only one replaced. A curve is the frontier of `olm.plan`: the step that ends at speed-up x is the least Σ d of a
plan predicted to reach x. y is drawn as √y: losses span orders of magnitude, and 0, the original, has to be on it.

A model that `main_job.py` built stands at its measured speed-up and at the Σ d of its blocks; a thin line leads there
from the speed-up that was predicted. It need not lie on the curve: it was chosen by building, among several plans.

The picture needs no other file: one style sheet inside, with a dark variant, and the reader's own fonts.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from main_job import JOBS, METHODS, ROOT, Row, write_json

RECORDS = ROOT / "benchmarks/records"
NAME = "EfficientNet-Lite0"
WIDTH, HEIGHT = 760, 520
LEFT, RIGHT, TOP, BOTTOM = 72, 28, 108, 104
FASTEST = 2.0  # the axis ends here unless something faster was built
WORST = 4.0  # nats; beyond that a classifier says nothing any more
TICKS_Y = (0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 4)
LINE_PX, LABEL_PX, LETTER_PX = 17, 20, 6.7

STYLE = """
svg { color-scheme: light dark; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
.page { fill: #ffffff } .ink { fill: #1f2328 } .muted { fill: #59636e } .head { font-size: 17px; font-weight: 600 }
.small { font-size: 12px } .grid { stroke: #e4e8ec } .axis { stroke: #8c959f } .lead { stroke: #8c959f; fill: none }
.line { fill: none; stroke-width: 2.25; stroke-linejoin: round } .end { text-anchor: end } .mid { text-anchor: middle }
.olm { --c: #0b62d6 } .drop { --c: #b35309 } .layermerge { --c: #7a3fb5 } .original { --c: #1f2328 }
.line { stroke: var(--c) } .line.drop { stroke-dasharray: 7 4 }
.mark { fill: var(--c); stroke: #ffffff; stroke-width: 1.5 }
.ring { fill: #ffffff; stroke: var(--c); stroke-width: 1.5 }
.way { stroke: var(--c); stroke-width: 1.25 }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117 } .ink { fill: #e6edf3 } .muted { fill: #9da7b3 } .grid { stroke: #242b34 }
  .axis, .lead { stroke: #6e7681 } .olm { --c: #58a6ff } .drop { --c: #f0883e } .layermerge { --c: #c297ff }
  .original { --c: #e6edf3 } .mark { stroke: #0d1117 } .ring { fill: #0d1117 }
}
"""


@dataclass(frozen=True)
class Curve:
    """The frontier of one kind of plan: (speed-up, Σ KL), both ascending."""

    kind: str
    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Built:
    """A model that was built: where it was predicted and measured to be, its Σ KL, and what to write beside it."""

    kind: str
    label: str
    predicted: float
    measured: float
    loss: float


@dataclass(frozen=True)
class Scale:
    """Data to pixels: x linear from 1 to `fastest`, y as the square root from 0 to `worst`."""

    fastest: float
    worst: float

    def x(self, speedup: float) -> float:
        return LEFT + (min(speedup, self.fastest) - 1) / (self.fastest - 1) * (WIDTH - LEFT - RIGHT)

    def y(self, loss: float) -> float:
        return HEIGHT - BOTTOM - math.sqrt(min(loss, self.worst) / self.worst) * (HEIGHT - TOP - BOTTOM)


# --- from the records ------------------------------------------------------------------------------------------------


def measure(profile: Path | None, samples: int | None) -> Row:
    """The frontier of Lite0 as data: `olm.plan`'s report, with the number of a plan's blocks for their names."""
    import onnx_layermerge as olm
    from main_job_steps import following  # brings NumPy and the package, which drawing does not need
    from onnx_layermerge.report import as_json

    job = JOBS["lite0"]
    more: dict[str, Any] = {} if samples is None else {"samples": samples}
    with following("lite0 frontier") as progress:
        report = olm.plan(ROOT / job.model, calib=str(ROOT / job.calib), profile=profile, progress=progress, **more)
    record: Row = json.loads(as_json(report))
    for point in (*record["points"], *record["drop_only"]):
        point["blocks"] = len(point["blocks"])
    return record | {"input": job.model, "samples": samples}


def curves_of(record: Row) -> list[Curve]:
    """Both frontiers, each from the original's (1, 0)."""
    found = []
    for kind, label, name in (("olm", "all methods", "points"), ("drop", "drop only", "drop_only")):
        points = sorted((p["speedup"], p["loss"]) for p in record[name] if p["speedup"] > 1)
        if points:
            found.append(Curve(kind, label, ((1.0, 0.0), *points)))
    return found


def built_of(rows: Sequence[Row]) -> list[Built]:
    """The models of `main_job.py` that were finished and measured, and the original first."""
    found: list[Built] = []
    for row in rows:
        measured = row.get("measured", {})
        if row["network"] != "lite0" or row["run"] not in METHODS or "speedup" not in measured:
            continue
        report, images = row["report"], measured["images"]
        if not found:
            found.append(Built("original", f"original · {measured['original']['top1']}/{images} right", 1.0, 1.0, 0.0))
        label = f"{row['run']} · {measured['speedup']:.2f}× · {measured['top1']}/{images} right"
        loss = sum(block["loss_alone"] for block in report["blocks"])
        found.append(Built(row["run"], label, report["predicted"], measured["speedup"], loss))
    return found


# --- to a picture ----------------------------------------------------------------------------------------------------


def add(parent: ET.Element, tag: str, css: str = "", text: str = "", **attributes: float | str) -> ET.Element:
    """A child element; underscores in names stand for hyphens, numbers get one decimal."""
    found = ET.SubElement(parent, tag, {"class": css} if css else {})
    for name, value in attributes.items():
        found.set(name.replace("_", "-"), f"{value:.1f}" if isinstance(value, float) else str(value))
    found.text = text or None
    return found


def draw_axes(svg: ET.Element, scale: Scale) -> None:
    """Grid, ticks and axis titles with their units."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    step = next(step for step in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0) if (scale.fastest - 1) / step <= 10)
    for k in range(int((scale.fastest - 1) / step + 1e-9) + 1):
        x = scale.x(1 + k * step)
        add(svg, "line", "grid", x1=x, x2=x, y1=TOP, y2=bottom)
        add(svg, "text", "muted small mid", f"{1 + k * step:g}×", x=x, y=bottom + 18)
    last = math.inf
    for loss in TICKS_Y:
        y = scale.y(loss)
        if loss <= scale.worst and last - y >= LINE_PX:
            add(svg, "line", "grid" if loss else "axis", x1=LEFT, x2=right, y1=y, y2=y)
            add(svg, "text", "muted small end", f"{loss:g}", x=LEFT - 8, y=y + 4)
            last = y
    middle = (TOP + bottom) / 2
    add(svg, "text", "ink mid", "speed-up over the original, one thread", x=(LEFT + right) / 2, y=bottom + 40)
    turned = f"rotate(-90 22 {middle:.1f})"
    add(svg, "text", "ink mid", "expected loss Σ KL (nats, √ scale)", x=22, y=middle, transform=turned)


def draw_curve(svg: ET.Element, scale: Scale, curve: Curve) -> None:
    """Steps: up to the speed-up of a plan, its loss is the price."""
    path, x0, y0 = [f"M{scale.x(1):.1f} {scale.y(0):.1f}"], scale.x(1), scale.y(0)
    for speedup, loss in curve.points[1:]:
        if loss > scale.worst:
            path.append(f"V{scale.y(scale.worst):.1f}")
            break
        x, y = scale.x(speedup), scale.y(loss)
        if x - x0 >= 0.5 or y0 - y >= 0.5:
            path.append(f"V{y:.1f}H{x:.1f}")
            x0, y0 = x, y
        if speedup >= scale.fastest:
            break
    add(add(svg, "path", f"line {curve.kind}", d="".join(path)), "title", text=curve.label)


def draw_mark(svg: ET.Element, kind: str, x: float, y: float) -> ET.Element:
    """One shape for each method, so that colour is not all that tells them apart."""
    if kind == "drop":
        return add(svg, "rect", f"mark {kind}", x=x - 5.5, y=y - 5.5, width=11, height=11, rx=1.5)
    if kind == "layermerge":
        return add(svg, "path", f"mark {kind}", d=f"M{x:.1f} {y - 7:.1f}l7 12.5h-14z")
    return add(svg, "circle", f"mark {kind}", cx=x, cy=y, r=6)


def draw_built(svg: ET.Element, scale: Scale, built: Sequence[Built]) -> None:
    """Points, each labelled below and to the right, where the curves do not go; labels never overlap."""
    floor = HEIGHT - BOTTOM - 10.0
    places = sorted(((scale.x(b.measured), scale.y(b.loss), b) for b in built), key=lambda place: -place[1])
    for x, y, item in places:
        said = item.label if item.loss <= scale.worst else f"{item.label} · ↑ Σ KL {item.loss:.1f}"
        lowest = min(y + 34, floor)
        floor = lowest - LABEL_PX
        text_x = min(x + 38, WIDTH - RIGHT - 7.5 * len(said))
        add(svg, "path", "lead", d=f"M{x:.1f} {y:.1f}L{text_x - 10:.1f} {lowest - 4:.1f}h6")
        if item.kind != "original":
            expected = scale.x(item.predicted)
            add(svg, "line", f"way {item.kind}", x1=expected, x2=x, y1=y, y2=y)
            add(svg, "circle", f"ring {item.kind}", cx=expected, cy=y, r=3.5)
        add(draw_mark(svg, item.kind, x, y), "title", text=f"{said}; predicted {item.predicted:.2f}×")
        add(svg, "text", "ink", said, x=text_x, y=lowest)


def draw_legend(svg: ET.Element, curves: Sequence[Curve], built: Sequence[Built]) -> None:
    """One row above the plot, so that it hides nothing."""
    x, y = float(LEFT), TOP - 16.0
    for curve in curves:
        said = f"{curve.label}, predicted"
        add(svg, "path", f"line {curve.kind}", d=f"M{x:.1f} {y - 4}h28")
        add(svg, "text", "ink small", said, x=x + 36, y=y)
        x += 36 + LETTER_PX * len(said) + 26
    if any(item.kind != "original" for item in built):
        add(svg, "line", "way original", x1=x + 4, x2=x + 22, y1=y - 4, y2=y - 4)
        add(svg, "circle", "ring original", cx=x + 4, cy=y - 4, r=3.5)
        draw_mark(svg, "original", x + 23, y - 4)
        add(svg, "text", "ink small", "predicted → built and measured", x=x + 38, y=y)


def draw(record: Row, curves: Sequence[Curve], built: Sequence[Built]) -> str:
    """The whole picture."""
    fastest = max([FASTEST, *(1.1 * item.measured for item in built)])
    # What lies far above both curves is drawn at the edge, with its number, and does not squeeze the rest.
    seen = [loss for curve in curves for speedup, loss in curve.points if speedup <= fastest]
    scale = Scale(fastest, min(WORST, 1.3 * max([0.01, *seen])))
    size = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "width": str(WIDTH), "height": str(HEIGHT)}
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size})
    title = f"{NAME}: what a speed-up costs"
    add(svg, "title", text=title)
    said = [f"{c.label}: {c.points[-1][0]:.2f}× at Σ KL {c.points[-1][1]:.2f} at the far end." for c in curves]
    add(svg, "desc", text=" ".join(["Expected loss by speed-up.", *said, *(f"{item.label}." for item in built)]))
    add(svg, "style", text=STYLE)
    add(svg, "rect", "page", width=WIDTH, height=HEIGHT, rx=8)
    add(svg, "text", "ink head", title, x=LEFT, y=34)
    add(svg, "text", "muted small", "No labels, no training. Lower and further right is better.", x=LEFT, y=54)
    draw_axes(svg, scale)
    for curve in reversed(curves):
        draw_curve(svg, scale, curve)
    draw_built(svg, scale, built)
    draw_legend(svg, curves, built)
    device = record["device"].split(" / protocol")[0]
    add(svg, "text", "muted small", device, x=LEFT, y=HEIGHT - 36)
    base = f"The original takes {record['base_ms']:.1f} ms of process CPU time an image."
    add(svg, "text", "muted small", base, x=LEFT, y=HEIGHT - 18)
    return ET.tostring(svg, encoding="unicode") + "\n"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="plan anew and write the frontier's record")
    parser.add_argument("--profile", type=Path, help="latency table for --measure (default: the user's own)")
    parser.add_argument("--samples", type=int, help="calibration samples for --measure (default: as olm.plan)")
    parser.add_argument("--frontier", type=Path, default=RECORDS / "lite0_frontier.json", help="the frontier's record")
    parser.add_argument("--main-job", type=Path, default=RECORDS / "main_job.json", help="record of main_job.py")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/frontier.svg", help="the picture")
    options = parser.parse_args()
    if options.measure:
        job = JOBS["lite0"]
        if not all((ROOT / path).is_file() for path in (job.model, job.calib)):
            raise SystemExit(f"{job.model} or {job.calib} is not there: {job.missing}")
        write_json(options.frontier, measure(options.profile, options.samples))
    if not options.frontier.is_file():
        raise SystemExit(f"{options.frontier} is not there: run `python benchmarks/frontier_svg.py --measure` first.")
    record = read_json(options.frontier)
    built = built_of(read_json(options.main_job)["rows"]) if options.main_job.is_file() else []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(draw(record, curves_of(record), built), encoding="utf-8")
    Console(highlight=False, soft_wrap=True).print(f"{options.out}: the frontier and {len(built)} measured models")
    return 0


if __name__ == "__main__":
    sys.exit(main())
