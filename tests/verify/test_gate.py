from __future__ import annotations

import dataclasses

import pytest

from onnx_layermerge.importance import Divergence
from onnx_layermerge.latency import Ratio
from onnx_layermerge.verify import Gate, judge

SPEED = Ratio(1.5, 1.48, 1.52, 3e-3, 2e-3, 1.49, 40, "precise")
CLOSE = Divergence(kl=0.02, relative=0.01, agreement=0.97)


def test_a_gate_that_asks_nothing_is_passed() -> None:
    assert judge(Gate(), SPEED, None).passed


@pytest.mark.parametrize(
    ("gate", "failure"),
    [
        (Gate(min_speedup=1.48), None),
        (Gate(min_speedup=1.5), "speed-up 1.500× [1.480, 1.520]: the bound 1.5× is undecided within the interval"),
        (Gate(min_speedup=1.6), "speed-up 1.500× [1.480, 1.520]: the bound 1.6× is missed"),
        (Gate(min_agreement=0.97), None),
        (Gate(min_agreement=0.98), "agreement 97.0% is below 98.0%"),
        (Gate(max_kl=0.02), None),
        (Gate(max_kl=0.01), "divergence 0.0200 is above 0.01"),
    ],
)
def test_each_bound(gate: Gate, failure: str | None) -> None:
    verdict = judge(gate, SPEED, CLOSE)
    assert verdict.failures == (() if failure is None else (failure,)) and verdict.passed == (failure is None)


def test_bounds_on_quality_fail_without_data_and_on_what_is_no_number() -> None:
    gate = Gate(min_agreement=0.1, max_kl=10.0)
    assert len(judge(gate, SPEED, None).failures) == 2
    unknown = dataclasses.replace(CLOSE, agreement=float("nan"), kl=float("nan"))
    assert len(judge(gate, SPEED, unknown).failures) == 2


def test_every_failure_is_told() -> None:
    assert len(judge(Gate(2.0, 0.99, 0.001), SPEED, CLOSE).failures) == 3
