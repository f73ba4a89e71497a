"""What a model offers, and that nothing in it goes unmentioned."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_layermerge import Inspection, OutputError, inspect
from onnx_layermerge.candidates import METHODS, enumerate_candidates, merge_of
from onnx_layermerge.flow._inspect import RECIPES, LegalBlock
from onnx_layermerge.graph import barriers, read
from tests import zoo


def saved(name: str, folder: Path) -> Path:
    net, output = zoo.ALL[name]()
    return net.save(folder / "in.onnx", output)


def blocks_of(found: Inspection) -> list[LegalBlock]:
    return [block for chain in found.chains for block in chain.blocks]


@pytest.mark.parametrize("name", zoo.ALL)
def test_every_convolution_is_in_a_block_or_has_a_reason_and_so_has_every_barrier(name: str, tmp_path: Path) -> None:
    path = saved(name, tmp_path)
    found, network = inspect(path), read(path)
    held = {name for block in blocks_of(found) for name in block.convs}
    alone = [refusal.node for refusal in found.refusals if refusal.op_type == "Conv"]
    convs = [str(node.name) for node in network.order if node.op_type == "Conv"]
    assert sorted([*held, *alone]) == sorted(convs)
    assert (found.covered, found.convs) == (len(held), len(convs))
    inside = {p for block in blocks_of(found) for p in range(block.start, block.stop)}
    names = {str(network.order[position].name) for position in inside}
    assert {r.node for r in found.refusals if r.op_type != "Conv"} == {r.node for r in barriers(network)} - names
    assert len({refusal.node for refusal in found.refusals}) == len(found.refusals)
    assert all(refusal.reason for refusal in found.refusals)


@pytest.mark.parametrize("name", zoo.ALL)
def test_blocks_hold_every_candidate_once(name: str, tmp_path: Path) -> None:
    path = saved(name, tmp_path)
    found, network = inspect(path), read(path)
    candidates, _ = enumerate_candidates(network, kinds=METHODS["olm"])
    listed = blocks_of(found)
    assert found.legal_blocks == len(listed) == len({(block.start, block.stop) for block in listed})
    for recipe in RECIPES:
        expected = sum(candidate.recipe == recipe for candidate in candidates)
        assert sum(block.variants[recipe] for block in listed) == found.blocks[recipe] == expected
    for block in listed:
        inside = [position for position in network.convs if block.start <= position < block.stop]
        assert block.convs == tuple(str(network.order[position].name) for position in sorted(inside))
        assert sum(block.variants.values()) > 0
        assert (len(block.fit), len(block.width)) == (block.variants["fit"], block.variants["width"])
        assert len(block.low_rank) == block.variants["low-rank"]
        assert (block.merge is not None) == (block.variants["merge"] > 0)
    for chain in found.chains:
        assert {block.first for block in chain.blocks} <= {layer.node for layer in chain.layers}


def test_a_residual_block_says_what_could_stand_for_it(tmp_path: Path) -> None:
    found = inspect(saved("residual", tmp_path))
    (block,) = (block for block in blocks_of(found) if block.convs == ("c1", "c2") and block.end == "add")
    assert (block.first, block.last, block.begin, block.begin_op, block.end_op) == ("c1", "c2", "c1", "Conv", "Add")
    assert block.variants["drop"] == 1 and block.merge is None
    assert {"1x1", "3x3", "5x5", "3x3 depthwise"} <= set(block.fit)
    (branch,) = (block for block in blocks_of(found) if block.convs == ("c1", "c2") and block.end == "c2")
    assert branch.variants["drop"] == 0  # it would double the skip


def test_a_block_may_hold_a_barrier_whole(tmp_path: Path) -> None:
    net, output = zoo.squeeze()
    net.inputs["x"] = ("N", 4, 8, 8)
    found = inspect(net.save(tmp_path / "in.onnx", net.classifier(output)))
    reasons = {refusal.node: refusal.reason for refusal in found.refusals}
    assert "mul" not in reasons and "pool" not in reasons
    assert reasons["scores.pool"] == "pools over the whole image" and reasons["scores"] == "fully connected"
    assert any(block.begin == "pool" and block.end == "mul" for block in blocks_of(found))


def linear(*, bias: bool, pads: int | None, branch: bool) -> tuple[zoo.Net, str]:
    """Two convolutions without an activation between them, perhaps beside a third one."""
    net = zoo.Net(seed=11)
    entry = net.relu(net.conv(net.input(), "c0", 4), "r0")
    out = net.conv(net.conv(entry, "c1", 4, bias=bias), "c2", 4, pads=pads, bias=bias)
    if branch:
        out = net.add(out, net.conv(entry, "side", 4, 1), "sum")
    return net, net.relu(out, "r1")


@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.parametrize("pads", [None, 0])
@pytest.mark.parametrize("bias", [False, True])
def test_the_certificate_is_that_of_the_real_merge(bias: bool, pads: int | None, branch: bool, tmp_path: Path) -> None:
    if branch and pads == 0:
        pytest.skip("branches of different sizes do not add")
    net, output = linear(bias=bias, pads=pads, branch=branch)
    path = net.save(tmp_path / "in.onnx", output)
    network = read(path)
    candidates, _ = enumerate_candidates(network, kinds=("merge",))
    kinds = {(c.region.start, c.region.stop): merge_of(network, c).certificate.kind for c in candidates}
    said = {(block.start, block.stop): block.merge for block in blocks_of(inspect(path)) if block.merge}
    assert said.keys() == kinds.keys() and said
    for key, kind in said.items():
        assert kind == kinds[key] or (kind == "inside" and kinds[key] in ("exact", "border"))
    assert ("inside" in said.values()) == branch
    if not branch:
        assert set(said.values()) == {"exact" if pads == 0 else "border"}


_BRANCHES = """
<ir_version: 8, opset_import: ["": 17]>
g (float[1, 2, 4, 4] x, bool flag) => (float[1, 2, 4, 4] y) {
    [outer] c = Conv(x, w)
    y = If(flag) <
        then_branch = t () => (float[1, 2, 4, 4] a) { [inner] a = Conv(c, w) },
        else_branch = e () => (float[1, 2, 4, 4] b) { b = Relu(c) }
    >
}
"""


def test_a_convolution_in_a_body_is_counted_and_named(tmp_path: Path) -> None:
    model = parser.parse_model(_BRANCHES)
    weight = np.random.default_rng(0).standard_normal((2, 2, 1, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "in.onnx")
    found = inspect(tmp_path / "in.onnx")
    assert found.convs == 2
    (body,) = (r for r in found.refusals if r.op_type == "Conv" and "body" in r.reason)
    alone = [refusal for refusal in found.refusals if refusal.op_type == "Conv"]
    assert body.reason == "lies in the body of a control-flow node" and found.covered + len(alone) == 2


def test_the_picture_is_written_whole(tmp_path: Path) -> None:
    path = saved("inverted", tmp_path)
    found = inspect(path, svg=tmp_path / "net.svg")
    root = ET.fromstring((tmp_path / "net.svg").read_bytes())
    words = [element.text or "" for element in root.iter()]
    assert "in.onnx" in words
    assert any(f"{found.legal_blocks} legal blocks" in text for text in words)
    assert any(text.startswith("convolutions ") and "fit: " in text for text in words)
    assert {file.name for file in tmp_path.iterdir()} == {"in.onnx", "net.svg"}


def test_a_bad_target_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.onnx"
    for target, words in {
        "no/net.svg": "does not exist",
        "net.png": r"not a \.svg",
        "net.onnx": r"not a \.svg",
    }.items():
        with pytest.raises(OutputError, match=words):
            inspect(missing, svg=tmp_path / target)
    model = saved("plain", tmp_path).rename(tmp_path / "in.svg")
    before = model.read_bytes()
    with pytest.raises(OutputError, match="is the input itself"):
        inspect(model, svg=model)
    assert model.read_bytes() == before


def test_blocks_of_a_long_chain_grow_with_its_length_only(tmp_path: Path) -> None:
    counts = []
    for length in (40, 80):
        net = zoo.Net()
        value = net.input(shape=(1, 2, 4, 4))
        for number in range(length):
            value = net.relu(net.conv(value, f"c{number}", 2), f"r{number}")
        found = inspect(net.save(tmp_path / f"{length}.onnx", value))
        counts.append(found.legal_blocks)
        assert found.covered == length
    assert counts[1] < 2.3 * counts[0]
