"""What a model's norms and constants say about its range, and when samples are not in it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from PIL import Image

from onnx_layermerge.data import (
    Calibration,
    ImageOptions,
    InputSpec,
    Pictures,
    infer_range,
    load_calibration,
    suspicious_range,
)
from onnx_layermerge.data._pictures import COLOURED, GREY
from onnx_layermerge.data._ranges import _COLOUR, _GREY, Range
from onnx_layermerge.graph import Session, load_runnable, read
from tests import zoo

SIDE = 20


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Smooth fields over the whole range, each of its own."""
    folder, files = tmp_path_factory.mktemp("pictures"), []
    for number, name in enumerate((*COLOURED, *GREY)):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3)).astype(np.uint8)
        path = (folder / name).with_suffix(".png")
        Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC).save(path)
        files.append(path.rename(folder / name))
    return Pictures(tuple(files))


def spec_of(channels: int = 3, dtype: type = np.float32) -> InputSpec:
    return InputSpec("x", ("batch", channels, SIDE, SIDE), np.dtype(dtype))


def network(made_for: ImageOptions, pictures: Pictures, *, channels: int = 3) -> zoo.Net:
    """conv, norm, relu twice, with the statistics that a range gives on other pictures than inference looks at."""
    net = zoo.Net(seed=5)
    value = net.input("x", ("batch", channels, SIDE, SIDE))
    feeds = pictures.samples(spec_of(channels), made_for, 128, seed=77)[1].batch(range(32))
    for number in range(2):
        value = net.conv(value, f"c{number}", 8, bias=False)
        found = Session(ir.from_proto(net.proto(value))).run(feeds)[value].astype(np.float64)
        value = net.batch_norm(value, f"n{number}")
        net.weights[f"n{number}.mean"] = found.mean(axis=(0, 2, 3)).astype(np.float32)
        net.weights[f"n{number}.var"] = found.var(axis=(0, 2, 3)).astype(np.float32)
        value = net.relu(value, f"r{number}")
    net.classifier(value)
    return net


def told(net: zoo.Net, pictures: Pictures, folder: Path, spec: InputSpec | None = None) -> Range:
    path = net.save(folder / "net.onnx", "scores")
    return infer_range(load_runnable(path), spec or spec_of(), ImageOptions(), pictures, seed=0)


@pytest.mark.parametrize("name", _COLOUR)
def test_norms_tell_every_usual_range(name: str, pictures: Pictures, tmp_path: Path) -> None:
    found = told(network(_COLOUR[name], pictures), pictures, tmp_path)
    assert found.name == name and "nats" in found.why
    assert found.options is not None
    assert (found.options.preset, found.options.scale) == (_COLOUR[name].preset, _COLOUR[name].scale)


@pytest.mark.parametrize("name", _GREY)
def test_norms_tell_it_for_one_channel(name: str, pictures: Pictures, tmp_path: Path) -> None:
    net = network(_GREY[name], pictures, channels=1)
    assert told(net, pictures, tmp_path, spec_of(1)).name == name


def test_a_range_between_two_is_not_guessed(pictures: Pictures, tmp_path: Path) -> None:
    between = ImageOptions(scale=1 / 255, mean=0.47, std=0.34)
    found = told(network(between, pictures), pictures, tmp_path)
    assert found.options is None and "do not agree" in found.why


def test_norms_as_they_are_before_training_say_nothing(pictures: Pictures, tmp_path: Path) -> None:
    net = network(_COLOUR["raw"], pictures)
    for number in range(2):
        net.weights[f"n{number}.mean"][:], net.weights[f"n{number}.var"][:] = 0, 1
    found = told(net, pictures, tmp_path)
    assert found.options is None and "never there" in found.why


def with_constants(scale: np.ndarray | float, shift: np.ndarray | float, *, padded: bool = False) -> zoo.Net:
    """(x + shift)·scale, then a convolution."""
    net = zoo.Net(seed=3)
    value = net.input("x", ("batch", 3, SIDE, SIDE))
    for op, name, number in (("Add", "shift", shift), ("Mul", "scale", scale)):
        array = np.asarray(number, np.float32).reshape(-1, 1, 1)
        value = net.node(op, value, net.constant(f"{name}.v", array), name=name)
    if padded:
        value = net.node("Pad", value, net.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1])), name="pad")
    net.classifier(net.relu(net.conv(value, "c", 8), "r"))
    return net


IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("scale", "shift", "name"),
    [
        (1 / 127.5, -127.5, "raw"),
        (1 / 255, 0.0, "raw"),
        (1 / (255 * IMAGENET[1]), -255 * IMAGENET[0], "raw"),
        (1.0, -np.array([123.7, 116.8, 103.9]), "raw"),
        (1 / IMAGENET[1], -IMAGENET[0], "unit"),
        (2.0, -0.5, "unit"),
        (1.0, -0.5, "unit"),
        # From ImageNet's range to −1…1, as torchvision's Inception has it: neither 0…255 nor 0…1 comes in.
        (0.458, -0.066, None),
        (1e-4, 0.0, None),
        (1.0, 3.0, None),
        (1.0, 0.0, None),
    ],
)
@pytest.mark.parametrize("padded", [False, True])
def test_constants_in_front_tell_what_comes_in(
    scale: float, shift: float, name: str | None, padded: bool, pictures: Pictures, tmp_path: Path
) -> None:
    found = told(with_constants(scale, shift, padded=padded), pictures, tmp_path)
    assert (found.options.preset if found.options else None) == name


