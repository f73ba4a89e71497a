"""A backend that refuses whole plans costs those plans, not the job, and is not asked about them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_layermerge import ModelError, TargetError, compress, profile
from onnx_layermerge.latency import Failure, LatencyTable
from tests.flow import jobs
from tests.flow.test_profile import wide_net
from tests.machine import Machine


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def asked(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The machine refuses every whole network that lacks a convolution; node numbers of those it was asked for."""
    build, refused = machine.build, []

    def picky(model, shapes):
        proto = onnx.load_from_string(model if isinstance(model, bytes) else model.model)
        whole = any(node.op_type == "Gemm" or node.op_type == "MatMul" for node in proto.graph.node)
        convs = sum(node.op_type == "Conv" for node in proto.graph.node)
        if whole and convs < 9:
            refused.append(convs)
            raise ModelError("the engine computes something else.")
        return build(model, shapes)

    monkeypatch.setattr(machine, "build", picky)
    return refused


def samples(path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(path, image=rng.standard_normal((40, 4, 6, 6)).astype(np.float32))
    return path


def test_refused_plans_are_remembered(machine: Machine, asked: list[int], tmp_path: Path) -> None:
    _, path = jobs.save(wide_net, tmp_path)
    table = tmp_path / "t.sqlite"
    profile([path], profile=table)
    first = len(asked)
    assert first > 0, "the machine refused nothing, so this shows nothing"
    profile([path], profile=table)
    assert len(asked) == first
    with LatencyTable.open(table) as opened:
        values = [entry.value for entry in opened.entries(machine.describe()).values()]
    assert sum(isinstance(value, Failure) for value in values) == first


def test_the_job_goes_on_with_plans_that_are_not_refused(
    machine: Machine, asked: list[int], tmp_path: Path
) -> None:
    _, path = jobs.save(wide_net, tmp_path)
    data, table = samples(tmp_path / "c.npz"), tmp_path / "t.sqlite"
    report = compress(path, tmp_path / "o.onnx", speedup=1.1, calib=data, profile=table, rivals=4)
    assert asked and report.speedup.low >= 1.1
    written = onnx.load(tmp_path / "o.onnx")
    assert sum(node.op_type == "Conv" for node in written.graph.node) >= 9


def test_when_all_are_refused_the_error_says_why(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, path = jobs.save(wide_net, tmp_path)

    def refuse(*arguments: object, **others: object) -> None:
        raise ModelError("the engine computes something else.")

    monkeypatch.setattr("onnx_layermerge.flow._loop.measured_speedup", refuse)
    with pytest.raises(TargetError, match=r"some plans were refused: the engine computes something else\)"):
        data, table = samples(tmp_path / "c.npz"), tmp_path / "t.sqlite"
        compress(path, tmp_path / "o.onnx", speedup=1.1, calib=data, profile=table)
    assert not (tmp_path / "o.onnx").exists()
