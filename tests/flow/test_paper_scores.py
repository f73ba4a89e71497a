"""What `compress --finetune` makes of short trainings: the scores of blocks, and the files that keep them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_layermerge import DataError, OutputError, TargetError, UsageError
from onnx_layermerge.flow import _importance
from onnx_layermerge.flow._importance import loss_of
from onnx_layermerge.graph import read
from onnx_layermerge.verify import metric_of, outputs_of
from tests.flow import jobs
from tests.flow.paper import needs_torch, net, refused, run, scored, scores
from tests.machine import Machine

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the objective ---------------------------------------------------------------------------------------------------


def test_the_least_loss_is_the_papers_greatest_sum() -> None:
    """All ways to cover six layers with blocks or kept layers: Σ exp(Δ) and Σ loss put them in opposite orders."""
    rng = np.random.default_rng(0)
    spans = [(start, stop) for start in range(6) for stop in range(start + 1, 7)]
    gain = {span: -float(rng.exponential()) for span in spans}
    sums = []
    for chosen in itertools.chain.from_iterable(itertools.combinations(spans, count) for count in range(4)):
        if all(one[1] <= other[0] for one, other in itertools.pairwise(sorted(chosen))):
            kept = 6 - sum(stop - start for start, stop in chosen)
            worth = kept * math.exp(0) + sum(math.exp(gain[span]) for span in chosen)
            sums.append((worth, sum(loss_of(stop - start, gain[start, stop]) for start, stop in chosen)))
    assert len(sums) > 100
    for worth, loss in sums:
        assert worth + loss == pytest.approx(6)


@pytest.mark.parametrize(("layers", "gain", "loss"), [(1, -math.inf, 1), (3, 0.0, 2), (2, 5.0, 0), (1, 1e9, 0)])
def test_a_loss_is_finite_and_never_negative(layers: int, gain: float, loss: float) -> None:
    assert loss_of(layers, gain) == loss


# --- scores ----------------------------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.usefixtures("quick")
def test_every_entry_is_kept_and_a_broken_run_goes_on(
    clocked: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    entry = _importance._Trial.entry

    def counted(trial: Any, candidate: Any, rate: float) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(candidate.key)
        return entry(trial, candidate, rate)

    monkeypatch.setattr(_importance._Trial, "entry", counted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert list(scores(tmp_path)["entries"]) == sorted(done)
    assert not (tmp_path / "out.onnx").exists()
    before = scores(tmp_path)["entries"]
    again: list[str] = []
    monkeypatch.setattr(_importance._Trial, "entry", lambda t, c, rate: again.append(c.key) or entry(t, c, rate))
    # The rate of those that are known is that of the rest.
    monkeypatch.setattr(_importance._Trial, "fastest", lambda *given: pytest.fail("it is known"))
    run(tmp_path)
    after = scores(tmp_path)["entries"]
    assert not set(again) & set(done) and set(after) == {*again, *done}
    assert {key: after[key] for key in done} == before


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Rates of the short trainings, of which 0.01 leaves least."""
    made: list[float | None] = []
    off = {0.03: 0.5, 0.01: 0.1, 0.003: 0.2}

    def trained(student: Any, teacher: Any, data: Any, held_out: Any, options: Any, **_: Any) -> SimpleNamespace:
        made.append(options.rate)
        before = _importance.quality(outputs_of(teacher, held_out, 16), student, held_out, 16)
        left = off.get(options.rate, 0.4)
        return SimpleNamespace(divergence=dataclasses.replace(before, kl=left * before.kl), weights={})

    monkeypatch.setattr(_importance, "train", trained)
    return made


@needs_torch
def test_the_rate_is_looked_for_once_with_one_block(
    rates: list[float | None], clocked: Machine, tmp_path: Path
) -> None:
    scored(tmp_path)
    entries = scores(tmp_path)["entries"]
    # From the largest on down until a smaller one does worse.
    assert rates[:3] == [0.03, 0.01, 0.003] and rates[3:] == [0.01] * len(entries)
    assert {each["rate"] for each in entries.values()} == {0.01}


@needs_torch
def test_a_given_rate_is_not_looked_for(rates: list[float | None], clocked: Machine, tmp_path: Path) -> None:
    scored(tmp_path, importance_lr=0.02)
    assert rates == [0.02] * len(scores(tmp_path)["entries"])
    refused(tmp_path, DataError, "of another run .--importance-lr differ", importance_lr=0.01)
    refused(tmp_path, DataError, "of another run .--importance-lr differ")


@needs_torch
@pytest.mark.usefixtures("quick")
def test_the_smallest_rate_where_none_brings_anything(clocked: Machine, tmp_path: Path) -> None:
    scored(tmp_path)
    assert {each["rate"] for each in scores(tmp_path)["entries"].values()} == {_importance.RATES[-1]}


