from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from onnx_layermerge.errors import OutputError
from onnx_layermerge.graph import extract, read, splice, to_bytes
from onnx_layermerge.rewrite import finish
from tests import zoo


def network_with_descriptions(tmp_path: Path) -> tuple[zoo.Net, object, onnx.ModelProto]:
    net, output = zoo.residual()
    proto = net.proto(output)
    proto.producer_name, proto.producer_version, proto.domain, proto.doc_string = "maker", "7", "org.zoo", "a model"
    proto.graph.doc_string = "a graph"
    proto.metadata_props.add(key="author", value="someone")
    onnx.save(proto, tmp_path / "in.onnx")
    return net, read(tmp_path / "in.onnx"), proto


def test_everything_but_the_nodes_is_the_inputs(tmp_path: Path) -> None:
    net, network, before = network_with_descriptions(tmp_path)
    model = extract(network.model, ["x"], ["c3"])  # type: ignore[attr-defined]
    splice(model.graph, "r0", "r2", (), "olm/0")
    made = onnx.load_from_string(to_bytes(finish(network, model, {"b": "2", "a": "1"})))  # type: ignore[arg-type]
    onnx.checker.check_model(made, full_check=True)
    assert [node.name for node in made.graph.node] == ["c0", "r0", "c3"]
    assert made.graph.input == before.graph.input and made.graph.output == before.graph.output
    assert made.opset_import == before.opset_import and made.ir_version == before.ir_version
    assert (made.producer_name, made.producer_version, made.domain) == ("maker", "7", "org.zoo")
    assert (made.doc_string, made.graph.doc_string, made.graph.name) == ("a model", "a graph", "zoo")
    notes = {entry.key: entry.value for entry in made.metadata_props}
    assert notes == {"author": "someone", "olm.a": "1", "olm.b": "2"}
    names = {tensor.name for tensor in made.graph.initializer}
    assert names == {"c0.w", "c0.b", "c3.w", "c3.b"}  # nothing is left of what was replaced


def test_a_changed_interface_is_not_let_out(tmp_path: Path) -> None:
    _, network, _ = network_with_descriptions(tmp_path)
    model = extract(network.model, ["x"], ["c3"])  # type: ignore[attr-defined]
    model.graph.outputs[0].name = "renamed"
    with pytest.raises(OutputError, match="'c3' changed on the way to 'renamed'"):
        finish(network, model, {})  # type: ignore[arg-type]
    model.graph.outputs[0].name = "c3"
    model.graph.outputs[0].type = ir.TensorType(ir.DataType.FLOAT16)
    with pytest.raises(OutputError, match="changed on the way"):
        finish(network, model, {})  # type: ignore[arg-type]
