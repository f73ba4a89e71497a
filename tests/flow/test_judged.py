"""What a user's own measures do to a run: which plan wins, what is reported, and what is refused before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_layermerge import Gate, Report, UsageError, compress, verify
from onnx_layermerge.flow import _choose, _loop, _rank, _weights
from onnx_layermerge.flow._judged import overfitted, underdetermined
from onnx_layermerge.verify import FitCheck
from tests.flow import jobs
from tests.machine import Machine

Run = Callable[..., Report]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One latency table for all runs: the machine's times are always the same."""
    return tmp_path_factory.mktemp("table") / "t.json"


@pytest.fixture
def run(machine: Machine, tmp_path: Path, table: Path) -> Run:
    """A small job, of drops alone unless ``method`` says more."""

    def call(count: int = 32, make: Any = jobs.residual_net, **options: Any) -> Report:
        net, path = jobs.save(make, tmp_path)
        options = {"speedup": 1.15, "calib": jobs.samples(net, count), "rivals": 6, "method": "drop"} | options
        return compress(path, tmp_path / "out.onnx", **{"profile": table, **options})

    return call


class Scripted:
    """A metric that says what it is told to: of the original, of each plan in turn, and from then on the last."""

    def __init__(self, *values: float) -> None:
        self.values, self.calls = list(values), 0
        net, _ = jobs.residual_net()
        self.feeds = jobs.samples(net, 4)

    def __call__(self, runner: Callable[..., dict[str, np.ndarray]]) -> float:
        (scores,) = runner(self.feeds).values()
        assert scores.shape == (4, 5)
        self.calls += 1
        return self.values[min(self.calls, len(self.values)) - 1]


def images(outputs: dict[str, np.ndarray]) -> list[Any]:
    """A box a sample, as wide as its first score: enough to see that both models' outputs arrive."""
    (scores,) = outputs.values()
    return [([[0, 0, 10 + score[0], 10]], [score[1]], [int(score.argmax())]) for score in scores]


def test_the_metric_decides_between_the_few_best_by_divergence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rank, "JUDGED", 2)
    monkeypatch.setattr(_loop.Loop, "trimmed", lambda self, plan, *rest: plan)
    plain = run()
    assert len(plain.rejected) >= 2
    second = min(plain.rejected, key=lambda plan: plan.divergence)
    metric = Scripted(1.0, 0.5, 0.9, 0.85)
    report = run(metric=metric)
    assert tuple(block.name for block in report.blocks) == second.blocks
    scores = {rejected.blocks: rejected.metric for rejected in report.rejected}
    assert scores.pop(tuple(block.name for block in plain.blocks)) == 0.5
    assert scores and set(scores.values()) == {None}  # too far by divergence to be asked about
    assert report.metric is not None and (report.metric.original, report.metric.compressed) == (1.0, 0.85)
    assert metric.calls == 4
    assert plain.metric is None and {rejected.metric for rejected in plain.rejected} == {None}


def test_the_only_plan_needs_no_ranking(run: Run) -> None:
    metric = Scripted(0.7, 0.6)
    report = run(rivals=1, metric=metric)
    assert metric.calls == 2 and report.metric is not None
    assert report.metric.drop == pytest.approx(0.1) and report.metric.name == "Scripted"


def test_a_metric_needs_no_samples(run: Run) -> None:
    report = run(calib=None, metric=Scripted(0.7, 0.6))
    assert report.metric is not None and report.outputs == () and report.boxes is None and report.fits is None