def test_whole_numbers_are_pixels(pictures: Pictures) -> None:
    empty = ir.Model(ir.Graph([], [], nodes=[]), ir_version=8)
    found = infer_range(empty, spec_of(dtype=np.uint8), ImageOptions(), pictures, seed=0)
    assert found.options is not None and found.options.preset == "raw"


def test_layout_and_order_of_colours_stay_as_given(pictures: Pictures, tmp_path: Path) -> None:
    path = network(_COLOUR["unit"], pictures).save(tmp_path / "net.onnx", "scores")
    options = ImageOptions(layout="nchw", color="bgr")
    found = infer_range(load_runnable(path), spec_of(), options, pictures, seed=0)
    assert found.options is not None and (found.options.layout, found.options.color) == ("nchw", "bgr")


# --- samples in another range --------------------------------------------------------------------------------------


def given(pictures: Pictures, name: str) -> Calibration:
    samples = pictures.samples(spec_of(), _COLOUR[name], 32, seed=1)[0].batch(range(24))
    return load_calibration(samples, [spec_of()])


@pytest.mark.parametrize(
    ("made_for", "held", "words"),
    [
        ("unit", "raw", "times as large .* divide them by 255"),
        ("imagenet", "raw", "times as large"),
        ("raw", "unit", "times less .* multiply them by 255"),
        ("caffe", "inception", "times less"),
        ("unit", "unit", None),
        ("raw", "caffe", None),
        ("imagenet", "inception", None),
    ],
)
@pytest.mark.parametrize("surviving", [True, False])
def test_samples_off_by_the_factor_of_255_are_noticed(
    made_for: str, held: str, words: str | None, surviving: bool, pictures: Pictures, tmp_path: Path
) -> None:
    path = network(_COLOUR[made_for], pictures).save(tmp_path / "net.onnx", "scores")
    folded = read(path).model
    assert not any(node.op_type == "BatchNormalization" for node in folded.graph)
    found = suspicious_range(load_runnable(path) if surviving else folded, folded, given(pictures, held))
    if words is None:
        assert found is None
    else:
        assert found is not None and re.search(words, found) and found.endswith(".")


def test_without_norm_or_bias_nothing_is_said(pictures: Pictures, tmp_path: Path) -> None:
    net = zoo.Net(seed=3)
    net.classifier(net.relu(net.conv(net.input("x", ("batch", 3, SIDE, SIDE)), "c", 8, bias=False), "r"))
    model = load_runnable(net.save(tmp_path / "net.onnx", "scores"))
    assert suspicious_range(model, model, given(pictures, "raw")) is None


def faint_biases(pictures: Pictures, made_for: str) -> zoo.Net:
    """As training leaves it where the first norm's shift is small: right samples are some 60 times its folded bias."""
    net = zoo.Net(seed=3)
    value = net.input("x", ("batch", 3, SIDE, SIDE))
    feeds = {"x": given(pictures, made_for).batch(range(24))["x"]}
    conv = net.conv(value, "c", 8)
    spread = Session(ir.from_proto(net.proto(conv))).run(feeds)["c"].std(axis=(0, 2, 3))
    net.weights["c.b"] = (spread / 60).astype(np.float32)
    net.classifier(net.relu(conv, "r"))
    return net


@pytest.mark.parametrize("made_for", ["imagenet", "unit", "raw"])
def test_small_biases_alone_are_no_sign(made_for: str, pictures: Pictures, tmp_path: Path) -> None:
    model = read(faint_biases(pictures, made_for).save(tmp_path / "net.onnx", "scores")).model
    assert suspicious_range(model, model, given(pictures, made_for)) is None


def test_nor_is_a_large_ratio_of_samples_that_are_no_pixels(pictures: Pictures, tmp_path: Path) -> None:
    net = faint_biases(pictures, "imagenet")
    net.weights["c.b"] /= 10
    model = read(net.save(tmp_path / "net.onnx", "scores")).model
    assert suspicious_range(model, model, given(pictures, "imagenet")) is None
    assert suspicious_range(model, model, given(pictures, "raw")) is not None


def test_whole_numbers_cannot_be_divided(pictures: Pictures, tmp_path: Path) -> None:
    net = faint_biases(pictures, "raw")
    net.weights["c.b"] /= 10
    model = read(net.save(tmp_path / "net.onnx", "scores")).model
    assert suspicious_range(model, model, given(pictures, "raw")) is not None

    proto = net.proto("scores")
    proto.graph.input[0].type.tensor_type.elem_type = 2  # uint8, and a cast behind it
    proto.graph.input[0].name = "pixels"
    cast = proto.graph.node.add(op_type="Cast", name="cast")
    cast.input.append("pixels")
    cast.output.append("x")
    cast.attribute.add(name="to", i=1, type=2)
    nodes = [cast, *(node for node in proto.graph.node if node.name != "cast")]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", proto.graph.input, proto.graph.output, proto.graph.initializer),
        opset_imports=proto.opset_import,
        ir_version=8,
    )
    held = {"pixels": given(pictures, "raw").batch(range(24))["x"].astype(np.uint8)}
    spec = InputSpec("pixels", ("batch", 3, SIDE, SIDE), np.dtype(np.uint8))
    model = ir.from_proto(proto)
    assert suspicious_range(model, model, load_calibration(held, [spec])) is None
