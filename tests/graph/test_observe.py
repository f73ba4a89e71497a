"""Where inference knows no type, a real run says it; what varies stays open."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from onnx_layermerge.graph import Network, Session, extract, read, to_bytes
from onnx_layermerge.graph._shapes import infer_shapes
from tests import zoo


def bent(proto: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """The Relus of these names as an operator that onnxruntime has and onnx does not know."""
    for node in proto.graph.node:
        if node.name in names:
            node.op_type, node.domain = "QuickGelu", "com.microsoft"
            node.attribute.append(helper.make_attribute("alpha", 1.702))
    del proto.graph.value_info[:]
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def network(folder: Path, shape: tuple[zoo.Dim, ...]) -> tuple[zoo.Net, Network]:
    net = zoo.Net(opset=17)
    r1 = net.relu(net.conv(net.input(shape=shape), "c1", 6), "r1")
    r2 = net.relu(net.conv(r1, "c2", stride=2), "r2")
    out = net.conv(net.add(net.conv(r2, "c3"), r2, "sum"), "c4", 5)
    onnx.save(bent(net.proto(out), "r1", "r2"), folder / "m.onnx")
    return net, read(folder / "m.onnx")


def noted(found: Network, name: str) -> list[int | str | None]:
    shape = found.values[name].shape
    assert shape is not None
    return [dim if isinstance(dim, int) else dim.value for dim in shape]


def test_every_value_behind_a_foreign_operator_has_its_type_and_an_open_batch_stays_open(tmp_path: Path) -> None:
    _, found = network(tmp_path, ("N", 4, 8, 8))
    for node in found.order:
        assert all(value.dtype == ir.DataType.FLOAT for value in node.outputs), node.name
    for name, sizes in {"r1": [6, 8, 8], "c2": [6, 4, 4], "r2": [6, 4, 4], "sum": [6, 4, 4], "c4": [5, 4, 4]}.items():
        assert noted(found, name)[1:] == sizes and not isinstance(noted(found, name)[0], int), name


def test_sizes_that_the_model_leaves_open_are_not_written_down(tmp_path: Path) -> None:
    _, found = network(tmp_path, ("N", 4, "H", "W"))
    for name in ("r1", "r2"):
        assert noted(found, name)[1] == 6
        assert not any(isinstance(size, int) for axis, size in enumerate(noted(found, name)) if axis != 1)


def test_a_model_of_one_size_has_all_of_them_noted(tmp_path: Path) -> None:
    _, found = network(tmp_path, (3, 4, 8, 8))
    assert noted(found, "r2") == [3, 6, 4, 4]


def test_the_part_behind_runs_on_its_own(tmp_path: Path) -> None:
    net, found = network(tmp_path, ("N", 4, 8, 8))
    feeds = zoo.feeds_for(net)
    values = Session(extract(found.model, ["x"], ["r2", "c4"])).run(feeds)
    behind = Session(extract(found.model, ["r2"], ["c4"])).run({"r2": values["r2"]})
    assert behind["c4"].shape == values["c4"].shape == (2, 5, 4, 4)


def test_a_wrong_note_that_stops_inference_leaves_no_value_without_a_type(tmp_path: Path) -> None:
    """onnxruntime only warns of it."""
    net = zoo.Net()
    proto = net.proto(net.conv(net.relu(net.conv(net.input(), "c1", 6), "r1"), "c2"))
    kept = [value for value in proto.graph.value_info if value.name == "r1"]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    proto.graph.value_info[0].type.tensor_type.shape.dim[2].dim_value = 9
    onnx.save(proto, tmp_path / "m.onnx")
    assert not infer_shapes(ir.load(tmp_path / "m.onnx"))
    assert all(value.dtype is not None for node in read(tmp_path / "m.onnx").order for value in node.outputs)


def test_writing_a_value_without_a_type_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    net, output = zoo.plain()
    model = ir.from_proto(net.proto(output))
    model.graph[0].outputs[0].type = None
    with caplog.at_level(logging.DEBUG):
        to_bytes(model)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
