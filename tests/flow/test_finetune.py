"""`finetune` from files to a file: what it writes, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_layermerge as olm
from onnx_layermerge.data import load_calibration
from tests import zoo
from tests.flow.tuning import bits, needs_torch, tuned
from tests.recover.training import tiny

pytestmark = pytest.mark.usefixtures("one_thread")


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
def test_samples_that_are_judged_by_and_learned_from_are_a_warning(desk: Path, tmp_path: Path) -> None:
    seen = tiny.arrays(128)["x"]
    mixed = np.concatenate([tiny.arrays(30, 2)["x"], seen[5:7]])
    for val, copies in ((str(desk / "data.npz"), "128 of the 128"), ({"x": mixed}, "2 of the 32")):
        report = tuned(desk, tmp_path / "out.onnx", steps=1, data={"x": seen}, val=val)
        assert any(copies in warning and "learned from" in warning for warning in report.warnings)
    report = tuned(desk, tmp_path / "out.onnx", steps=1, val=str(desk / "val.npz"))
    assert not any("learned from" in warning for warning in report.warnings)


@needs_torch
def test_samples_that_the_compression_was_fitted_to_are_a_warning(desk: Path, tmp_path: Path) -> None:
    model = onnx.load(desk / "small.onnx")
    digest = load_calibration(str(desk / "data.npz"), [tiny.INPUT]).digest()
    told = {"olm.calibration.sha256": digest, "olm.recovery": '["tune"]'}
    for without, warned in (("", True), ("olm.recovery", False), ("olm.calibration.sha256", False)):
        onnx.helper.set_model_props(model, {name: text for name, text in told.items() if name != without})
        onnx.save(model, tmp_path / "small.onnx")
        report = tuned(desk, tmp_path / "out.onnx", steps=1, compressed=tmp_path / "small.onnx")
        assert any("fitted to these very samples" in each for each in report.warnings) == warned
    onnx.helper.set_model_props(model, told)
    onnx.save(model, tmp_path / "small.onnx")
    words = {"compressed": tmp_path / "small.onnx", "val": str(desk / "val.npz")}
    assert not any("fitted to" in each for each in tuned(desk, tmp_path / "out.onnx", steps=1, **words).warnings)
    # Compressed with the same --val: those samples chose its plan, but no weight was fitted to them.
    told["olm.calibration.sha256"] += "+" + load_calibration(words["val"], [tiny.INPUT]).digest()
    onnx.helper.set_model_props(model, told)
    onnx.save(model, tmp_path / "small.onnx")
    assert not any("fitted to" in each for each in tuned(desk, tmp_path / "out.onnx", steps=1, **words).warnings)


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
    assert report.held_out == 30  # of 32: what fills no batch of 6 is not judged


@needs_torch
def test_an_output_of_constants_fixes_no_batch(desk: Path, tmp_path: Path) -> None:
    for name in ("in", "small"):
        model = onnx.load(desk / f"{name}.onnx")
        grid = np.arange(40, dtype=np.float32).reshape(1, 10, 4)
        model.graph.initializer.append(numpy_helper.from_array(grid, "grid"))
        model.graph.node.append(onnx.helper.make_node("Neg", ["grid"], ["priors"]))
        model.graph.output.append(onnx.helper.make_tensor_value_info("priors", onnx.TensorProto.FLOAT, grid.shape))
        onnx.save(model, tmp_path / f"{name}.onnx")
    words = {"original": tmp_path / "in.onnx", "compressed": tmp_path / "small.onnx", "steps": 2}
    found = tuned(desk, tmp_path / "out.onnx", **words, data={"x": tiny.arrays(40)["x"]}, batch=5)
    plain = tuned(desk, tmp_path / "plain.onnx", steps=2, data={"x": tiny.arrays(40)["x"]}, batch=5)
    assert (found.batch, found.held_out) == (5, 10) and found.start == plain.start


@needs_torch
@pytest.mark.parametrize(("asked", "batch"), [(None, 5), (6, 6)], ids=["samples in columns", "a Reshape to 6 rows"])
def test_a_fixed_first_axis_of_an_output_is_a_batch_where_nothing_else_runs(
    desk: Path, tmp_path: Path, asked: int | None, batch: int
) -> None:
    for name in ("in", "small"):
        model = onnx.load(desk / f"{name}.onnx")
        if asked is None:
            node, shape = onnx.helper.make_node("Transpose", ["scores"], ["y"], perm=[1, 0]), [5, "N"]
        else:
            model.graph.initializer.append(numpy_helper.from_array(np.array([asked, 5], np.int64), "rows"))
            node, shape = onnx.helper.make_node("Reshape", ["scores", "rows"], ["y"]), [asked, 5]
        model.graph.node.append(node)
        del model.graph.output[:]
        model.graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape))
        onnx.save(model, tmp_path / f"{name}.onnx")
    words = {"original": tmp_path / "in.onnx", "compressed": tmp_path / "small.onnx", "steps": 2}
    words["shapes"] = {"x": (asked or 1, 3, 8, 8)}
    report = tuned(desk, tmp_path / "out.onnx", **words, data={"x": tiny.arrays(40)["x"]}, batch=5)
    assert report.batch == batch and report.held_out == (10 if asked is None else 6)
    assert 0 <= report.start.agreement <= 1  # one score for each class, either way


@needs_torch
def test_an_output_in_which_another_axis_counts_samples(desk: Path, tmp_path: Path) -> None:
    """[row, sample, class]: batches of other sizes are joined, and judged as they would be with samples first."""
    net = zoo.Net(seed=3)
    value = net.relu(net.conv(net.input(shape=("N", 3, 8, 8)), "c0", 8), "r0")
    value = net.relu(net.conv(value, "c1"), "r1")
    rows = net.node("ReduceMean", net.conv(value, "c2", 5), name="rows", axes=[3], keepdims=0)
    reports = []
    for name, order in (("time", [2, 0, 1]), ("plain", [0, 2, 1])):
        model = net.proto(rows)
        model.graph.node.append(onnx.helper.make_node("Transpose", [rows], ["y"], perm=order))
        del model.graph.output[:]
        model.graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, None, 5]))
        onnx.save(model, tmp_path / f"{name}.onnx")
        onnx.save(tiny.worse(model), tmp_path / f"{name}.small.onnx")
        words = {"original": tmp_path / f"{name}.onnx", "compressed": tmp_path / f"{name}.small.onnx", "steps": 3}
        given = {"x": tiny.arrays(150)["x"]}
        reports.append(tuned(desk, tmp_path / "out.onnx", **words, data=given))
    time, plain = reports
    assert time.held_out == plain.held_out > 32
    assert time.start_loss == pytest.approx(plain.start_loss, rel=1e-4) and time.start_loss > 0
    assert time.start.relative == pytest.approx(plain.start.relative, rel=1e-4)


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
