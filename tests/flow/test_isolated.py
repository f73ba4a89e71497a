"""A builder that crashes over whole plans costs those plans, not the job, and is not asked for them again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_layermerge import DeviceError, compress, profile, verify
from onnx_layermerge.flow import _compress, _profile, _verify
from onnx_layermerge.latency import Failure, LatencyTable
from tests.flow import jobs
from tests.flow.crashing import Crashing
from tests.flow.test_profile import wide_net

CRASHED = "crashing cannot build the compressed model: crashed (SIGABRT)"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: str) -> Crashing:
    backend = Crashing(str(tmp_path / "log"), least)
    for module in (_compress, _profile, _verify):
        monkeypatch.setattr(module, "open_backend", lambda name, device, precision="fp32", engines=None: backend)
    return backend


def crashes(backend: Crashing) -> int:
    """Plans that took a process with them."""
    lines = [line.split() for line in backend.log.read_text().splitlines()]
    assert str(os.getpid()) not in {pid for pid, _, _ in lines}, "something was built in this process"
    return sum(kind == "whole" and int(convs) < backend.least for _, kind, convs in lines)


def test_plans_that_crash_are_remembered_and_the_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = device(tmp_path, monkeypatch, "9")
    _, path = jobs.save(wide_net, tmp_path)
    table = tmp_path / "t.sqlite"
    profile([path], profile=table)
    first = crashes(backend)
    assert first > 0, "nothing crashed, so this shows nothing"
    profile([path], profile=table)
    assert crashes(backend) == first
    with LatencyTable.open(table) as opened:
        values = [entry.value for entry in opened.entries(backend.describe()).values()]
    reasons = [value.reason for value in values if isinstance(value, Failure)]
    assert len(reasons) == first and set(reasons) == {f"{CRASHED}; try another --backend."}

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "c.npz", image=rng.standard_normal((40, 4, 6, 6)).astype(np.float32))
    report = compress(path, tmp_path / "o.onnx", speedup=1.1, calib=tmp_path / "c.npz", profile=table, rivals=4)
    assert report.speedup.low >= 1.1
    assert sum(node.op_type == "Conv" for node in onnx.load(tmp_path / "o.onnx").graph.node) >= 9


def test_an_original_that_crashes_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = device(tmp_path, monkeypatch, "inf")
    _, path = jobs.save(wide_net, tmp_path)
    table = tmp_path / "t.sqlite"
    for command in (lambda: profile([path], profile=table), lambda: verify(path, path)):
        with pytest.raises(DeviceError, match=r"^crashing cannot build the .*model: crashed \(SIGABRT\)") as e:
            command()
        assert e.value.exit_code == 5
    assert crashes(backend) == 2
    with LatencyTable.open(table) as opened:
        assert not opened.entries(backend.describe())
