"""`compress --finetune`: blocks scored by short trainings, the plan trained before its merge."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_layermerge import DataError, DeviceError, OlmError, OutputError, Report, TargetError, UsageError, compress
from onnx_layermerge.flow import ShardReport, _importance, _paper, _subject, score_shard
from onnx_layermerge.flow._importance import loss_of
from onnx_layermerge.graph import read
from onnx_layermerge.latency import Ratio
from onnx_layermerge.recover import training
from onnx_layermerge.verify import metric_of, outputs_of
from tests import zoo
from tests.flow import jobs
from tests.machine import Machine, install

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="fine-tuning is an extra: torch is not installed")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """So that sums are made in one order, and small networks are not held up by waiting threads."""
    if find_spec("torch") is None:
        yield
        return
    import torch  # noqa: TID251

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net() -> tuple[zoo.Net, str]:
    """Layers that can be left out, and blocks that can be merged."""
    made = zoo.Net(seed=11)
    value = made.relu(made.conv(made.input("image", ("batch", 4, 6, 6)), "stem", 6), "r")
    for number in range(2):
        value = made.relu(made.conv(value, f"e{number}", 6), f"f{number}")
    return made, jobs.blocks(made, value, 2, 6, 12)


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A table that knows every time of ``net``; what a machine takes is no test's of these."""
    folder = tmp_path_factory.mktemp("timed")
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        for method in ("layermerge", "layeronly"):
            run(folder, method=method, finetune=False, importance=None, importance_steps=None, finetune_steps=None)
    return (folder / "table.json").read_bytes()


@pytest.fixture
def machine(machine: Machine, timed: bytes, tmp_path: Path) -> Machine:
    (tmp_path / "table.json").write_bytes(timed)
    return machine


def scored(folder: Path, name: str = "scores.json", **options: Any) -> ShardReport:
    """All scores, and nothing else."""
    made, path = jobs.save(net, folder)
    words = {"calib": jobs.samples(made, 48), "profile": folder / "table.json", "importance_steps": 4, "shard": (1, 1)}
    return score_shard(path, importance=folder / name, **{**words, **options})


def run(folder: Path, name: str = "out.onnx", **options: Any) -> Report:
    made, path = jobs.save(net, folder)
    words = {
        "speedup": 1.2, "method": "layermerge", "finetune": True, "importance_steps": 4, "finetune_steps": 12,
        "calib": jobs.samples(made, 48), "profile": folder / "table.json", "importance": folder / "scores.json",
        **options,
    }  # fmt: skip
    return compress(path, folder / name, **words)


