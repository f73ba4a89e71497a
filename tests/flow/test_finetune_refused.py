"""What `finetune` refuses, in one sentence and with nothing written, and what it warns of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_layermerge as olm
from onnx_layermerge.recover import training
from tests import zoo
from tests.flow.tuning import needs_torch, tuned
from tests.recover.training import tiny

pytestmark = pytest.mark.usefixtures("one_thread")


def refused(desk: Path, tmp_path: Path, error: type[Exception], match: str, **words: Any) -> None:
    """One sentence that says so, and nothing written."""
    target = words.pop("output", tmp_path / "out.onnx")
    before = {path: path.read_bytes() for folder in (desk, tmp_path) for path in folder.iterdir() if path.is_file()}
    with pytest.raises(error, match=match) as caught:
        tuned(desk, target, **words)
    assert str(caught.value).rstrip().endswith(".") and "\n" not in str(caught.value)
    assert {p: p.read_bytes() for folder in (desk, tmp_path) for p in folder.iterdir() if p.is_file()} == before


def test_a_missing_torch_is_named_first(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    refused(desk, tmp_path, olm.DeviceError, r"olm finetune needs PyTorch; install it with pip install .*\[torch\]")


@needs_torch
@pytest.mark.parametrize(
    ("words", "option"),
    [
        ({"steps": 0}, "--steps"),
        ({"minutes": 0.0}, "--minutes"),
        ({"lr": float("nan")}, "--lr"),
        ({"batch": 0}, "--batch"),
        ({"ema": 1.0}, "--ema"),
        ({"label_weight": 1.5}, "--label-weight"),
        ({"feature_weight": -1.0}, "--feature-weight"),
        ({"precision": "fp16"}, "--precision"),
        ({"resume": True}, "--checkpoint"),
        ({"loss": "huber"}, "--loss"),
        ({"labels": "x"}, "--labels x is an input"),
        ({"device": "tpu:0"}, "--device"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_values_that_make_no_sense(desk: Path, tmp_path: Path, words: dict[str, Any], option: str) -> None:
    refused(desk, tmp_path, olm.UsageError, option, **words)


@needs_torch
def test_the_output_is_none_of_the_inputs(desk: Path, tmp_path: Path) -> None:
    for name in ("in", "small"):
        refused(desk, tmp_path, olm.OutputError, "is the input itself", output=desk / f"{name}.onnx")
        refused(desk, tmp_path, olm.OutputError, "is the input itself", checkpoint=desk / f"{name}.onnx")
    refused(desk, tmp_path, olm.UsageError, "is the output itself", checkpoint=tmp_path / "out.onnx")


@needs_torch
@pytest.mark.parametrize("option", ["output", "checkpoint"])
def test_nothing_that_is_read_is_written_over(desk: Path, tmp_path: Path, option: str) -> None:
    for name in ("data", "val"):
        path = desk / f"{name}.npz"
        refused(desk, tmp_path, olm.UsageError, f"is what --{name} reads", **{name: str(path), option: path})
        (tmp_path / "link.npz").symlink_to(path)
        refused(desk, tmp_path, olm.UsageError, "reads", **{name: str(path), option: tmp_path / "link.npz"})
        (tmp_path / "link.npz").unlink()
    script = tmp_path / "own.py"
    script.write_text("def own(*given): ...\n")
    refused(desk, tmp_path, olm.UsageError, "what --loss reads", loss=f"{script}:own", **{option: script})
    refused(desk, tmp_path, olm.UsageError, "what --data reads", data=f"{script}:own", **{option: script})
    (tmp_path / "samples").mkdir()
    sample = tmp_path / "samples" / "x.npy"
    np.save(sample, tiny.arrays(2)["x"])
    refused(desk, tmp_path, olm.UsageError, "what --data reads", data=str(sample.parent), **{option: sample})
    assert sample.stat().st_size > 1000


@needs_torch
def test_a_file_at_the_checkpoints_path_is_kept(desk: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.npz"
    tuned(desk, tmp_path / "out.onnx", steps=2, checkpoint=state, checkpoint_minutes=1e-9)
    refused(desk, tmp_path, olm.UsageError, "add --resume or choose", steps=2, checkpoint=state)
    assert tuned(desk, tmp_path / "out.onnx", steps=2, checkpoint=state, resume=True).resumed_at == 2
    for resume in (False, True):
        words = {"checkpoint": desk / "val.npz", "resume": resume}
        refused(desk, tmp_path, olm.DataError, "no checkpoint of olm finetune", **words)


@needs_torch
def test_every_process_gets_a_sample(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    refused(desk, tmp_path, olm.UsageError, "--batch 3 leaves some of the 4 processes", batch=3)


@needs_torch
def test_models_of_other_inputs_or_outputs_are_no_pair(desk: Path, tmp_path: Path) -> None:
    net = zoo.Net()
    onnx.save(net.proto(net.conv(net.input(shape=("N", 3, 8, 8)), "c", 4)), desk / "other.onnx")
    refused(desk, tmp_path, olm.ModelError, "other inputs or outputs", compressed=desk / "other.onnx")


@needs_torch
def test_data_that_do_not_fit(desk: Path, tmp_path: Path) -> None:
    good = tiny.arrays(64)["x"]
    refused(desk, tmp_path, olm.DataError, "has shape", data={"x": good[..., :4]})
    refused(desk, tmp_path, olm.DataError, "NaN or infinite", data={"x": np.where(good > 2, np.nan, good)})
    refused(desk, tmp_path, olm.DataError, "fewer than a batch of 32", data={"x": good[:40]})


@needs_torch
def test_labels_out_of_range_are_named(desk: Path, tmp_path: Path) -> None:
    given = tiny.arrays(128)
    given["labels"][5] = 17
    refused(desk, tmp_path, olm.DataError, "label 17 in 'labels'", data=given, labels="labels")


@needs_torch
@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (None, "classes"),
        (np.zeros(128, np.float32), "labels"),
        (np.zeros((128, 5), np.int64), "labels"),
        (np.zeros(100, np.int64), "labels"),
    ],
    ids=["not there", "floats", "one-hot", "too few"],
)
def test_labels_that_are_none_are_not_called_an_input(
    desk: Path, tmp_path: Path, labels: np.ndarray | None, named: str
) -> None:
    given = {**tiny.arrays(128), **({} if labels is None else {"labels": labels})}
    np.savez(tmp_path / "odd.npz", **given)
    words = {"data": str(tmp_path / "odd.npz"), "labels": named}
    refused(desk, tmp_path, olm.DataError, f"odd.npz has no array '{named}' of one class number for each", **words)
    given["x"][3, 0, 0, 0] = np.nan
    refused(desk, tmp_path, olm.DataError, "NaN", data=given, labels=named)  # of the inputs, first


@needs_torch
def test_a_loss_without_a_gradient(desk: Path, tmp_path: Path) -> None:
    script = tmp_path / "loss.py"
    script.write_text("import torch\n\ndef own(got, wanted, labels):\n    return torch.tensor(1.0)\n")
    refused(desk, tmp_path, olm.UsageError, "--loss has no gradient", loss=f"{script}:own")


@needs_torch
def test_images_have_no_labels(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    refused(desk, tmp_path, olm.DataError, "has no labels", data=str(tmp_path / "images"), labels="labels")


@needs_torch
def test_samples_of_another_range_are_a_warning(desk: Path, tmp_path: Path) -> None:
    report = tuned(desk, tmp_path / "out.onnx", steps=1, data={"x": 255 * tiny.arrays(128)["x"]})
    assert any("times as large as the model" in warning for warning in report.warnings)


@needs_torch
def test_an_operator_that_is_not_known_is_named_with_its_node(desk: Path, tmp_path: Path) -> None:
    net = zoo.Net(seed=3)
    value = net.node("GlobalAveragePool", net.conv(net.input(shape=("N", 3, 8, 8)), "c", 4), name="pool")
    value = net.node("Hardmax", net.node("Flatten", value, name="flat"), name="y")
    onnx.save(net.proto(value), tmp_path / "in.onnx")
    words = {"original": tmp_path / "in.onnx", "compressed": tmp_path / "in.onnx"}
    refused(desk, tmp_path, olm.ModelError, "'y' has the operator Hardmax", **words)