def test_weights_that_cost_the_metric_are_not_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of the original, the refit, the plan, what all samples gave, that again, and the result."""
    monkeypatch.setattr(_weights, "GAIN", 100.0)
    asked = {"make": jobs.long_net, "method": "olm", "speedup": 1.4, "rivals": 1, "effort": "quick"}
    kept = run(**asked, metric=Scripted(1.0, 0.5, 0.5, 0.6, 0.5, 0.6))
    lost = run(**asked, metric=Scripted(1.0, 0.4, 0.5, 0.4, 0.5, 0.5))
    assert kept.refitted and not lost.refitted
    assert kept.fitted_on > lost.fitted_on


@pytest.mark.parametrize(
    ("best", "item", "worse"),
    [
        ((0.9, 1.0), (0.876, 9.0), False),
        ((0.9, 1.0), (0.874, 1.0), True),
        ((1.1, 1.0), (1.0, 9.0), False),
        ((1.0, 1.0), (0.999, 1.0), True),
        ((0.9, 1.0), (None, 1.0), True),
        ((None, 1.0), (None, 1.24), False),
        ((None, 1.0), (None, 1.26), True),
    ],
)
def test_stand_ins_are_held_to_the_metric(
    best: tuple[float | None, float], item: tuple[float | None, float], worse: bool
) -> None:
    """Of an original with 1.0: a stand-in may lose a quarter more than the best plan loses."""
    given: Any = SimpleNamespace(metric=SimpleNamespace(original=1.0))
    plans: Any = [SimpleNamespace(score=score, loss=loss) for score, loss in (item, best)]
    assert _choose._much_worse(given, *plans) is worse


@pytest.mark.parametrize(
    ("scores", "losses", "order"),
    [
        ((None, None, None), {"a-": 0.9, "b-": 0.8}, ["b-", "a-", "c"]),
        ((0.9, 0.89, 0.88), {"a-": 0.1, "b-": 0.2}, ["b-", "a", "c"]),
        ((None, None, None), {"a-": 0.9}, ["a-", "b", "c"]),
        ((None, None, None), {"a-": 1.05, "b-": 0.9}, ["b-", "a", "c"]),
    ],
)
def test_trimmed_plans_compete_with_those_that_need_all_they_have(
    scores: tuple[float | None, ...],
    losses: dict[str, float],
    order: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three plans, of which those with a loss for ``NAME-`` can be trimmed to that; a metric likes b- best."""
    liked = {"a-": 0.5, "b-": 0.95}
    plans = [SimpleNamespace(keys=(name,), basis="kl", measured=None) for name in "abc"]
    best = [
        _rank.Ranked(plan, SimpleNamespace(model=plan.keys[0]), 1.0 + number / 10, score)  # type: ignore[arg-type]
        for number, (plan, score) in enumerate(zip(plans, scores, strict=True))
    ]

    def trimmed(plan: Any, choices: Any, speedup: float) -> Any:
        name = f"{plan.keys[0]}-"
        return SimpleNamespace(keys=(name,), basis="kl") if name in losses else plan

    def judge(plan: Any, images: int) -> _rank.Ranked:
        (name,) = plan.keys
        return _rank.Ranked(plan, SimpleNamespace(model=name), losses[name], images=images)  # type: ignore[arg-type]

    monkeypatch.setattr(_choose, "judge_of", lambda *_: judge)
    metric = SimpleNamespace(original=1.0, score=lambda model: liked[model])
    job: Any = SimpleNamespace(
        **dict.fromkeys(("prepared", "validation", "seed")),
        fit_data=range(7),
        loop=SimpleNamespace(trimmed=trimmed),
        metric=None if scores[0] is None else metric,
        progress=lambda *_: None,
    )
    found = _choose._trimmed(job, best, {"kl": ()}, 1.5)
    assert [item.plan.keys[0] for item in found] == order
    assert all(item.images == 7 for item in found if item.plan.keys[0].endswith("-"))


def test_the_report_has_each_output_and_the_boxes(run: Run) -> None:
    report = run(decoder=images)
    (output,) = report.outputs
    assert report.validation is not None and output.name == "scores"
    assert output.kl == pytest.approx(report.validation.kl) and output.agreement == report.validation.agreement
    assert output.largest is not None and output.largest > 0
    assert report.boxes is not None and report.boxes.original == report.boxes.compressed == 8
    assert report.boxes.found == pytest.approx(report.validation.agreement)


