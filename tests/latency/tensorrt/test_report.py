"""Layers out of a build log and out of the inspector's JSON."""

from __future__ import annotations

import json
import re

import pytest

from onnx_layermerge.latency.backends.tensorrt._report import layers_of_json, layers_of_log, nodes_of

LINE = (
    "Name: c2_U1_myl0_1, LayerType: correlation, Inputs: [ { Name: r1, Dimensions: [1,16,14,14], Strides: "
    "[3136,1,224,16], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }, { Name: x, "
    "Dimensions: [1,16,14,14], Strides: [3136,1,224,16], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) "
    "Channel major format }], Constants: [ { Name: w, Dimensions: [16,16,3,3], Strides: [144,1,48,16], StrideOrder: "
    "[3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }, { Name: one, Dimensions: [1], Strides: [1], "
    "StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: y, "
    "Dimensions: [1,16,14,14], Strides: [3136,1,224,16], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) "
    "Channel major format }], "
    "TacticName: __tactic_7, StreamId: 0, Metadata: [ONNX Layer: /body/0/Conv[1]][ONNX Layer: add]"
)


def test_a_line_of_the_log() -> None:
    (layer,) = layers_of_log([("INFO", "Layers: 3"), ("VERBOSE", f"Layers:\n{LINE}\n\n")][1:])
    assert (layer.name, layer.kind, layer.tactic) == ("c2_U1_myl0_1", "correlation", "__tactic_7")
    assert layer.nodes == ("/body/0/Conv[1]", "add")
    assert [(t.name, t.shape, t.dtype) for t in layer.inputs] == [
        ("r1", (1, 16, 14, 14), "fp16"), ("x", (1, 16, 14, 14), "fp16")
    ]  # fmt: skip
    assert [(t.name, t.shape, t.dtype) for t in layer.constants] == [
        ("w", (16, 16, 3, 3), "fp16"),
        ("one", (1,), "fp32"),
    ]
    assert [t.layout for t in layer.outputs] == ["(NHWC) Channel major format"]


def test_a_product_without_a_name_is_no_reformat() -> None:
    unnamed = LINE.partition("[ONNX Layer")[0]
    moved = re.sub(r"Constants: .*, Outputs", "Constants: [], Outputs", unnamed)
    named, product, move = layers_of_log([("VERBOSE", "\n".join(("Layers:", LINE, unnamed, moved)))])
    assert [layer.reformat for layer in (named, product, move)] == [False, False, True]
    assert product.nodes == () and len(product.constants) == 2 and move.inputs == named.inputs


def test_only_the_first_engine_is_read_and_no_report_is_no_layer() -> None:
    text = f"Layers:\n{LINE}\n{LINE}"
    assert len(layers_of_log([("VERBOSE", text), ("VERBOSE", text)])) == 2
    assert layers_of_log([("VERBOSE", "After final dead-layer removal: 1 layers")]) == ()


@pytest.mark.parametrize(
    ("metadata", "nodes"),
    [
        ("", ()),
        ("[ONNX Layer: a]", ("a",)),
        ("[ONNX Layer: a]\x1e[ONNX Layer: b]", ("a", "b")),
        ("[ONNX Layer: a][ONNX Layer: b]\x1f[ONNX Layer: c]", ("a", "b", "c")),
    ],
)
def test_nodes(metadata: str, nodes: tuple[str, ...]) -> None:
    assert nodes_of(metadata) == nodes


@pytest.mark.parametrize(
    "words", [{"Format/Datatype": "Channel major FP16 format"}, {"Datatype": "Half", "Format": "z"}]
)
def test_json_of_both_spellings(words: dict[str, str]) -> None:
    tensor = {"Name": "x", "Dimensions": [1, 8, 4, 4], **words}
    text = {
        "Layers": [{"Name": "l", "LayerType": "CaskConvolution", "Inputs": [tensor], "Metadata": "[ONNX Layer: n]"}]
    }
    (layer,) = layers_of_json(json.dumps(text))
    assert layer.nodes == ("n",) and layer.inputs[0].dtype == "fp16" and layer.inputs[0].shape == (1, 8, 4, 4)


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"Layers": ["only a name"]}'])
def test_json_without_details(text: str) -> None:
    assert layers_of_json(text) == ()
