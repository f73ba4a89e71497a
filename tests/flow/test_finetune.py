"""`finetune` from files to a file: what it writes, what it says, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_layermerge as olm
from onnx_layermerge.recover import training
from tests import zoo
from tests.recover.training import tiny

try:
    import torch  # noqa: TID251
except ImportError:
    torch = None  # type: ignore[assignment]

needs_torch = pytest.mark.skipif(torch is None, reason="fine-tuning is an extra: torch is not installed")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """So that sums are made in one order, and small networks are not held up by waiting threads."""
    if torch is not None:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
    yield
    if torch is not None:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original, a worse copy, and samples with labels."""
    folder = tmp_path_factory.mktemp("desk")
    first = tiny.original()
    onnx.save(first, folder / "in.onnx")
    onnx.save(tiny.worse(first), folder / "small.onnx")
    np.savez(folder / "data.npz", **tiny.arrays(128))
    np.savez(folder / "val.npz", x=tiny.arrays(32, 2)["x"])
    return folder


def tuned(desk: Path, output: Path, **words: Any) -> olm.FinetuneReport:
    given = {"data": str(desk / "data.npz"), "steps": 20, "lr": 3e-3, **words}
    models = [given.pop(name, desk / f"{file}.onnx") for name, file in (("original", "in"), ("compressed", "small"))]
    return olm.finetune(*models, output, **given)


def bits(path: Path) -> dict[str, bytes]:
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load(path).graph.initializer}


@needs_torch
def test_the_written_model_is_closer_and_otherwise_the_same(desk: Path, tmp_path: Path) -> None:
    report = tuned(desk, tmp_path / "out.onnx")
    assert report.improved and report.end_loss < report.start_loss
    before, after = onnx.load(desk / "small.onnx"), onnx.load(tmp_path / "out.onnx")
    assert [node.SerializeToString() for node in before.graph.node] == [
        node.SerializeToString() for node in after.graph.node
    ]
    changed = {name for name, held in bits(desk / "small.onnx").items() if held != bits(tmp_path / "out.onnx")[name]}
    assert changed == set(report.changed)
    feeds = {"x": tiny.arrays(64, 9)["x"]}
    exact, first, second = (zoo.run(onnx.load(p), feeds) for p in (desk / "in.onnx", desk / "small.onnx",
                                                                    tmp_path / "out.onnx"))  # fmt: skip
    off = [float(np.square(each["scores"] - exact["scores"]).sum()) for each in (first, second)]
    assert off[1] < 0.5 * off[0]


@needs_torch
def test_the_file_says_what_was_done_and_keeps_what_it_said(desk: Path, tmp_path: Path) -> None:
    told = onnx.load(desk / "small.onnx")
    onnx.helper.set_model_props(told, {"olm.method": "olm", "mine": "kept"})
    onnx.save(told, tmp_path / "small.onnx")
    report = tuned(desk, tmp_path / "out.onnx", compressed=tmp_path / "small.onnx", seed=3)
    props = {entry.key: entry.value for entry in onnx.load(tmp_path / "out.onnx").metadata_props}
    assert props["olm.method"] == "olm" and props["mine"] == "kept"
    note = json.loads(props["olm.finetune"])
    assert note["steps"] == report.steps == 20 and note["seed"] == 3 and note["loss"] == "kl"
    assert len(note["data.sha256"]) == 64 and note["improved"] is True


@needs_torch
def test_with_nothing_to_gain_the_weights_of_the_compressed_model_are_written(desk: Path, tmp_path: Path) -> None:
    report = tuned(desk, tmp_path / "out.onnx", compressed=desk / "in.onnx")
    assert not report.improved and report.changed == ()
    assert bits(tmp_path / "out.onnx") == bits(desk / "in.onnx")
    assert any("no weights that were tried" in warning for warning in report.warnings)


@needs_torch
def test_samples_to_judge_by_may_be_given(desk: Path, tmp_path: Path) -> None:
    held_back = tuned(desk, tmp_path / "a.onnx", steps=2)
    given = tuned(desk, tmp_path / "b.onnx", steps=2, val=str(desk / "val.npz"))
    assert (held_back.samples, held_back.held_out) == (96, 32) and (given.samples, given.held_out) == (128, 32)


@needs_torch
def test_features_are_those_at_the_ends_of_blocks(desk: Path, tmp_path: Path) -> None:
    assert tuned(desk, tmp_path / "out.onnx", steps=2, feature_weight=1.0).taps == ("a", "r2")


@needs_torch
def test_labels_of_the_data_are_used_when_they_are_named(desk: Path, tmp_path: Path) -> None:
    without = tuned(desk, tmp_path / "a.onnx", steps=2)
    assert any("ignored" in warning for warning in without.warnings)
    found = tuned(desk, tmp_path / "b.onnx", steps=2, labels="labels")
    assert found.start_loss > 10 * without.start_loss and not found.warnings
    assert found.start == without.start


