"""The picture of a network: whole, well-formed, bounded, and saying what the network says."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from onnx_layermerge.graph import Network, Refusal, barriers, chains, regions
from onnx_layermerge.report import Bracket, draw
from onnx_layermerge.report._drawing import MOST_ROWS
from onnx_layermerge.report._layout import lanes
from onnx_layermerge.report._rows import rows_of
from tests import zoo

SVG = "{http://www.w3.org/2000/svg}"


def drawn(network: Network, refusals: list[Refusal] | None = None) -> bytes:
    blocks = [Bracket(region.start, region.stop, f"{region.convs}") for region in regions(network)]
    named = barriers(network) if refusals is None else refusals
    return draw(network, title="net.onnx", chains=chains(network), blocks=blocks, refusals=named)


def boxes(root: ET.Element) -> dict[str, ET.Element]:
    """Every convolution by its name: the visible one where it is whole, else the first line of the tooltip."""
    found = []
    for group in root.iter(f"{SVG}g"):
        if any(rect.get("class") in ("conv", "alone") for rect in group.findall(f"{SVG}rect")):
            (visible,) = (text.text or "" for text in group.findall(f"{SVG}text") if "name" in text.get("class", ""))
            tooltip = (group.findtext(f"{SVG}title") or "").split("\n")
            found.append((tooltip[0] if visible.startswith("…") else visible, group))
            assert visible.startswith("…") == (len(tooltip) == 2)
    names = Counter(name for name, _ in found)
    assert set(names.values()) <= {1}
    return dict(found)


def words(root: ET.Element) -> list[str]:
    return ["".join(element.itertext()) for element in root.iter() if element.tag in (f"{SVG}text", f"{SVG}title")]


def chain_of(convs: int, channels: int = 1) -> Network:
    net = zoo.Net()
    value = net.input(shape=("N", channels, 4, 4))
    for number in range(convs):
        value = net.conv(value, f"layer{number}", channels, 1)
    return net.network(net.relu(value, "out"))


@pytest.mark.parametrize("name", zoo.ALL)
def test_every_convolution_is_drawn_once(name: str) -> None:
    network = zoo.network(name)
    root = ET.fromstring(drawn(network))
    assert set(boxes(root)) == {str(network.order[position].name) for position in network.convs}


@pytest.mark.parametrize("name", zoo.ALL)
def test_nothing_lies_outside_of_the_page_or_on_another_box(name: str) -> None:
    root = ET.fromstring(drawn(zoo.network(name)))
    page = [float(root.get(side, "0")) for side in ("width", "height")]
    (canvas,) = (group for group in root.findall(f"{SVG}g") if group.get("transform"))
    dx, dy = map(float, canvas.get("transform", "").removeprefix("translate(").rstrip(")").split())
    seen: list[tuple[float, float, float, float]] = []
    for rect in canvas.iter(f"{SVG}rect"):
        x, y, width, height = (float(rect.get(key, "nan")) for key in ("x", "y", "width", "height"))
        assert min(x + dx, y + dy) >= 0 and x + width + dx <= page[0] and y + height + dy <= page[1]
        if rect.get("class") in ("conv", "alone", "chip", "barrier", "port", "heat"):
            for a, b, c, d in seen:
                assert x + width <= a or c <= x or y + height <= b or d <= y
            seen.append((x, y, x + width, y + height))
    assert seen


def test_names_are_escaped_and_what_xml_cannot_hold_is_replaced() -> None:
    net = zoo.Net()
    first = net.conv(net.input(), 'a<b&"c', 4)
    network = net.network(net.relu(net.conv(first, "bell\a]]>", 4), "</title>"))
    data = drawn(network)
    root = ET.fromstring(data)
    assert set(boxes(root)) == {'a<b&"c', "bell\ufffd]]>"}
    assert any("</title>" in text for text in words(root))
    assert b"\a" not in data


def test_a_long_name_is_shortened_and_whole_in_the_tooltip() -> None:
    net = zoo.Net()
    name = "/backbone/" + "stage/" * 20 + "Conv"
    network = net.network(net.relu(net.conv(net.input(), name, 4), "out"))
    root = ET.fromstring(drawn(network))
    assert set(boxes(root)) == {name}
    assert name not in [text.text for text in root.iter(f"{SVG}text")]


def test_the_same_network_gives_the_same_bytes_and_needs_no_other_file() -> None:
    first, again = (drawn(zoo.network("inverted")) for _ in range(2))
    assert first == again
    text = first.decode().replace("http://www.w3.org/2000/svg", "")
    for word in ("href", "src=", "url(", "<script", "@import", "http", "<foreignObject"):
        assert word not in text
    assert "prefers-color-scheme:dark" in text


def test_brackets_are_the_blocks_in_no_other_and_heat_counts_them_all() -> None:
    network = zoo.network("inverted")
    root = ET.fromstring(drawn(network))
    found = list(regions(network))
    largest = [
        region
        for region in found
        if not any(o.start <= region.start and region.stop <= o.stop and o != region for o in found)
    ]
    (canvas,) = (group for group in root.findall(f"{SVG}g") if group.get("transform"))
    tooltips = [path.findtext(f"{SVG}title") for path in canvas.findall(f"{SVG}path") if path.get("class") == "block"]
    assert set(tooltips) == {str(region.convs) for region in largest} and len(found) > len(largest) > 0
    for position in network.convs:
        held = sum(region.start <= position < region.stop for region in found)
        box = boxes(root)[str(network.order[position].name)]
        assert f"in {held} legal block{'s' * (held != 1)}" in (box.findtext(f"{SVG}title") or "")


def test_what_is_left_alone_has_its_reason() -> None:
    net = zoo.Net()
    source = net.input()
    net.inputs["w"] = (4, 4, 3, 3)
    computed = net.node("Conv", source, "w", name="computed", channels=4, pads=[1, 1, 1, 1])
    output = net.classifier(net.conv(computed, "fixed", 4))
    network = net.network(output)
    root = ET.fromstring(drawn(network))
    box = boxes(root)["computed"]
    assert [rect.get("class") for rect in box.findall(f"{SVG}rect")] == ["alone"]
    assert network.refused[network.position[network.order[0]]] in (box.findtext(f"{SVG}title") or "")
    assert [rect.get("class") for rect in boxes(root)["fixed"].findall(f"{SVG}rect")] == ["conv"]
    for refusal in barriers(network):
        assert any(refusal.node in text and refusal.reason in text for text in words(root))


def test_a_skip_is_read_further_on() -> None:
    network = zoo.network("residual")
    rows = rows_of(network, chains(network), {}, most=100)
    row = {str(node.name): rows.row_of[position] for position, node in enumerate(network.order)}
    assert row["r0"] == row["c0"] and row["r2"] == row["add"]  # activations stand beside what they follow
    assert rows.readers[row["c0"]] == (row["c1"], row["add"])
    assert [r.kind for r in rows.rows] == ["port", "conv", "conv", "conv", "join", "conv", "port"]


def test_a_long_run_of_barriers_is_folded() -> None:
    net = zoo.Net()
    value = net.conv(net.input(shape=(1, 4, 4, 4)), "c", 4)
    for number in range(12):
        value = net.node("Transpose", value, name=f"t{number}", perm=[0, 1, 3, 2])
    network = net.network(value)
    reasons = {f"t{number}": "rearranges" for number in range(12)}
    rows = rows_of(network, chains(network), reasons, most=100).rows
    labels = [row.label for row in rows if row.kind == "barrier"]
    assert labels == ["Transpose"] * 6 + ["+ 6 more"]
    assert all(f"t{number}: rearranges" in rows[-2].details for number in range(6, 12))


def test_a_network_of_any_length_gives_a_bounded_picture_that_says_so() -> None:
    whole, cut = drawn(chain_of(160)), drawn(chain_of(MOST_ROWS + 120))
    assert b"Shortened" not in whole
    root = ET.fromstring(cut)
    hidden = MOST_ROWS + 120 - len(boxes(root))
    assert 0 < hidden < 130
    assert any(text.startswith("Shortened:") and f"{hidden} convolutions" in text for text in words(root))
    assert len(cut) < 5 * len(whole)


@pytest.mark.parametrize("touching", [True, False])
def test_lanes_hold_no_two_spans_at_once(touching: bool) -> None:
    intervals = [(top, top + length, 10 * top + length) for top in range(0, 30, 2) for length in (1, 3, 8)]
    found, left_out = lanes(intervals, 6, touching=touching)
    assert len(found) + left_out == len(intervals) and left_out > 0
    assert {(span.top, span.bottom, span.item) for span in found} <= set(intervals)
    for one in found:
        for two in found:
            if one != two and one.lane == two.lane:
                low, high = sorted((one, two), key=lambda span: span.top)
                assert low.bottom <= high.top if touching else low.bottom < high.top
    assert lanes(intervals, 100, touching=touching)[1] == 0
