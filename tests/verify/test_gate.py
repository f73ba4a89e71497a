from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from onnx_layermerge.importance import Divergence
from onnx_layermerge.latency import Ratio
from onnx_layermerge.verify import Compared, Gate, MetricValues, compared, judge

SPEED = Ratio(1.5, 1.48, 1.52, 3e-3, 2e-3, 1.49, 40, "precise")
CLOSE = Compared(Divergence(kl=0.02, relative=0.01, agreement=0.97), (), None)
METRIC = MetricValues("top1", 0.75, 0.7)


def test_a_gate_that_asks_nothing_is_passed() -> None:
    assert judge(Gate(), SPEED, None).passed


@pytest.mark.parametrize(
    ("gate", "failure"),
    [
        (Gate(min_speedup=1.48), None),
        (Gate(min_speedup=1.6), "speed-up 1.5× [1.48, 1.52]: the bound 1.6× is missed"),
        (Gate(min_saving_ms=0.97), None),
        (Gate(min_saving_ms=1.03), "saving 1 ms [0.973, 1.026]: the bound 1.03 ms is missed"),
        (Gate(min_agreement=0.97), None),
        (Gate(min_agreement=0.98), "agreement 97.0% is below 98.0%"),
        (Gate(max_kl=0.02), None),
        (Gate(max_kl=0.01), "divergence 0.0200 is above 0.01"),
        (Gate(max_drop=0.051), None),
        (Gate(max_drop=0.049), "the metric fell by 0.05, from 0.75 to 0.7, more than 0.049"),
    ],
)
def test_each_bound(gate: Gate, failure: str | None) -> None:
    verdict = judge(gate, SPEED, CLOSE, metric=METRIC)
    assert verdict.failures == (() if failure is None else (failure,)) and verdict.passed == (failure is None)


def test_agreement_of_what_is_no_class_score_is_no_pass() -> None:
    values = dataclasses.replace(CLOSE, divergence=Divergence(0.02, 0.02, float("nan")))
    (said,) = judge(Gate(min_agreement=0.0, max_kl=0.1), SPEED, values).failures
    assert said.startswith("agreement was not measured, as no output") and "--metric agreement:FILE.npz" in said


def test_bounds_on_quality_fail_without_data_and_on_what_is_no_number() -> None:
    gate = Gate(min_agreement=0.1, max_kl=10.0, max_drop=1.0)
    assert len(judge(gate, SPEED, None).failures) == 3
    unknown = dataclasses.replace(CLOSE, divergence=Divergence(float("nan"), 0.0, float("nan")))
    assert len(judge(gate, SPEED, unknown).failures) == 3


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_an_output_that_is_no_number_fails_whatever_is_asked() -> None:
    good = np.ones((4, 3), np.float32)
    for broken in (np.full_like(good, np.nan), np.where(np.eye(4, 3) > 0, np.inf, good), good[:, :2]):
        for wanted, got in ((good, broken), (broken, good)):
            found = compared({"y": wanted, "z": good}, {"y": got.astype(np.float32), "z": good})
            (said,) = judge(Gate(), SPEED, found).failures
            assert said.startswith("output 'y' holds NaN or Inf in one of the models")
    assert judge(Gate(), SPEED, compared({"y": good}, {"y": np.float32(1e30) * good})).passed


def test_a_metric_that_rises_is_no_drop() -> None:
    better = MetricValues("top1", 0.7, 0.75)
    assert better.drop == pytest.approx(-0.05) and judge(Gate(max_drop=0.0), SPEED, None, metric=better).passed


def test_every_failure_is_told() -> None:
    assert len(judge(Gate(2.0, 0.99, 0.001, 0.01), SPEED, CLOSE, metric=METRIC).failures) == 4


@pytest.mark.parametrize(
    ("reason", "told"), [("cap", "--time-cap"), ("precise", "ask for less"), ("rounds", "after 40 rounds")]
)
def test_a_bound_within_the_interval_is_undecided_and_says_why(reason: str, told: str) -> None:
    noisy = dataclasses.replace(SPEED, stop_reason=reason)
    for gate in (Gate(min_speedup=1.5), Gate(min_saving_ms=1.0)):
        verdict = judge(gate, noisy, None, cap_s=12.0)
        assert verdict.undecided and not verdict.passed
        (failure,) = verdict.failures
        assert "is undecided" in failure and told in failure
        assert ("12 s" in failure) == (reason == "cap")


def test_what_is_missed_or_met_is_not_undecided() -> None:
    assert not judge(Gate(min_speedup=1.6), SPEED, None).undecided
    assert not judge(Gate(min_speedup=1.48), SPEED, None).undecided


def test_a_slower_model_saves_less_than_nothing() -> None:
    slower = Ratio(0.5, 0.49, 0.51, 1e-3, 2e-3, 0.5, 40, "precise")
    middle, low, high = judge(Gate(), slower, None).saving_ms
    assert middle == pytest.approx(-1.0) and low < middle < high < 0
    assert not judge(Gate(min_saving_ms=0.0), slower, None).passed