def scores(folder: Path, name: str = "scores.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single blocks are scored as they are: what their training does is another test's."""

    def untrained(student: Any, teacher: Any, data: Any, held_out: Any, options: Any) -> SimpleNamespace:
        wanted = outputs_of(teacher, held_out, 16)
        return SimpleNamespace(divergence=_importance.quality(wanted, student, held_out, 16), weights={})

    monkeypatch.setattr(_importance, "train", untrained)


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


# --- end to end ------------------------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.parametrize("method", ["layermerge", "depth", "layeronly"])
def test_from_file_to_a_trained_file(
    method: str, machine: Machine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if method != "layermerge":
        request.getfixturevalue("quick")
    plain = run(tmp_path, "plain.onnx", method=method, finetune=False, importance=None, importance_steps=None,
                finetune_steps=None)  # fmt: skip
    report = run(tmp_path, method=method)
    assert report.speedup.low >= 1.2 and report.basis == "importance" and report.recovery == ("finetune",)
    assert plain.validation is not None and report.validation is not None
    assert report.validation.kl < plain.validation.kl
    recipes = {block.recipe for block in report.blocks}
    assert recipes == {"identity" if method == "layeronly" else "merge"}
    made = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(made, full_check=True)
    props = {each.key: each.value for each in made.metadata_props}
    note = json.loads(props["olm.finetune"])
    assert note["improved"] and note["steps"] == 12 and note["importance.steps"] == 4
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
def test_depth_keeps_every_convolution_and_layeronly_every_activation(machine: Machine, tmp_path: Path) -> None:
    scored(tmp_path, method="depth")
    assert all(set(key.partition("[")[2].rstrip("]")) == {"1"} for key in scores(tmp_path)["entries"])
    report = run(tmp_path, method="layeronly", finetune_steps=1, importance=None)
    made, before = (onnx.load(tmp_path / name) for name in ("out.onnx", "in.onnx"))
    counts = [[node.op_type for node in each.graph.node].count("Relu") for each in (made, before)]
    assert counts[0] == counts[1] and all(len(block.replaced) == 1 for block in report.blocks)


@needs_torch
@pytest.mark.usefixtures("quick")
def test_every_entry_is_kept_and_a_broken_run_goes_on(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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

    def trained(student: Any, teacher: Any, data: Any, held_out: Any, options: Any) -> SimpleNamespace:
        made.append(options.rate)
        before = _importance.quality(outputs_of(teacher, held_out, 16), student, held_out, 16)
        left = off.get(options.rate, 0.4)
        return SimpleNamespace(divergence=dataclasses.replace(before, kl=left * before.kl), weights={})

    monkeypatch.setattr(_importance, "train", trained)
    return made


@needs_torch
def test_the_rate_is_looked_for_once_with_one_block(
    rates: list[float | None], machine: Machine, tmp_path: Path
) -> None:
    scored(tmp_path)
    entries = scores(tmp_path)["entries"]
    # From the largest on down until a smaller one does worse.
    assert rates[:3] == [0.03, 0.01, 0.003] and rates[3:] == [0.01] * len(entries)
    assert {each["rate"] for each in entries.values()} == {0.01}


@needs_torch
def test_a_given_rate_is_not_looked_for(rates: list[float | None], machine: Machine, tmp_path: Path) -> None:
    scored(tmp_path, importance_lr=0.02)
    assert rates == [0.02] * len(scores(tmp_path)["entries"])
    refused(tmp_path, DataError, "of another run .--importance-lr differ", importance_lr=0.01)
    refused(tmp_path, DataError, "of another run .--importance-lr differ")


@needs_torch
@pytest.mark.usefixtures("quick")
def test_the_smallest_rate_where_none_brings_anything(machine: Machine, tmp_path: Path) -> None:
    scored(tmp_path)
    assert {each["rate"] for each in scores(tmp_path)["entries"].values()} == {_importance.RATES[-1]}


@needs_torch
@pytest.mark.usefixtures("quick")
def test_shards_together_are_the_whole(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@needs_torch
@pytest.mark.usefixtures("quick")
def test_the_users_metric_is_the_performance(machine: Machine, tmp_path: Path) -> None:
    made, _ = net()
    feeds = jobs.samples(made, 48)

    def metric(model: Any) -> float:
        return float(model(feeds)["scores"][:, 0].mean())

    scored(tmp_path, metric=metric)
    entries = scores(tmp_path)["entries"].values()
    assert any(each["gain"] > 0 for each in entries) and all(abs(each["gain"] + each["kl"]) > 0 for each in entries)


@needs_torch
def test_a_block_that_leaves_no_finite_output_is_worth_nothing(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


@needs_torch
@pytest.mark.usefixtures("quick")
def test_a_trained_file_that_times_worse_is_not_written(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
def test_a_training_without_gain_says_so(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = _paper.train
    monkeypatch.setattr(_paper, "train", lambda *given: dataclasses.replace(train(*given), weights={}))
    report = run(tmp_path, finetune_steps=1)
    props = {each.key for each in onnx.load(tmp_path / "out.onnx").metadata_props}
    assert "olm.recovery" not in props and "olm.finetune" in props
    assert report.recovery == () and any("no weights that were tried" in warning for warning in report.warnings)


# --- what is refused -------------------------------------------------------------------------------------------------


def refused(folder: Path, error: type[OlmError], match: str, **options: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        run(folder, **options)
    assert str(caught.value).rstrip().endswith(".") and "\n" not in str(caught.value)
    assert not (folder / "out.onnx").exists()


@pytest.mark.parametrize("method", ["olm", "drop"])
def test_methods_without_a_training_of_their_own(method: str, machine: Machine, tmp_path: Path) -> None:
    refused(tmp_path, UsageError, "run olm finetune on the output", method=method)


@pytest.mark.parametrize(
    "word",
    [
        *({"importance": "x.json"}, {"importance_steps": 3}, {"importance_lr": 0.1}),
        *({"finetune_minutes": 1.0}, {"finetune_steps": 3}, {"finetune_device": "cpu"}),
    ],
)
def test_words_about_a_training_that_was_not_asked_for(word: dict[str, Any], machine: Machine, tmp_path: Path) -> None:
    nothing = {"importance": None, "importance_steps": None, "finetune_steps": None}
    option = next(iter(word)).replace("_", "-")
    refused(tmp_path, UsageError, f"--{option} is about", finetune=False, **{**nothing, **word})


def test_without_samples(machine: Machine, tmp_path: Path) -> None:
    refused(tmp_path, UsageError, "--finetune trains on samples", calib=None)


@pytest.mark.parametrize(
    "word",
    [{"importance_steps": 0}, {"importance_lr": 0.0}, {"finetune_minutes": math.nan}, {"finetune_steps": -1}],
)
def test_lengths_that_are_none(word: dict[str, Any], machine: Machine, tmp_path: Path) -> None:
    refused(tmp_path, UsageError, "too small or no number", **word)


@needs_torch
@pytest.mark.parametrize("word", [{"plan": "plan.json"}, {"lock": True, "plan": "plan.json"}])
def test_plans_are_not_trained(word: dict[str, Any], machine: Machine, tmp_path: Path) -> None:
    refused(tmp_path, UsageError, "--plan and --lock", **word)


def test_a_missing_torch_is_said_at_once(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    refused(tmp_path, DeviceError, "needs PyTorch")


@needs_torch
@pytest.mark.parametrize(("device", "match"), [("cuda", "is not available"), ("tpu", "unknown"), ("meta", "is none")])
def test_a_device_that_is_none_is_said_at_once(
    device: str, match: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch  # noqa: TID251

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    error = DeviceError if device == "cuda" else UsageError
    refused(tmp_path, error, f"^--finetune-device {device} .*{match}", finetune_device=device, importance=None)
    assert machine.built == 0


@pytest.mark.parametrize("shard", [(0, 2), (3, 2)])
def test_parts_that_are_none(shard: tuple[int, int], machine: Machine, tmp_path: Path) -> None:
    made, path = jobs.save(net, tmp_path)
    with pytest.raises(UsageError, match="is no part"):
        score_shard(path, importance=tmp_path / "a.json", shard=shard, calib=jobs.samples(made))


def test_a_part_needs_a_file(machine: Machine, tmp_path: Path) -> None:
    made, path = jobs.save(net, tmp_path)
    with pytest.raises(UsageError, match="into the file of --importance"):
        score_shard(path, importance=(), shard=(1, 2), calib=jobs.samples(made))


@needs_torch
@pytest.mark.usefixtures("quick")
def test_a_file_of_another_run(machine: Machine, tmp_path: Path) -> None:
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
def test_another_effort_judges_by_other_samples(machine: Machine, tmp_path: Path) -> None:
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
def test_scores_are_of_one_metric(machine: Machine, tmp_path: Path) -> None:
    worth = [0.5]
    scored(tmp_path, metric=lambda model: worth[0], shard=(1, 4))
    worth[0] = 0.25
    with pytest.raises(DataError, match=r"of another run \(--metric differ"):
        scored(tmp_path, metric=lambda model: worth[0], shard=(1, 4))


@needs_torch
@pytest.mark.usefixtures("quick")
def test_what_is_lost_by_the_merge_is_a_warning(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = _subject.merged_weights

    def spoilt(*given: Any) -> dict[str, np.ndarray]:
        return {name: 1.5 * array for name, array in merged(*given).items()}

    monkeypatch.setattr(_subject, "merged_weights", spoilt)
    assert any("merged again the model lies at KL" in each for each in run(tmp_path, finetune_steps=4).warnings)


@needs_torch
@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other"}', '{"format": "olm-importance-1", "of": {}, "entries": {"a": {}}}']
)
def test_what_is_no_such_file(text: str, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(text)
    refused(tmp_path, DataError, "is no file of --importance")


@needs_torch
def test_files_that_are_there_for_something_else(machine: Machine, tmp_path: Path) -> None:
    refused(tmp_path, UsageError, "a file that this run works with", importance=tmp_path / "out.onnx")
    refused(tmp_path, OutputError, "does not exist", importance=tmp_path / "no" / "scores.json")
    refused(tmp_path, DataError, "is no file of --importance", importance=[tmp_path / "a.json", tmp_path / "b.json"])
