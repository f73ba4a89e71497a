"""The record in a compressed file: whole, read back, and honest where it falls short."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_layermerge import ModelError, Report, UsageError, compress
from onnx_layermerge.flow import explain
from tests import zoo
from tests.flow import jobs
from tests.machine import install


def network() -> tuple[zoo.Net, str]:
    """Some convolutions stay; the weights of one are not known before it runs."""
    net = zoo.Net(seed=11)
    value = net.relu(net.conv(net.input("image", ("batch", 4, 6, 6)), "stem", 6), "r")
    weights = net.constant("computed.w", net.rng.standard_normal((6, 6, 1, 1)).astype(np.float32))
    mean = net.node("ReduceMean", value, name="mean", axes=[0, 1, 2, 3], keepdims=1)
    scaled = net.node("Mul", weights, mean, name="scaled")
    return net, jobs.blocks(net, net.node("Conv", value, scaled, name="computed", channels=6), count=3)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Report]]:
    folder = tmp_path_factory.mktemp("explained")
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        net, path = jobs.save(network, folder)
        options = {"calib": jobs.samples(net), "rivals": 2, "profile": folder / "table.json", "effort": "quick"}
        yield folder, compress(path, folder / "out.onnx", speedup=1.3, **options)


def changed(source: Path, name: str, **notes: str | None) -> Path:
    """A copy whose metadata are other ones; None takes one out."""
    model = onnx.load(source)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    kept.update({f"olm.{key}": value for key, value in notes.items() if value is not None})
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model, {k: v for k, v in kept.items() if notes.get(k.removeprefix("olm."), "") is not None}
    )
    path = source.with_name(name)
    onnx.save(model, path)
    return path


def test_every_convolution_of_both_files_has_a_fate(done: tuple[Path, Report]) -> None:
    folder, report = done
    found = explain(folder / "out.onnx")
    after = [node.name for node in onnx.load(folder / "out.onnx").graph.node if node.op_type == "Conv"]
    before = [node.name for node in onnx.load(folder / "in.onnx").graph.node if node.op_type == "Conv"]
    assert [conv.name for conv in found.convs if conv.fate != "gone"] == after
    gone = {conv.name for conv in found.convs if conv.fate == "gone"}
    stayed = {conv.name for conv in found.convs if conv.fate in ("kept", "refitted", "untouchable")}
    assert gone | stayed == set(before) and not gone & stayed and gone and stayed
    made = {conv.name for conv in found.convs if conv.fate == "replacement"}
    assert made == set(after) - stayed == {name for block in report.blocks for name in block.made}
    assert found.notes == () and set(found.recovery) == set(report.recovery)


def test_blocks_say_what_the_report_says(done: tuple[Path, Report]) -> None:
    folder, report = done
    found = explain(folder / "out.onnx")
    assert [block.name for block in found.blocks] == [block.name for block in report.blocks]
    for block, other in zip(found.blocks, report.blocks, strict=True):
        assert (block.was, block.now, block.recipe) == (other.replaced, other.made, other.recipe)
        assert block.saves_ms == pytest.approx(other.saving_ms, rel=1e-3)
        assert block.old_ms == pytest.approx(other.old_ms, rel=1e-3)
        assert block.kl == pytest.approx(other.loss_alone, rel=1e-3)
    assert found.origin["speedup.asked"] == "1.3" and found.origin["input.sha256"] == report.keys.input


def test_one_convolution_alone(done: tuple[Path, Report]) -> None:
    folder, report = done
    number, block = next((n, block) for n, block in enumerate(report.blocks, 1) if block.made)
    (conv,) = explain(folder / "out.onnx", block.replaced[0]).convs
    assert (conv.fate, conv.block) == ("gone", number) and block.made[0] in conv.reason
    kept = next(conv for conv in explain(folder / "out.onnx").convs if conv.fate == "kept")
    one = explain(folder / "out.onnx", kept.name)
    assert one.convs == (kept,) and one.blocks == ()
    assert "legal replacement" in kept.reason and ("clearly faster" in kept.reason)
    with pytest.raises(UsageError, match=rf"'{kept.name}x' is no convolution .* did you mean {kept.name}"):
        explain(folder / "out.onnx", f"{kept.name}x")


def test_a_file_without_a_record_is_one_sentence(done: tuple[Path, Report]) -> None:
    with pytest.raises(ModelError, match="holds no record of olm compress") as caught:
        explain(done[0] / "in.onnx")
    assert caught.value.exit_code == 1 and str(caught.value).count(".") - str(caught.value).count(".onnx") == 1


@pytest.mark.parametrize(
    "notes",
    [
        {"blocks": "{"},
        {"blocks": "{}"},
        {"blocks": "[3]"},
        {"kept": '{"stem":[]}'},
        {"kept": '{"stem":[Infinity,1]}'},
        {"refitted": "7"},
        {"plan": "x"},
    ],
)
def test_a_damaged_record_is_said(done: tuple[Path, Report], notes: dict[str, str]) -> None:
    older = {"blocks": None} if "plan" in notes else {}
    with pytest.raises(ModelError, match="is damaged"):
        explain(changed(done[0] / "out.onnx", "damaged.onnx", **notes, **older))


def test_an_older_record_is_filled_up_from_the_file(done: tuple[Path, Report]) -> None:
    folder, report = done
    found = explain(changed(folder / "out.onnx", "older.onnx", blocks=None, kept=None))
    assert [block.name for block in found.blocks] == [block.name for block in report.blocks]
    assert found.blocks[0].kl is None and {conv.fate for conv in found.convs} <= {"unknown", "untouchable", "refitted"}
    assert "older olm" in found.notes[0] and "as olm inspect does" in found.notes[0]


def test_a_file_that_was_trained_on_says_so(done: tuple[Path, Report]) -> None:
    (told,) = explain(changed(done[0] / "out.onnx", "trained.onnx", finetune="{}")).notes
    assert "olm finetune" in told and "is of before" in told


def test_a_file_that_was_changed_since_is_noticed(done: tuple[Path, Report]) -> None:
    model = onnx.load(done[0] / "out.onnx")
    next(node for node in model.graph.node if node.op_type == "Conv").name = "another"
    onnx.save(model, done[0] / "renamed.onnx")
    found = explain(done[0] / "renamed.onnx")
    assert [conv.name for conv in found.convs if conv.fate == "unknown"] == ["another"]
    assert "changed after it was written" in found.notes[0]


def test_a_second_compression_leaves_only_its_own_record(
    done: tuple[Path, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = done
    install(monkeypatch)
    source = changed(folder / "out.onnx", "first.onnx", stale="of the first run")
    report = compress(
        source, folder / "second.onnx", speedup=1.05, rivals=1, effort="quick", profile=folder / "table.json"
    )
    notes = {entry.key: entry.value for entry in onnx.load(folder / "second.onnx").metadata_props}
    assert "olm.stale" not in notes and json.loads(notes["olm.plan"]) == [block.name for block in report.blocks]
    found = explain(folder / "second.onnx")
    assert found.notes == () and not any(conv.fate == "unknown" for conv in found.convs)


def test_what_could_not_be_touched_says_why(done: tuple[Path, Report]) -> None:
    (conv,) = explain(done[0] / "out.onnx", "computed").convs
    assert (conv.fate, conv.reason) == ("untouchable", "its weights are computed at run time")
