"""What ``verify`` writes and when: never over an input, never before an error, always a model that runs."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_layermerge.errors import DataError, ModelError, OutputError
from onnx_layermerge.flow import verify
from onnx_layermerge.graph import Session, _pack, _session, _write
from tests.flow import jobs
from tests.machine import Machine

NAMES = ("original.fp32.onnx", "compressed.fp32.onnx")


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return jobs.save(jobs.residual_net, tmp_path / "models")[1]


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any weights are more than a message holds."""
    for module in (_pack, _session, _write):
        monkeypatch.setattr(module, "MOST_INSIDE_BYTES", 1000)
    monkeypatch.setattr(_write, "_LEAST_OUTSIDE_BYTES", 100)
    monkeypatch.setattr(Machine, "cost_s", lambda self, model: 1e-3)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_no_input_is_written_over(machine: Machine, path: Path, name: str, first: bool) -> None:
    given = path.rename(path.with_name(name))
    other = Path(shutil.copy(given, path.parent / "other.onnx"))
    before = digests(path.parent)
    with pytest.raises(OutputError, match=f"{name} is the input itself"):
        verify(*((given, other) if first else (other, given)), save_onnx=path.parent)
    assert digests(path.parent) == before and not machine.built


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_no_weights_of_an_input_are_written_over(machine: Machine, path: Path, name: str, first: bool) -> None:
    outside = path.with_name("outside.onnx")
    onnx.save(onnx.load(path), outside, save_as_external_data=True, location=name, size_threshold=0)
    before = digests(path.parent)
    with pytest.raises(OutputError, match=f"{name} holds the weights of the input"):
        verify(*((outside, path) if first else (path, outside)), save_onnx=path.parent)
    assert digests(path.parent) == before and not machine.built


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_a_large_model_is_saved_with_its_weights(
    machine: Machine, path: Path, tmp_path: Path, small_is_large: None, precision: str
) -> None:
    verify(path, path, save_onnx=tmp_path, precision=precision)
    feeds = {"image": np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)}
    wanted = Session(path.read_bytes()).run(feeds)
    for name in ("original", "compressed"):
        saved = tmp_path / f"{name}.{precision}.onnx"
        assert (tmp_path / f"{saved.name}.data").exists()
        session = onnxruntime.InferenceSession(str(saved), providers=["CPUExecutionProvider"])
        for (output, value), found in zip(wanted.items(), session.run(list(wanted), feeds), strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6, err_msg=output)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_model_too_large_to_be_cast_is_refused_before_it_is_timed(
    machine: Machine, path: Path, tmp_path: Path, small_is_large: None, precision: str
) -> None:
    before = digests(tmp_path)
    with pytest.raises(ModelError, match=f"GiB of weights, too many to be cast to {precision}; save it with"):
        verify(path, path, save_onnx=tmp_path, precision=precision)
    assert digests(tmp_path) == before and not machine.built


def test_data_that_do_not_fit_are_seen_before_anything_is_timed_or_written(
    machine: Machine, path: Path, tmp_path: Path
) -> None:
    net, fixed = jobs.save(lambda: jobs.residual_net((8, 4, 6, 6)), tmp_path)
    fixed = fixed.rename(path.with_name("fixed.onnx"))
    before = digests(tmp_path)
    for model, calib, what in (
        (path, tmp_path / "none.npz", "no calibration data at"),
        (path, {"image": np.zeros((4, 5, 6, 6), np.float32)}, "image"),
        (fixed, jobs.samples(net, 3), "takes 8 at once"),
    ):
        with pytest.raises(DataError, match=what):
            verify(model, model, calib=calib, save_onnx=tmp_path)
        assert digests(tmp_path) == before and not machine.built


def test_nothing_is_written_when_the_comparison_fails(
    machine: Machine, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, _ = jobs.residual_net()
    before = digests(tmp_path)

    def fail(*given: object) -> None:
        raise ModelError("it stopped.")

    with monkeypatch.context() as patch:
        patch.setattr("onnx_layermerge.flow._verify.compared", fail)
        with pytest.raises(ModelError, match="it stopped"):
            verify(path, path, calib=jobs.samples(net), save_onnx=tmp_path)
    assert machine.built and digests(tmp_path) == before
    verify(path, path, calib=jobs.samples(net), save_onnx=tmp_path)
    assert set(digests(tmp_path)) - set(before) == set(NAMES)


def test_a_model_that_cannot_be_cast_leaves_no_file_of_the_other(
    machine: Machine, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copy(path, path.with_name("other.onnx")))
    before, calls = digests(tmp_path), []

    def cast(model: bytes, precision: str) -> bytes:
        calls.append(precision)
        if len(calls) == 2:
            raise ModelError("no such type.")
        return model

    monkeypatch.setattr("onnx_layermerge.flow._verify.cast", cast)
    with pytest.raises(ModelError, match="no such type"):
        verify(path, other, save_onnx=tmp_path, precision="fp16")
    assert len(calls) == 2 and digests(tmp_path) == before