def fails(*given: object) -> float:
    raise RuntimeError("no labels")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metric": "none.py:top1"}, "--metric: there is no script none.py"),
        ({"metric": fails}, "--metric fails failed .RuntimeError: no labels.; correct it"),
        ({"metric": lambda run: float("nan")}, "returned nan"),
        ({"decoder": "none.py:boxes"}, "--decoder: there is no script none.py"),
        ({"decoder": fails}, "--decoder fails failed.*no labels"),
        ({"decoder": lambda outputs: [3]}, "for image 0"),
        ({"decoder": images, "calib": None}, "--decoder compares detections on data; give --calib too"),
    ],
)
def test_mistakes_are_seen_before_anything_is_timed(
    options: dict[str, Any], said: str, run: Run, machine: Machine, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        run(profile=tmp_path / "empty.json", **options)
    assert caught.value.exit_code == 2 and not (tmp_path / "out.onnx").exists() and machine.built == 0


def test_a_metric_that_fails_on_the_result_leaves_nothing(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="returned nan"):
        run(rivals=1, metric=Scripted(1.0, float("nan")))
    assert not (tmp_path / "out.onnx").exists()


def test_fits_on_a_dozen_samples_are_told_from_fits_on_many(run: Run) -> None:
    few, many = (run(count, method="olm", speedup=1.3, rivals=1) for count in (32, 400))
    assert few.fits is not None and many.fits is not None
    assert (few.fits.samples, many.fits.samples) == (24, 300)
    assert few.fits.needed is not None and few.fits.ratio > many.fits.ratio and many.fits.needed is None
    (warning,) = [text for text in few.warnings if "their own samples" in text]
    assert "(now 32)" in warning and not any("their own samples" in text for text in many.warnings)


def test_drops_learn_nothing_by_heart(run: Run) -> None:
    assert run().fits is None


def test_how_many_samples_are_asked_for() -> None:
    check = FitCheck(96, 0.1, 0.3, 2.5, 0.01, 412)
    (split,) = overfitted(check, held_out=32, separate=False, samples=512)
    assert "held-out samples are typically 2.5 times" in split and "about 550 samples (now 128) and raise" in split
    (enough,) = overfitted(check, held_out=32, separate=False, samples=600)
    assert enough.endswith("(now 128)")
    (separate,) = overfitted(check, held_out=32, separate=True, samples=512)
    assert "the samples of --val are" in separate and "about 420 samples (now 96), of the kind" in separate
    fine = dataclasses.replace(check, needed=None)
    assert overfitted(None, held_out=1, separate=False, samples=9) == []
    assert overfitted(fine, held_out=8, separate=False, samples=9) == []
    (unknown,) = overfitted(dataclasses.replace(fine, samples=12), held_out=4, separate=False, samples=512)
    assert "4 held-out samples are too few" in unknown and "(now 16); if they do, it takes about 310" in unknown


def test_the_block_with_the_fewest_equations_is_named() -> None:
    def fits(**rows: float) -> Any:
        return {key: SimpleNamespace(rows_per_unknown=value) for key, value in rows.items()}

    assert underdetermined({}) == underdetermined(fits(a=5.0, b=80.0)) == []
    (said,) = underdetermined(fits(a=4.2, b=1.25, c=90.0))
    assert "block 'b' was fitted with 1.2 equations" in said and "give --calib more" in said


def test_plans_that_softmax_cannot_tell_apart_rank_by_relative_error() -> None:
    def ranked(key: str, loss: float, relative: float) -> Any:
        return _rank.Ranked(SimpleNamespace(keys=(key,)), None, loss, relative=relative)  # type: ignore[arg-type]

    items = [ranked("a", 0.0, 0.9), ranked("b", 1e-15, 0.2), ranked("c", 0.1, 0.1)]
    assert [item.plan.keys for item in sorted(items, key=_rank._order)] == [("b",), ("a",), ("c",)]


@pytest.fixture
def pair(run: Run, tmp_path: Path, machine: Machine) -> tuple[Path, Path]:
    run()
    machine.built = 0
    return tmp_path / "in.onnx", tmp_path / "out.onnx"


def test_verify_holds_the_metric_to_its_bound(pair: tuple[Path, Path]) -> None:
    held = verify(*pair, metric=Scripted(0.9, 0.85), gate=Gate(max_drop=0.06))
    assert held.passed and held.metric is not None and held.quality is None and held.outputs == ()
    missed = verify(*pair, metric=Scripted(0.9, 0.85), gate=Gate(max_drop=0.04))
    assert missed.failures == ("the metric fell by 0.05, from 0.9 to 0.85, more than 0.04",)


def test_verify_compares_outputs_and_boxes(pair: tuple[Path, Path]) -> None:
    net, _ = jobs.residual_net()
    same = verify(pair[0], pair[0], calib=jobs.samples(net), decoder=images)
    assert same.boxes is not None and same.boxes.f1 == 1 and same.outputs[0].largest == 0
    other = verify(*pair, calib=jobs.samples(net), decoder=images)
    assert other.quality is not None and other.outputs[0].agreement == other.quality.agreement


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gate": Gate(max_drop=0.1)}, "--max-drop bounds what a metric of your own may lose; give --metric too"),
        ({"decoder": images}, "--decoder compares the models' outputs on data; give --calib too"),
        ({"metric": fails}, "no labels"),
        ({"decoder": fails, "calib": True}, "no labels"),
    ],
)
def test_verify_refuses_before_anything_is_timed(
    options: dict[str, Any], said: str, pair: tuple[Path, Path], machine: Machine
) -> None:
    if "calib" in options:
        options = options | {"calib": jobs.samples(jobs.residual_net()[0])}
    with pytest.raises(UsageError, match=said):
        verify(*pair, **options)
    assert machine.built == 0


def test_a_fixed_batch_is_judged_too(machine: Machine, tmp_path: Path) -> None:
    """Ten of twelve samples were solved on, but the model takes four at once."""
    net, path = jobs.save(lambda: jobs.residual_net((4, 4, 6, 6)), tmp_path)
    calib, table = jobs.samples(net, 16), tmp_path / "t.json"
    report = compress(path, tmp_path / "out.onnx", speedup=1.3, calib=calib, rivals=1, profile=table)
    assert report.fits is not None and report.fits.samples == 12 and np.isfinite(report.fits.fit_loss)
