"""The program against an integer program of 400 binaries: one solver checks the other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnx_layermerge.plan import Choice, solve

highspy = pytest.importorskip("highspy")


def network(count: int, length: int, width: int, seed: int, *, whole: bool) -> list[Choice]:
    """Wider blocks save and cost more; losses are multiples of 2⁻¹⁶, so that their sums are exact."""
    rng = np.random.default_rng(seed)
    choices = []
    for number in range(count):
        start = int(rng.integers(0, length))
        stop = min(length, start + 1 + int(rng.integers(0, width)))
        saving_s = float(rng.uniform(5, 100)) * (stop - start)
        loss = float(rng.lognormal(-3, 1.2)) * (stop - start)
        if whole:
            saving_s = float(round(saving_s))
        choices.append(Choice(f"{number:03}", start, stop, saving_s, math.ceil(loss * 2**16) / 2**16))
    return choices


def least_loss(choices: list[Choice], savings: list[float], wanted: float) -> float:
    """min Σ d x  s.t.  Σ_{c covers p} x_c ≤ 1 for every position p,  Σ s x ≥ wanted,  x binary."""
    length = max(choice.stop for choice in choices)
    model = highspy.Highs()
    model.setOptionValue("output_flag", False)
    model.setOptionValue("threads", 1)
    model.setOptionValue("mip_rel_gap", 0.0)
    model.setOptionValue("mip_abs_gap", 0.0)
    for number, choice in enumerate(choices):
        model.addVar(0.0, 1.0)
        model.changeColCost(number, choice.loss)
        model.changeColIntegrality(number, highspy.HighsVarType.kInteger)
    for position in range(length):
        covering = [n for n, choice in enumerate(choices) if choice.start <= position < choice.stop]
        model.addRow(-math.inf, 1.0, len(covering), np.array(covering, np.int32), np.ones(len(covering)))
    model.addRow(wanted, math.inf, len(choices), np.arange(len(choices), dtype=np.int32), np.array(savings))
    model.run()
    assert model.getModelStatus() == highspy.HighsModelStatus.kOptimal
    values = np.rint(model.getSolution().col_value[: len(choices)])
    return math.fsum(choice.loss for choice, value in zip(choices, values, strict=True) if value == 1)


@pytest.mark.parametrize(("length", "width", "seed"), [(60, 8, 0), (120, 5, 1)])
def test_400_choices_with_whole_savings_agree_to_the_last_digit(length: int, width: int, seed: int) -> None:
    choices = network(400, length, width, seed, whole=True)
    best = int(solve(choices, steps=1).best_saving)
    frontier = solve(choices, steps=best)
    assert frontier.unit_s == 1.0
    for wanted in [1, *(round(best * share) for share in (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)), best]:
        found = frontier.at(wanted)
        assert found is not None and found.saving_s >= wanted
        expected = least_loss(choices, [choice.saving_s for choice in choices], wanted)
        assert found.loss == pytest.approx(expected, rel=0, abs=1e-9)


def test_400_choices_with_real_savings_lie_between_the_true_and_the_rounded_optimum() -> None:
    choices = network(400, 60, 8, seed=2, whole=False)
    steps = 500  # coarse, so that the two bounds differ
    frontier = solve(choices, steps=steps)
    rounded = [float(math.floor(choice.saving_s * steps / frontier.best_saving)) for choice in choices]
    gaps = []
    for level in (50, 125, 250, 375):
        wanted = level * frontier.unit_s
        found = frontier.at(wanted)
        assert found is not None and found.saving_s >= wanted
        lower = least_loss(choices, [choice.saving_s for choice in choices], wanted)
        upper = least_loss(choices, rounded, level)
        assert lower - 1e-9 <= found.loss <= upper + 1e-9
        gaps.append(upper - lower)
    assert max(gaps) > 0
