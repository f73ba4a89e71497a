"""`compress --finetune` from file to file: the plan trained before its merge."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_layermerge import DataError, TargetError
from onnx_layermerge.flow import _importance, _paper, _subject, score_shard
from onnx_layermerge.latency import Ratio
from tests import zoo
from tests.flow import jobs
from tests.flow.paper import needs_torch, net, run, scored, scores
from tests.machine import Machine

pytestmark = pytest.mark.usefixtures("one_thread")


@needs_torch
@pytest.mark.parametrize("method", ["layermerge", "depth", "layeronly"])
def test_from_file_to_a_trained_file(
    method: str, clocked: Machine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if method != "layermerge":
        request.getfixturevalue("quick")
    plain = run(tmp_path, "plain.onnx", method=method, finetune=False, importance=None, importance_steps=None,
                finetune_steps=None)  # fmt: skip
    assert plain.speedup.low >= 1.2 and plain.recovery == ()
    report = run(tmp_path, method=method)
    assert report.speedup.low >= 1.2 and report.basis == "importance" and report.recovery == ("finetune",)
    recipes = {block.recipe for block in report.blocks}
    assert recipes <= {"layermerge": {"identity", "merge"}, "depth": {"merge"}, "layeronly": {"identity"}}[method]
    made = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(made, full_check=True)
    props = {each.key: each.value for each in made.metadata_props}
    note = json.loads(props["olm.finetune"])
    assert note["improved"] and note["steps"] == 12 and note["importance.steps"] == 4
    assert note["held_out.after"] < note["held_out.before"]
    assert json.loads(props["olm.recovery"]) == ["finetune"]
    assert report.fits is None and report.fitted_on == report.judged_on == 0  # nothing was fitted
    assert json.loads(props["olm.plan"]) == [block.name for block in report.blocks]
    assert "train" in report.seconds
    entries = scores(tmp_path)["entries"].values()
    assert all(each["gain"] == -each["kl"] and each["kl"] <= each["untrained"] for each in entries)
    assert any(each["kl"] < 0.8 * each["untrained"] for each in entries) is (method == "layermerge")
    original = onnx.load(tmp_path / "in.onnx")
    feeds = jobs.samples(net()[0], 48)
    wanted, got = zoo.run(original, feeds)["scores"], zoo.run(made, feeds)["scores"]
    assert np.isfinite(got).all() and not np.allclose(wanted, got)


@needs_torch
@pytest.mark.usefixtures("quick")
def test_depth_keeps_every_convolution_and_layeronly_every_activation(clocked: Machine, tmp_path: Path) -> None:
    scored(tmp_path, method="depth")
    assert all(set(key.partition("[")[2].rstrip("]")) == {"1"} for key in scores(tmp_path)["entries"])
    report = run(tmp_path, method="layeronly", finetune_steps=1, importance=None)
    made, before = (onnx.load(tmp_path / name) for name in ("out.onnx", "in.onnx"))
    counts = [[node.op_type for node in each.graph.node].count("Relu") for each in (made, before)]
    assert counts[0] == counts[1] and all(len(block.replaced) == 1 for block in report.blocks)


@needs_torch
@pytest.mark.usefixtures("quick")
def test_a_trained_file_that_times_worse_is_not_written(
    clocked: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def slow(*given: Any, table: object, **words: Any) -> tuple[Ratio, bool]:
        tried.append(table)
        return Ratio(1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 9, "cap"), True

    monkeypatch.setattr(_paper, "as_written", slow)
    with pytest.raises(TargetError, match="timed at 1.10× and not at the 1.2×.*and scores are read from --importance"):
        run(tmp_path, finetune_steps=1)
    assert len(tried) == 1
    assert not (tmp_path / "out.onnx").exists()
    with pytest.raises(TargetError, match="so are those of all blocks, unless --importance is given"):
        run(tmp_path, finetune_steps=1, importance=None)


@needs_torch
@pytest.mark.usefixtures("quick")
def test_a_training_without_gain_says_so(clocked: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = _paper.train
    monkeypatch.setattr(_paper, "train", lambda *given: dataclasses.replace(train(*given), weights={}))
    report = run(tmp_path, finetune_steps=1)
    props = {each.key for each in onnx.load(tmp_path / "out.onnx").metadata_props}
    assert "olm.recovery" not in props and "olm.finetune" in props
    assert report.recovery == () and any("no weights that were tried" in warning for warning in report.warnings)


@needs_torch
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("ended", "match"),
    [("nan", "was NaN or infinite at step 1, so"), ("early", "ended at step 1; olm finetune on the output")],
)
def test_a_training_that_ends_before_its_time_says_so(
    ended: str, match: str, clocked: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = _paper.train
    monkeypatch.setattr(_paper, "train", lambda *given: dataclasses.replace(train(*given), ended=ended))
    assert any(match in warning for warning in run(tmp_path, finetune_steps=1).warnings)


@needs_torch
@pytest.mark.usefixtures("quick")
def test_with_norms_every_training_has_them_and_the_file_has_none(
    clocked: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[list[int]] = []
    for room in (_importance, _paper):

        def counted(student: Any, *given: Any, train: Any = room.train, **words: Any) -> Any:
            counts[-1].append(sum(node.op_type == "BatchNormalization" for node in student.graph))
            return train(student, *given, **words)

        monkeypatch.setattr(room, "train", counted)
    for norms in (False, True):
        counts.append([])
        run(tmp_path, f"{norms}.onnx", norms=norms, importance=tmp_path / f"{norms}.json")
    assert not any(counts[0]) and len(counts[1]) > 2 and all(counts[1])
    normed = onnx.load(tmp_path / "True.onnx")
    assert not any(node.op_type == "BatchNormalization" for node in normed.graph.node)
    (note,) = (json.loads(each.value) for each in normed.metadata_props if each.key == "olm.finetune")
    assert note["norms"] == counts[1][-1] and note["improved"]
    with pytest.raises(DataError, match="of another run .--norms differ"):
        run(tmp_path, norms=False, importance=tmp_path / "True.json")


@needs_torch
@pytest.mark.usefixtures("quick")
def test_what_is_lost_by_the_merge_is_a_warning(
    clocked: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = _subject.merged_weights

    def spoilt(*given: Any) -> dict[str, np.ndarray]:
        return {name: 1.5 * array for name, array in merged(*given).items()}

    monkeypatch.setattr(_subject, "merged_weights", spoilt)
    assert any("merged again the model lies at KL" in each for each in run(tmp_path, finetune_steps=4).warnings)


@needs_torch
@pytest.mark.usefixtures("quick")
def test_shards_together_are_the_whole(clocked: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, path = jobs.save(net, tmp_path)
    words = {"calib": jobs.samples(made, 48), "profile": tmp_path / "table.json", "importance_steps": 4}
    ends = {"finetune_steps": 1}
    first, second = (
        score_shard(path, importance=tmp_path / f"{number}.json", shard=(number, 2), **words) for number in (1, 2)
    )
    assert first.blocks == first.trained > 0 and second.trained > 0
    assert score_shard(path, importance=tmp_path / "1.json", shard=(1, 2), **words).trained == 0
    parts = [scores(tmp_path, f"{number}.json")["entries"] for number in (1, 2)]
    assert not set(parts[0]) & set(parts[1])
    none = score_shard(path, importance=tmp_path / "none.json", shard=(1, 1000), **words)
    assert none.blocks == 0 and scores(tmp_path, "none.json")["entries"] == {}
    with monkeypatch.context() as patch:
        patch.setattr(_importance._Trial, "entry", lambda *given: pytest.fail("it is known"))
        files = [tmp_path / f"{name}.json" for name in ("all", "1", "none", "2")]
        report = run(tmp_path, importance=files, **ends)
    whole = run(tmp_path, "whole.onnx", importance=None, **ends)
    assert [block.name for block in report.blocks] == [block.name for block in whole.blocks]
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
