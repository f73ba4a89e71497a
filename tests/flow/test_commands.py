"""The other commands: inspect, profile, plan, verify, doctor."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_layermerge import (
    Gate,
    ModelError,
    TargetError,
    UsageError,
    compress,
    doctor,
    inspect,
    plan,
    profile,
    verify,
)
from onnx_layermerge.flow._data import NO_DATA
from tests import zoo
from tests.flow import jobs
from tests.machine import Machine


def test_inspect_of_what_is_no_convolutional_network(tmp_path: Path) -> None:
    net = zoo.Net()
    net.relu(net.input(), "r")
    with pytest.raises(ModelError, match="no Conv node"):
        inspect(net.save(tmp_path / "in.onnx", "r"))


def test_a_profile_serves_every_later_command(machine: Machine, tmp_path: Path) -> None:
    net, path = jobs.save(jobs.residual_net, tmp_path)
    first = profile([path], profile=tmp_path / "t.json")
    assert first.timed > 0 and not first.failed and first.warnings == ()
    assert first.base_ms[str(path)] == pytest.approx(1e3 * machine.cost_s(path.read_bytes()), rel=1e-6)
    again = profile([path], profile=tmp_path / "t.json")
    assert (again.timed, again.reused) == (0, first.timed + first.reused)
    assert plan(path, calib=jobs.samples(net), profile=tmp_path / "t.json").timed_blocks == 0
    # A network of the same layers has nothing new to time.
    twin, output = jobs.residual_net()
    twin.weights = {name: value * 2 for name, value in twin.weights.items()}
    assert profile([twin.save(tmp_path / "twin.onnx", output)], profile=tmp_path / "t.json").timed == 0
    with pytest.raises(UsageError, match="at least one model"):
        profile([])


def test_a_frontier_costs_more_the_faster_it_is(machine: Machine, tmp_path: Path) -> None:
    net, path = jobs.save(jobs.residual_net, tmp_path)
    report = plan(path, calib=jobs.samples(net), profile=tmp_path / "t.json")
    assert report.basis == "kl" and report.warnings == () and len(report.points) > 3
    for points in (report.points, report.drop_only):
        speeds, losses = [p.speedup for p in points], [p.loss for p in points]
        assert speeds == sorted(speeds) and losses == sorted(losses)
    assert {name.split()[0] for point in report.drop_only for name in point.blocks} == {"drop"}
    # More to choose from is never worse: every drop plan is matched by a plan that loses no more.
    for point in report.drop_only:
        faster = [other.loss for other in report.points if other.speedup >= 0.999 * point.speedup]
        assert min(faster) <= point.loss + 1e-12


def test_a_frontier_without_data_is_one_of_drops(machine: Machine, tmp_path: Path) -> None:
    _, path = jobs.save(jobs.residual_net, tmp_path)
    report = plan(path, profile=tmp_path / "t.json")
    assert report.basis == "drop-only" and NO_DATA in report.warnings
    assert report.points == report.drop_only and report.points


def test_nothing_to_gain_is_said(machine: Machine, tmp_path: Path) -> None:
    net = zoo.Net()
    net.classifier(net.conv(net.input(), "c", 8, 1, stride=2, pads=0))  # no smaller kernel, no drop
    with pytest.raises(TargetError, match="1.00×"):
        compress(net.save(tmp_path / "in.onnx", "scores"), tmp_path / "out.onnx", speedup=1.1,
                 calib=jobs.samples(net, 8), profile=tmp_path / "t.json")  # fmt: skip


def test_verify_holds_the_result_to_its_promise(machine: Machine, tmp_path: Path) -> None:
    net, path = jobs.save(jobs.residual_net, tmp_path)
    data = jobs.samples(net)
    report = compress(path, tmp_path / "out.onnx", speedup=1.3, calib=data, rivals=1, profile=tmp_path / "t.json")
    found = verify(path, tmp_path / "out.onnx", calib=data, gate=Gate(min_speedup=1.3, min_agreement=0.1, max_kl=10))
    assert found.passed and found.quality is not None
    # Timed on the file, not on the prepared network: the same here, where nothing was folded.
    assert found.speedup.ratio == pytest.approx(report.speedup.ratio, rel=0.02)
    missed = verify(path, tmp_path / "out.onnx", gate=Gate(min_speedup=3.0))
    assert missed.quality is None and len(missed.failures) == 1 and "is missed" in missed.failures[0]
    with pytest.raises(UsageError, match="--calib"):
        verify(path, tmp_path / "out.onnx", gate=Gate(min_agreement=0.5))


def test_verify_refuses_what_cannot_be_compared(machine: Machine, tmp_path: Path) -> None:
    _, path = jobs.save(jobs.residual_net, tmp_path)
    net, output = jobs.two_inputs()
    other = net.save(tmp_path / "other.onnx", output)
    with pytest.raises(ModelError, match="has other inputs or outputs"):
        verify(path, other)


def test_a_model_equals_itself(machine: Machine, tmp_path: Path) -> None:
    net, path = jobs.save(jobs.residual_net, tmp_path)
    found = verify(path, path, calib=jobs.samples(net), gate=Gate(min_speedup=1.0, min_agreement=1.0, max_kl=1e-9))
    assert found.passed and found.speedup.ratio == pytest.approx(1)


def test_the_doctor_looks_at_every_part() -> None:
    names = [check.name for check in doctor()]
    assert names[0] == "python" and "latency table" in names and "backend onnxruntime" in names
    assert {"onnx", "onnxruntime", "numpy"} <= set(names)
    assert all(check.detail for check in doctor())
