"""Whatever is wrong with a file is refused by name: at ``load``, and as one line of the command."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from olm.app import olm
from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import load
from tests import zoo
from tests.graph.bad_models import CASES, add_node, good, saved, sizes


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    build, said = CASES[name]
    path = build(tmp_path)
    before = sorted(tmp_path.iterdir())
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=said) as caught:
            load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and text.endswith((".", "?"))
    assert peak < 2**24
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_line_by_the_command(name: str, tmp_path: Path) -> None:
    path = CASES[name][0](tmp_path)
    result = CliRunner().invoke(olm, ["inspect", str(path)], prog_name="olm")
    lines = result.stderr.splitlines()
    assert result.exit_code == 1, result.output
    assert result.stdout == "" and len(lines) == 1 and lines[0].startswith(f"Error: {path}")


def test_the_model_that_all_cases_start_from_is_good(tmp_path: Path) -> None:
    load(saved(tmp_path, good()))


def test_what_only_looks_wrong_is_read(tmp_path: Path) -> None:
    """Infinite bounds, masks and pads, empty tensors, a scalar NaN, strings beside the path of the image."""
    model = good()
    more = {
        "low": np.array(-np.inf, np.float32),
        "mask": np.array([[0, -np.inf], [0, 0]], np.float32),
        "none": np.zeros(0, np.float32),
        "nan": np.array(np.nan, np.float32),
        "names": np.array(["cat", "dog"], object),
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in more.items())
    model.graph.initializer.append(sizes(1, 1))
    add_node(model, "Clip", ["c2", "low"], "clipped")
    for name in more:
        add_node(model, "Identity", [name], f"{name}.kept")
    add_node(model, "ConstantOfShape", ["sizes"], "filled")
    add_node(model, "Conv", ["r1", "c2.w"], "same", group=2, auto_pad="SAME_UPPER", kernel_shape=[3, 3])
    assert len(load(saved(tmp_path, model)).graph) == len(model.graph.node)


def test_values_of_an_outer_graph_are_seen_from_a_branch(tmp_path: Path) -> None:
    model = good()

    def branch(read: str) -> onnx.GraphProto:
        out = f"{read}.out"
        node = helper.make_node("Relu", [read], [out])
        return helper.make_graph([node], read, [], [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)])

    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    add_node(model, "If", ["yes"], "branched", then_branch=branch("r1"), else_branch=branch("x"))
    load(saved(tmp_path, model))
    model.graph.node[-1].attribute[0].g.node[0].input[0] = "later"
    add_node(model, "Neg", ["branched"], "later")
    with pytest.raises(ModelError, match="reads 'later', which is made from the output .* a cycle"):
        load(saved(tmp_path, model))


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = saved(tmp_path, good())
    data = path.read_bytes()
    path.write_bytes(data.replace(b"c1.w", b"\xff\xfe.w"))
    with pytest.raises(ModelError, match="a name in the model is no text"):
        load(path)


def test_a_function_of_the_model_may_be_called_anything(tmp_path: Path) -> None:
    model = good()
    opset = [helper.make_opsetid("", 17)]
    relu = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(helper.make_function("local", "Rely", ["a"], ["b"], [relu], opset))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "Rely", "local"
    assert ("local", "Rely", "") in load(saved(tmp_path, model)).functions
    model.functions[0].node[0].op_type = "Rehash"
    with pytest.raises(ModelError, match="Rehash"):
        load(saved(tmp_path, model))


_FUZZ = """
import sys, random
from pathlib import Path
from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import load
good, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
draw = random.Random(7)
count = int(sys.argv[3])
tally = {"read": 0, "refused": 0}
for number in range(count):
    data = bytearray(good)
    if number % 3 == 0:
        data = data[: draw.randrange(len(data))]
    for _ in range(draw.choice((0, 1, 2, 8)) if number % 3 == 0 else draw.choice((1, 1, 2, 8, 64))):
        if data:
            data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data)
    try:
        load(path)
        tally["read"] += 1
    except ModelError:
        tally["refused"] += 1
    except BaseException as error:
        sys.exit(f"{number}: {type(error).__name__}: {error}")
print(tally["read"], tally["refused"])
"""


def test_damaged_bytes_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    """In a process of its own, which a fault of a library would end."""
    # Few weights, so that most damage hits the structure.
    net = zoo.Net()
    r1 = net.relu(net.conv(net.input(shape=("N", 2, 8, 8)), "c1", 2, 1), "r1")
    net.save(tmp_path / "good.onnx", net.classifier(net.add(net.conv(r1, "c2", 2, 1), r1, "add")))
    words = [sys.executable, "-c", _FUZZ, str(tmp_path / "good.onnx"), str(tmp_path / "damaged.onnx"), "150"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    read, refused = map(int, ended.stdout.split())
    assert read >= 5 and refused >= 75
