"""The charts: plans where their figures say, and nothing that has none."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET

from onnx_layermerge.report import Point
from onnx_layermerge.report._charts import BOTTOM, LEFT, H, W, built_chart, frontier_chart, speed_strip
from tests.report import made


def marks(svg: ET.Element | None, css: str) -> list[ET.Element]:
    assert svg is not None
    return [each for each in svg.iter() if css in (each.get("class") or "").split()]


def titles(svg: ET.Element | None) -> str:
    assert svg is not None
    return "\n".join(title.text or "" for title in svg.iter("title"))


def test_the_frontier_rises_to_the_right_and_ends_near_the_plans() -> None:
    svg = frontier_chart(made.report())
    dots = [mark for mark in marks(svg, "curve") if mark.tag == "circle"]
    places = [(float(dot.get("cx") or 0), float(dot.get("cy") or 0)) for dot in dots]
    assert len(places) == 3  # 2× and 40× lie beyond what the plans say anything of
    assert places == sorted(places) and [y for _, y in places] == sorted((y for _, y in places), reverse=True)
    assert all(LEFT <= x <= W and 0 <= y <= H - BOTTOM for x, y in places)


def test_every_plan_that_ran_is_a_mark_with_its_figures() -> None:
    svg = frontier_chart(made.report())
    assert len(marks(svg, "other")) == 2 and len(marks(svg, "chosen")) == 1  # the third was refused
    assert "1.450× measured, 1.440× predicted" in titles(svg) and "divergence when built 0.077" in titles(svg)
    assert "chosen: 1.500× measured, 95 % from 1.470 to 1.530" in titles(svg)
    built = built_chart(made.report())
    assert len(marks(built, "other")) == 2 and len(marks(built, "chosen")) == 1


def test_a_worse_plan_lies_higher() -> None:
    built = built_chart(made.report())
    first, second = (float(mark.get("cy") or 0) for mark in marks(built, "other"))
    assert first < second  # 0.077 above 0.05
    (chosen,) = marks(built, "chosen")
    assert float((chosen.get("d") or "").split()[2]) > second


def test_without_plans_or_points_there_is_no_chart() -> None:
    assert built_chart(made.report(rejected=())) is None
    assert built_chart(made.report(divergence=float("nan"))) is None
    assert frontier_chart(made.report(points=(), drop_only=())) is None
    alone = frontier_chart(made.report(points=()))
    assert marks(alone, "curve") and not marks(alone, "drops")


def test_axes_hold_one_point_or_losses_of_many_decades() -> None:
    one = made.report(points=(Point(1.2, 0.0, 1),), drop_only=(), rejected=(), expected=0.0)
    assert marks(frontier_chart(one), "chosen")
    wide = made.report(points=tuple(Point(1 + n / 20, 10.0 ** (n - 9), n) for n in range(10)))
    svg = frontier_chart(wide)
    assert "logarithmic" in "".join(text.text or "" for text in (svg or ET.Element("g")).iter("text"))
    ys = [float(dot.get("cy") or 0) for dot in marks(svg, "curve") if dot.tag == "circle"]
    assert all(0 <= y <= H - BOTTOM for y in ys)


def test_the_strip_orders_asked_measured_and_predicted() -> None:
    svg = speed_strip(made.report())
    asked = float(re.findall(r"[\d.]+", marks(svg, "asked")[0].get("d") or "")[0])
    chosen = float((marks(svg, "chosen")[0].get("d") or "").split()[1])
    guess = float(marks(svg, "guess")[0].get("cx") or 0)
    assert asked < chosen < guess
    same = dataclasses.replace(made.report().speedup, ratio=1.4, low=1.4, high=1.4)
    assert speed_strip(made.report(speedup=same, predicted=1.4)) is not None