@needs_torch
def test_a_loss_in_a_script(desk: Path, tmp_path: Path) -> None:
    script = tmp_path / "loss.py"
    script.write_text("def own(got, wanted, labels):\n    return (got['scores'] - wanted['scores']).abs().mean()\n")
    report = tuned(desk, tmp_path / "out.onnx", loss=f"{script}:own")
    assert report.improved and report.loss.endswith("loss.py:own")
    script.write_text("def own(got, wanted, labels):\n    return got['nothing']\n")
    with pytest.raises(olm.UsageError, match="line 2"):
        tuned(desk, tmp_path / "no.onnx", loss=f"{script}:own")
    assert not (tmp_path / "no.onnx").exists()


@needs_torch
@pytest.mark.parametrize("code", [onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16])
def test_narrow_models_keep_their_types(desk: Path, tmp_path: Path, code: int) -> None:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(code)
    for name in ("in", "small"):
        model = onnx.load(desk / f"{name}.onnx")
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32:
                tensor.CopyFrom(numpy_helper.from_array(array.astype(dtype), tensor.name))
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            value.type.tensor_type.elem_type = code
        model.opset_import[0].version = 22
        onnx.save(model, tmp_path / f"{name}.onnx")
    images = tiny.arrays(128)["x"].astype(np.float16)
    words = {"original": tmp_path / "in.onnx", "compressed": tmp_path / "small.onnx", "data": {"x": images}}
    report = tuned(desk, tmp_path / "out.onnx", **words)
    assert report.improved
    assert {tensor.data_type for tensor in onnx.load(tmp_path / "out.onnx").graph.initializer} == {code}


@needs_torch
def test_a_fixed_batch_is_kept_and_steps_are_multiples_of_it(desk: Path, tmp_path: Path) -> None:
    for name in ("in", "small"):
        model = onnx.load(desk / f"{name}.onnx")
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 6
        del model.graph.value_info[:]
        onnx.save(model, tmp_path / f"{name}.onnx")
    words = {"original": tmp_path / "in.onnx", "compressed": tmp_path / "small.onnx"}
    report = tuned(desk, tmp_path / "out.onnx", **words)
    assert report.batch == 30 and report.improved


@needs_torch
def test_an_interrupted_run_goes_on_from_its_checkpoint(desk: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.npz"

    def stop(stage: str, done: int, total: int, what: str) -> None:
        if stage == "train" and done == 9:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        tuned(desk, tmp_path / "out.onnx", checkpoint=state, progress=stop)
    assert state.exists() and not (tmp_path / "out.onnx").exists()
    report = tuned(desk, tmp_path / "out.onnx", checkpoint=state, resume=True)
    tuned(desk, tmp_path / "whole.onnx")
    assert report.resumed_at == 9 and bits(tmp_path / "out.onnx") == bits(tmp_path / "whole.onnx")
    with pytest.raises(olm.DataError, match="--seed"):
        tuned(desk, tmp_path / "other.onnx", checkpoint=state, resume=True, seed=1)


# --- what is refused -----------------------------------------------------------------------------------------------


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
    refused(desk, tmp_path, olm.DataError, "no array|but the model's inputs", labels="classes")


@needs_torch
def test_labels_out_of_range_are_named(desk: Path, tmp_path: Path) -> None:
    given = tiny.arrays(128)
    given["labels"][5] = 17
    refused(desk, tmp_path, olm.DataError, "label 17 in 'labels'", data=given, labels="labels")


@needs_torch
def test_images_have_no_labels(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    refused(desk, tmp_path, olm.DataError, "has no labels", data=str(tmp_path / "images"), labels="labels")


@needs_torch
def test_samples_of_another_range_are_a_warning(desk: Path, tmp_path: Path) -> None:
    report = tuned(desk, tmp_path / "out.onnx", steps=1, data={"x": 255 * tiny.arrays(128)["x"]})
    assert any("range" in warning for warning in report.warnings)


@needs_torch
def test_an_operator_that_is_not_known_is_named_with_its_node(desk: Path, tmp_path: Path) -> None:
    net = zoo.Net(seed=3)
    value = net.node("GlobalAveragePool", net.conv(net.input(shape=("N", 3, 8, 8)), "c", 4), name="pool")
    value = net.node("Hardmax", net.node("Flatten", value, name="flat"), name="y")
    onnx.save(net.proto(value), tmp_path / "in.onnx")
    words = {"original": tmp_path / "in.onnx", "compressed": tmp_path / "in.onnx"}
    refused(desk, tmp_path, olm.ModelError, "'y' has the operator Hardmax", **words)
