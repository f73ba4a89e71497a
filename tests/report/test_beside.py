"""The drawing before/after: all boxes in it, inside its edges, block beside block, and wires that meet rows."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from onnx_layermerge.graph import network_of
from onnx_layermerge.report import Line, Sketch, sketch_of_output
from onnx_layermerge.report._beside import LEFT, RIGHT, TALLEST, WIDTH, Caption, Drawn, beside
from tests import zoo
from tests.report import made

CAPTIONS = {1: Caption("1 · fit", "the first", "#block-1"), 2: Caption("2 · dropped", "the second", "#block-2")}


def shapes(drawn: Drawn, css: str) -> list[ET.Element]:
    return [shape for svg in drawn.segments for shape in svg.iter("rect") if css in (shape.get("class") or "").split()]


def at(shape: ET.Element, name: str) -> float:
    return float(shape.get(name) or "nan")


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return beside(made.before(), made.after(), CAPTIONS, ["a"])


def test_old_stands_left_new_right_and_the_rest_on_both(drawn: Drawn) -> None:
    assert {css: [at(box, "x") for box in shapes(drawn, css)] for css in ("old", "new", "kept", "moved")} == {
        "old": [LEFT, LEFT, LEFT],
        "new": [RIGHT],
        "kept": [LEFT, RIGHT],
        "moved": [RIGHT],
    }
    text = "".join("".join(svg.itertext()) for svg in drawn.segments)
    assert "1 · fit" in text and "dropped" in text and "its weights were refitted" in text
    assert "block 1: 3×3  8→8, 3×3  8→8 became 5×5  8→8" in text and "block 2: 1×1  8→4 became nothing" in text


def test_boxes_of_a_side_never_touch(drawn: Drawn) -> None:
    assert LEFT + 138 < RIGHT
    for side in (LEFT, RIGHT):
        boxes = [box for css in ("old", "new", "kept") for box in shapes(drawn, css) if at(box, "x") == side]
        edges = sorted((at(box, "y"), at(box, "y") + at(box, "height")) for box in boxes)
        assert all(low < top for (_, low), (top, _) in zip(edges, edges[1:], strict=False))


def test_the_skip_goes_round_the_block_on_both_sides(drawn: Drawn) -> None:
    tips = [path.get("d") or "" for svg in drawn.segments for path in svg.iter("path") if path.get("class") == "tip"]
    assert len(tips) == 2  # one arrow into the addition on either side
    assert drawn.arcs == drawn.convs == 0


def chain(count: int, *, replaced: bool = True) -> Sketch:
    """Many convolutions, each with a skip over the next, every second one replaced."""
    lines = [
        Line("conv", "3×3  64→64  s2  dw", f"layer.{n}.a.rather.long.name", n // 2 + 1 if replaced and n % 2 else 0,
             ("Relu",), tuple(r for r in (n + 1, n + 2) if r < count))
        for n in range(count)
    ]  # fmt: skip
    return Sketch(tuple(lines), 0)


def test_a_large_network_is_many_segments_none_too_high_or_wide() -> None:
    drawn = beside(chain(120), chain(120), {}, [])
    assert len(shapes(drawn, "old")) == len(shapes(drawn, "new")) == 60 and len(drawn.segments) % 3 == 0
    for svg in drawn.segments:
        _, _, width, height = map(float, (svg.get("viewBox") or "").split())
        assert width == WIDTH and height <= TALLEST * 1.2
        for shape in svg.iter("rect"):
            assert at(shape, "x") >= 0 and at(shape, "x") + at(shape, "width") <= WIDTH
            assert at(shape, "y") >= 0 and at(shape, "y") + at(shape, "height") <= height
        for path in svg.iter("path"):
            if path.get("class") == "wire":
                words = re.findall(r"[A-Z]|-?[\d.]+", path.get("d") or "")
                xs = [float(b) for a, b in zip(words, words[1:], strict=False) if a in ("H", "M")]
                assert all(0 <= x <= WIDTH for x in xs)
                assert all(0 <= float(b) <= height for a, b in zip(words, words[1:], strict=False) if a == "V")


def test_a_network_without_changes_is_one_fold() -> None:
    same = chain(30, replaced=False)
    drawn = beside(same, same, {}, ["layer.5.a.rather.long.name"])
    assert len(drawn.segments) == 1 and len(shapes(drawn, "kept")) == 4
    assert "28 rows folded, 28 convolutions, 1 refitted" in "".join(drawn.segments[0].itertext())


def test_more_connections_than_lanes_are_counted() -> None:
    lines = [Line("conv", "1×1  4→4", f"c{n}", n + 1, (), tuple(range(n + 1, 12))) for n in range(12)]
    drawn = beside(Sketch(tuple(lines), 3), Sketch(tuple(lines), 0), {}, [])
    assert drawn.arcs > 0 and drawn.convs == 3


@pytest.mark.parametrize("name", sorted(zoo.ALL))
def test_networks_of_the_zoo_become_lines_that_read_each_other(name: str) -> None:
    network = zoo.network(name)
    sketch = sketch_of_output(network.model, {})
    convs = [line.name for line in sketch.lines if line.kind == "conv"]
    assert convs == [str(network_of(network.model).order[p].name) for p in sorted(network.convs)]
    assert all(
        number < reader < len(sketch.lines) for number, line in enumerate(sketch.lines) for reader in line.readers
    )
    read = {reader for line in sketch.lines for reader in line.readers}
    assert read == set(range(1, len(sketch.lines)))
    assert beside(sketch, sketch, {}, []).segments
