from __future__ import annotations

import onnx_ir as ir
import pytest

from onnx_layermerge.errors import OutputError
from onnx_layermerge.graph import Network
from onnx_layermerge.verify import check_sizes
from tests import zoo

DIMS = ("N", 4, "H", "W")


def one(kernel: int, *, dims: tuple[int | str, ...] = DIMS) -> Network:
    net = zoo.Net()
    return net.network(net.conv(net.input(shape=dims), "out", 4, kernel))


def fixed(height: int) -> ir.Model:
    """Right for one height only."""
    net = zoo.Net()
    shape = net.constant("shape", zoo.np.array([0, 4, height, -1]))
    return net.network(net.node("Reshape", net.conv(net.input(shape=DIMS), "c", 4), shape, name="out")).model


def test_equal_sizes_pass() -> None:
    network = one(3)
    check_sizes(network.model, one(1).model, network.inputs, {"x": (1, 4, 8, 8)})


def test_another_height_is_tried() -> None:
    network = one(3)
    with pytest.raises(OutputError, match=r"has shape .* instead of \(1, 4, 40, 40\)|does not run on inputs"):
        check_sizes(network.model, fixed(8), network.inputs, {"x": (1, 4, 8, 8)})


def test_another_number_of_samples_is_tried() -> None:
    dims = ("N", 4, 8, 8)
    net = zoo.Net()
    shape = net.constant("shape", zoo.np.array([1, 4, 8, -1]))
    one_sample = net.network(net.node("Reshape", net.conv(net.input(shape=dims), "c", 4), shape, name="out")).model
    network = one(3, dims=dims)
    with pytest.raises(OutputError, match="output 'out' has shape"):
        check_sizes(network.model, one_sample, network.inputs, {"x": (1, 4, 8, 8)})


def test_what_the_original_does_not_take_is_not_asked() -> None:
    net = zoo.Net()
    shape = net.constant("shape", zoo.np.array([1, 4, 8, 8]))
    picky = net.network(net.node("Reshape", net.conv(net.input(shape=DIMS), "c", 4), shape, name="out")).model
    network = one(3)
    check_sizes(picky, one(3).model, network.inputs, {"x": (1, 4, 8, 8)})
    with pytest.raises(OutputError, match="does not run on inputs"):
        check_sizes(one(3).model, picky, network.inputs, {"x": (1, 4, 8, 8)})


def test_static_models_need_no_run() -> None:
    network = one(3, dims=(1, 4, 8, 8))
    check_sizes(network.model, fixed(8), network.inputs, {"x": (1, 4, 8, 8)})
