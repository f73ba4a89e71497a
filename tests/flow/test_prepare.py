"""How many samples run at once: what the model takes, and so that each has an output of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnx_layermerge.flow import _prepare
from onnx_layermerge.graph import Network, bind_shapes, load_runnable, network_of
from tests import zoo

Tail = Callable[[zoo.Net, str], str]


def turned(net: zoo.Net, value: str) -> str:
    """[time, sample, channel]; 8 steps."""
    lines = net.node("ReduceMean", value, name="lines", axes=[2], keepdims=0)
    return net.node("Transpose", lines, name="turned", perm=[2, 0, 1])


def reshaped(*sizes: int) -> Tail:
    def tail(net: zoo.Net, value: str) -> str:
        label = net.constant("sizes", np.array(sizes, np.int64))
        return net.node("Reshape", value, label, name="reshaped")

    return tail


def averaged(net: zoo.Net, value: str) -> str:
    """[4, 8, 8], whatever the batch."""
    return net.node("ReduceMean", value, name="mean", axes=[0], keepdims=0)


def constant(net: zoo.Net, value: str) -> str:
    return net.node("Identity", net.constant("anchors.w", np.ones((1, 7), np.float32)), name="anchors")


def network(folder: Path, *tails: Tail, first: int | str = "N") -> Network:
    net = zoo.Net()
    value = net.conv(net.input(shape=(first, 4, 8, 8)), "c1", 4)
    return network_of(load_runnable(net.save(folder / "in.onnx", *(tail(net, value) for tail in tails))))


@pytest.mark.parametrize(
    ("tails", "batch"),
    [
        ((turned,), 16),
        ((averaged,), 16),
        ((constant, turned), 16),
        # All of one's boxes in one list: alone, each sample has its own.
        ((reshaped(1, -1, 4),), 1),
        ((turned, reshaped(1, -1, 4)), 1),
        # The Reshape takes that many only.
        ((reshaped(3, 4, 64),), 3),
        ((turned, reshaped(3, 4, 64)), 3),
    ],
)
def test_a_fixed_first_axis_of_an_output_counts_samples_where_the_model_takes_that_many(
    tails: tuple[Tail, ...], batch: int, tmp_path: Path
) -> None:
    found = network(tmp_path, *tails)
    assert _prepare.data_batch(found, bind_shapes(found.inputs, {})) == batch


def test_a_batch_that_the_inputs_fix_is_not_asked_for_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_prepare, "Session", None)
    found = network(tmp_path, turned, first=5)
    assert _prepare.data_batch(found, bind_shapes(found.inputs, {})) == 5
    plain = network(tmp_path, lambda net, value: value)
    assert _prepare.data_batch(plain, bind_shapes(plain.inputs, {})) == 16