@needs_torch
@pytest.mark.usefixtures("quick")
def test_the_users_metric_is_the_performance(clocked: Machine, tmp_path: Path) -> None:
    made, _ = net()
    feeds = jobs.samples(made, 48)

    def metric(model: Any) -> float:
        return float(model(feeds)["scores"][:, 0].mean())

    scored(tmp_path, metric=metric)
    entries = scores(tmp_path)["entries"].values()
    assert any(each["gain"] > 0 for each in entries) and all(abs(each["gain"] + each["kl"]) > 0 for each in entries)


@needs_torch
def test_a_block_that_leaves_no_finite_output_is_worth_nothing(
    clocked: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality = _importance.quality

    def lost(*given: Any) -> Any:
        found = quality(*given)
        return dataclasses.replace(found, kl=math.inf, relative=math.inf)

    monkeypatch.setattr(_importance, "quality", lost)
    with pytest.raises(TargetError, match="no replacement keeps anything"):
        run(tmp_path)
    held = scores(tmp_path)["entries"].values()
    assert held and all(each["gain"] is None and each["kl"] is None for each in held)
    monkeypatch.setattr(_importance._Trial, "entry", lambda *given: pytest.fail("it is known"))
    with pytest.raises(TargetError, match="no replacement keeps anything"):
        run(tmp_path)


# --- their files -----------------------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.usefixtures("quick")
def test_a_file_of_another_run(clocked: Machine, tmp_path: Path) -> None:
    scored(tmp_path, shard=(1, 4))
    refused(tmp_path, DataError, "of another run .*--importance-steps", importance_steps=5)
    refused(tmp_path, DataError, "of another run .*--seed", seed=1)
    refused(tmp_path, DataError, "of another run .--shapes or --batch differ", batch=2)
    held = scores(tmp_path)
    held["of"]["the model"] = "0" * 64
    (tmp_path / "scores.json").write_text(json.dumps(held))
    refused(tmp_path, DataError, "of another run .the model differ")


@needs_torch
@pytest.mark.usefixtures("quick")
def test_another_effort_judges_by_other_samples(clocked: Machine, tmp_path: Path) -> None:
    calib = jobs.samples(net()[0], 180)
    assert scored(tmp_path, calib=calib, shard=(1, 4)).trained > 0
    with pytest.raises(DataError, match=r"of another run \(--effort differ"):
        scored(tmp_path, calib=calib, shard=(1, 4), effort="quick")


def test_another_metric_of_the_same_name(tmp_path: Path) -> None:
    """The words stay: the script is another one, its data are, or the file of a built-in metric is."""
    made, path = jobs.save(net, tmp_path)
    network, script, store = read(path), tmp_path / "m.py", tmp_path / "m.npz"

    def told(metric: Any) -> str:
        return _importance._measured_by(metric_of(metric, network, 1))

    def written(number: str) -> str:
        script.write_text(f"def f(run):\n    return {number}\n")
        return f"{script}:f"

    first = told(written("0.5"))
    (tmp_path / "moved").mkdir()
    elsewhere = shutil.copy(script, tmp_path / "moved")
    assert told(f"{elsewhere}:f") == first  # as it may lie on another machine
    assert told(written(" 0.5")) != first
    assert told(lambda run: 0.5) == told(lambda run: 0.50001) != told(lambda run: 0.25)
    files = []
    for seed in (0, 1):
        np.savez(store, **jobs.samples(made, 8, seed=seed))
        files.append(told(f"agreement:{store}#scores"))
    assert files[0] != files[1]


@needs_torch
@pytest.mark.usefixtures("quick")
def test_scores_are_of_one_metric(clocked: Machine, tmp_path: Path) -> None:
    worth = [0.5]
    scored(tmp_path, metric=lambda model: worth[0], shard=(1, 4))
    worth[0] = 0.25
    with pytest.raises(DataError, match=r"of another run \(--metric differ"):
        scored(tmp_path, metric=lambda model: worth[0], shard=(1, 4))


@needs_torch
@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other"}', '{"format": "olm-importance-1", "of": {}, "entries": {"a": {}}}']
)
def test_what_is_no_such_file(text: str, clocked: Machine, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(text)
    refused(tmp_path, DataError, "is no file of --importance")


@needs_torch
def test_files_that_are_there_for_something_else(clocked: Machine, tmp_path: Path) -> None:
    refused(tmp_path, UsageError, "a file that this run works with", importance=tmp_path / "out.onnx")
    refused(tmp_path, OutputError, "does not exist", importance=tmp_path / "no" / "scores.json")
    refused(tmp_path, DataError, "is no file of --importance", importance=[tmp_path / "a.json", tmp_path / "b.json"])
