"""Ranges of shapes in the flow: what is timed, what stays open in the output, and which table stands in."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnx_layermerge.errors import DeviceError, UsageError
from onnx_layermerge.flow import _plan, compress, plan, profile
from onnx_layermerge.flow._prepare import prepare, usual_shapes
from onnx_layermerge.latency import DeviceKey, EngineOptions, Range
from tests import machine as machines
from tests.zoo import Net

RANGE = ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))
RANGED = EngineOptions(ranges={"x": RANGE})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three equal convolutions between a stem and a classifier; the batch is open."""
    net = Net()
    value = net.relu(net.conv(net.input("x", ("N", 3, 16, 16)), "stem", 16), "stem.relu")
    for index in range(3):
        value = net.relu(net.conv(value, f"conv{index}"), f"relu{index}")
    onnx.save(net.proto(net.classifier(value)), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_the_usual_shape_is_bound(path: Path) -> None:
    assert prepare(path, engines=RANGED).bound == {"x": (4, 3, 16, 16)}
    assert usual_shapes({"x": (4, 3, 16, 16), "y": (2,)}, RANGED) == {"x": (4, 3, 16, 16), "y": (2,)}
    with pytest.raises(UsageError, match="beside the usual one"):
        usual_shapes({"x": (8, 3, 16, 16)}, RANGED)


@pytest.mark.parametrize(
    "shapes", [((1, 1, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16)), ((1, 3, 16, 16), (4, 3, 16, 16), (8, 4, 16, 16))]
)
def test_both_ends_of_a_range_must_fit_the_model(shapes: Range, path: Path) -> None:
    with pytest.raises(UsageError, match="contradicts the model"):
        prepare(path, engines=EngineOptions(ranges={"x": shapes}))
    with pytest.raises(UsageError, match="names input 'other'"):
        prepare(path, engines=EngineOptions(ranges={"other": RANGE}))


def test_names_of_open_sizes_stay_in_the_output(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machines.install(monkeypatch)
    compress(path, tmp_path / "out.onnx", speedup=1.1, profile=tmp_path / "t.sqlite", engines=RANGED)
    graph = onnx.load(tmp_path / "out.onnx").graph
    assert [value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)] == ["N", "N"]


def test_a_table_stands_in_for_engines_built_alike(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, table = machines.install(monkeypatch), tmp_path / "t.sqlite"
    for level in ("default", "5"):
        key = DeviceKey("tensorrt", "10", "A GPU", 0, "fp32", settings=f"io=channels_last level={level}")
        machine.describe = lambda key=key: key  # type: ignore[misc]
        profile([path], profile=table)

    def absent(*words: object) -> None:
        raise DeviceError("It is not here.")

    monkeypatch.setattr(_plan, "open_backend", absent)
    for engines, level in ((None, "default"), (EngineOptions(5), "5")):
        found = plan(path, backend="tensorrt", device="cuda:0", profile=table, engines=engines)
        assert f"level={level}" in found.device
    with pytest.raises(DeviceError, match="no such device"):
        plan(path, backend="tensorrt", device="cuda:0", profile=table, engines=EngineOptions(4))
