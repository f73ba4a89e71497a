from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_layermerge.latency import LatencyTable
from onnx_layermerge.verify import measured_speedup, outputs_of, quality, structure_key
from tests import zoo
from tests.machine import Machine
from tests.samples import samples_for

SHAPES = {"x": (1, 4, 8, 8)}


def models() -> tuple[bytes, bytes, bytes]:
    """A network, the same with other weights, and a smaller one."""
    net, output = zoo.residual()
    other, _ = zoo.residual()
    other.weights = {name: value + 1 for name, value in other.weights.items()}
    small, end = zoo.plain()
    return tuple(n.proto(o).SerializeToString() for n, o in ((net, output), (other, output), (small, end)))  # type: ignore[return-value]


def test_structure_is_what_time_depends_on() -> None:
    first, same, other = models()
    key = structure_key(first, SHAPES)
    assert key == structure_key(same, SHAPES)
    assert key not in (structure_key(other, SHAPES), structure_key(first, {"x": (2, 4, 8, 8)}))


def test_a_pair_is_timed_once_and_then_read(machine: Machine, tmp_path: Path) -> None:
    first, _, small = models()
    with LatencyTable.open(tmp_path / "t.json") as table:
        ratio, now = measured_speedup(machine, first, small, SHAPES, table=table)
        assert now and ratio.ratio == pytest.approx(machine.cost_s(first) / machine.cost_s(small))
        built = machine.built
        again, now = measured_speedup(machine, first, small, SHAPES, table=table)
        assert not now and again == ratio and machine.built == built
    assert machine.open_now == 0


def test_both_models_are_closed_when_one_cannot_be_built(machine: Machine) -> None:
    first, _, _ = models()
    with pytest.raises(Exception, match="(?i)parsing|decode"):
        measured_speedup(machine, first, b"no model", SHAPES)
    assert machine.open_now == 0


def test_quality_is_the_divergence_of_the_outputs() -> None:
    net, output = zoo.residual()
    network = net.network(net.classifier(output))
    data = samples_for(net, network, 7)
    wanted = outputs_of(network.model, data, 3)
    assert wanted["scores"].shape == (7, 5)
    same = quality(wanted, network.model, data, 4)
    assert same.kl == pytest.approx(0, abs=1e-9) and same.agreement == 1
    np.testing.assert_allclose(outputs_of(network.model, data, 7)["scores"], wanted["scores"], rtol=1e-5, atol=1e-5)
