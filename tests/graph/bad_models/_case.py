"""The good model, one change to it, and the words of the refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import zoo

Change = Callable[[onnx.ModelProto], Any]

CASES: dict[str, tuple[Callable[[Path], Path], str]] = {}


def good() -> onnx.ModelProto:
    """c1 → r1 → c2, weights c1.w [6, 4, 3, 3] and c2.w [6, 3, 3, 3] in two groups, biases of 6, x [1, 4, 8, 8]."""
    net = zoo.Net()
    c1 = net.conv(net.input(shape=(1, 4, 8, 8)), "c1", 6)
    return net.proto(net.conv(net.relu(c1, "r1"), "c2", 6, groups=2))


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def case(said: str) -> Callable[[Change], Change]:
    """A change to the good model; the refusal has to match ``said``."""

    def add(change: Change) -> Change:
        def build(folder: Path) -> Path:
            model = good()
            change(model)
            return saved(folder, model)

        CASES[change.__name__] = (build, said)
        return change

    return add


def tensor(model: onnx.ModelProto, name: str) -> TensorProto:
    return next(each for each in model.graph.initializer if each.name == name)


def put(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    tensor(model, name).CopyFrom(numpy_helper.from_array(array, name))


def attribute(model: onnx.ModelProto, node: int, name: str, value: Any) -> None:
    kept = [each for each in model.graph.node[node].attribute if each.name != name]
    del model.graph.node[node].attribute[:]
    model.graph.node[node].attribute.extend([*kept, helper.make_attribute(name, value)])


def add_node(model: onnx.ModelProto, op: str, inputs: list[str], output: str, **more: Any) -> None:
    model.graph.node.append(helper.make_node(op, inputs, [output], name=f"{output}.node", **more))


def sizes(*values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), "sizes")
