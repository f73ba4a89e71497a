"""Outputs that memory could not hold: fewer samples judge, always the same; or a sentence on how many would fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_layermerge import DataError, Report, compress
from onnx_layermerge.data import _memory
from onnx_layermerge.flow import _data
from tests import zoo
from tests.flow import jobs
from tests.machine import Machine

# Bytes of one output of the network below, and of the third more that mixtures of the samples make.
ROW = 5 * 4
MIXED = ROW * 4 / 3


def run(folder: Path, **options: object) -> Report:
    net, path = jobs.save(jobs.residual_net, folder)
    given = {"calib": jobs.samples(net, 160), "speedup": 1.2, "rivals": 2, "method": "drop"} | options
    return compress(path, folder / "out.onnx", profile=folder / "table.json", **given)  # type: ignore[arg-type]


def test_all_held_out_samples_judge_where_outputs_are_small(machine: Machine, tmp_path: Path) -> None:
    assert not any("judge the plans" in warning for warning in run(tmp_path).warnings)


def test_fewer_judge_where_outputs_are_large_and_that_is_told(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_data, "JUDGED_BYTES", int(25 * MIXED) + 30)
    judged = []
    plain = _data.with_mixtures
    monkeypatch.setattr(_data, "with_mixtures", lambda data, seed: judged.append(len(data)) or plain(data, seed))
    said = [warning for warning in run(tmp_path).warnings if "judge the plans" in warning]
    assert len(said) == 1 and "for 40 held-out samples" in said[0] and f"so {judged[0]} of them" in said[0]
    assert 24 <= judged[0] <= 26 and "--val" in said[0]
    first = (tmp_path / "out.onnx").read_bytes()
    run(tmp_path)
    assert (tmp_path / "out.onnx").read_bytes() == first


@pytest.mark.parametrize("val", [False, True])
def test_what_memory_does_not_hold_ends_early_and_names_how_many_samples_fit(
    val: bool, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, _ = jobs.residual_net()
    options = {"val": jobs.samples(net, 160, 1)} if val else {}
    each = ROW if val else 27  # rounded up
    held = 160 if val else 40
    # Half of it is for this.
    free = 2 * _data.COPIES * each * held - 1
    monkeypatch.setattr(_memory, "free_bytes", lambda: free)
    fits = held - 1 if val else 4 * (held - 1)
    said = rf"{held} held-out samples would take .*: use fewer samples \(--samples {fits}\)"
    with pytest.raises(DataError, match=said):
        run(tmp_path, **options)
    assert not (tmp_path / "table.json").exists()
    run(tmp_path, samples=fits, **options)


def test_memory_for_less_than_a_batch_is_too_little(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_memory, "free_bytes", lambda: 100)
    with pytest.raises(DataError, match=r"take smaller inputs \(--shapes\), or a machine with more memory"):
        run(tmp_path)
    with pytest.raises(DataError, match=r"take smaller inputs \(--shapes\), or a machine with more memory"):
        run(tmp_path, calib=None)


def test_what_was_lost_on_noise_is_told_as_that(machine: Machine, tmp_path: Path) -> None:
    (said,) = (warning for warning in run(tmp_path, calib=None).warnings if warning.startswith("expected loss"))
    assert "32 samples of noise and on nothing else" in said and "far more" in said and "olm verify --calib" in said
    assert "KL " in said and "relative error " in said
    assert not any(warning.startswith("expected loss") for warning in run(tmp_path).warnings)


def test_mixtures_that_the_model_has_no_answer_to_judge_nothing(machine: Machine, tmp_path: Path) -> None:
    """ln(max x − 0.999): the largest value of every sample is 1 here, and a blend of two has less."""

    def make() -> tuple[zoo.Net, str]:
        net, scores = jobs.residual_net()
        name = next(iter(net.inputs))
        peak = net.node("ReduceMax", name, name="peak", axes=[1, 2, 3], keepdims=0)
        flat = net.node("Reshape", peak, net.constant("column", np.array([-1, 1])), name="flat")
        rest = net.node("Sub", flat, net.constant("least", np.float32(0.999)), name="rest")
        return net, net.add(scores, net.node("Log", rest, name="l"), "lit")

    net, path = jobs.save(make, tmp_path)
    plain = jobs.samples(net, 64)
    samples = {name: values / values.max(axis=(1, 2, 3), keepdims=True) for name, values in plain.items()}
    options = {"speedup": 1.2, "rivals": 2, "method": "drop", "profile": tmp_path / "table.json"}
    report = compress(path, tmp_path / "out.onnx", calib=samples, **options)  # type: ignore[arg-type]
    assert report.validation is not None and 0 <= report.validation.kl < float("inf")
