from __future__ import annotations

import math

import numpy as np
import pytest

from onnx_layermerge.importance import divergence
from onnx_layermerge.verify import FitCheck, fit_check, sample_losses


def least_squares(samples: int, unknowns: int, seed: int) -> FitCheck:
    """Losses of a fit of ``unknowns`` numbers to ``samples`` noisy equations, on its own and on new ones."""
    rng = np.random.default_rng(seed)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.standard_normal((count, unknowns))
        return x, x @ truth + rng.standard_normal(count)

    truth = rng.standard_normal(unknowns)
    x, y = draw(samples)
    solved = np.linalg.lstsq(x, y, rcond=None)[0]
    new_x, new_y = draw(4000)
    found = fit_check((y - x @ solved) ** 2, (new_y - new_x @ solved) ** 2, samples)
    assert found is not None
    return found


@pytest.mark.parametrize("samples", [100, 150])
def test_the_number_asked_for_is_where_a_fit_is_a_tenth_better_on_its_own(samples: int) -> None:
    """τ = 2D/n' to first order: D = 40 unknowns ask for about 40·(2 − τ)/τ = 760 samples, whatever there are."""
    asked = [least_squares(samples, 40, seed).needed for seed in range(20)]
    spoken = [number for number in asked if number is not None]
    assert len(spoken) >= 10 and 550 < np.median(spoken) < 1100
    enough = [least_squares(int(np.median(spoken)), 40, seed) for seed in range(20)]
    assert 1.0 < np.median([found.ratio for found in enough]) < 1.25


def test_it_is_silent_where_nothing_is_learned_by_heart() -> None:
    spoken = [least_squares(2000, 4, seed).needed is not None for seed in range(20)]
    assert sum(spoken) <= 2


def test_it_takes_few_samples_to_see_a_large_excess() -> None:
    """Twelve and four, where one fitted sample alone is worse than all held-out ones: the means say nothing."""
    fitted = np.array([9.0, *[0.01] * 11])
    found = fit_check(fitted, np.array([0.2, 0.3, 0.4, 0.5]), 12)
    assert found is not None and found.fit_loss > found.held_out_loss
    assert found.needed is not None and 12 < found.needed <= 19 * 12 and found.ratio == pytest.approx(35, rel=0.2)


def test_no_warning_by_chance_or_about_trifles() -> None:
    same = np.linspace(0.1, 1, 50)
    for held_out in (same, same * 1.05, same * 1.4, same * 0.5, np.array([0.9])):
        found = fit_check(same, held_out, 50)
        assert found is not None and found.needed is None
    exact = fit_check(np.zeros(20), np.zeros(20), 20)
    assert exact is not None and exact.needed is None and exact.ratio == 1


def test_outputs_that_are_not_finite_are_another_matter() -> None:
    assert fit_check(np.ones(4), np.array([1.0, math.inf]), 4) is None


def test_losses_of_single_samples_make_up_the_divergence() -> None:
    rng = np.random.default_rng(1)
    wanted = {"scores": rng.standard_normal((9, 5)).astype("f")}
    got = {"scores": wanted["scores"] + rng.standard_normal((9, 5)).astype("f") / 4}
    losses = sample_losses(wanted, got)
    assert losses.shape == (9,) and losses.mean() == pytest.approx(divergence(wanted, got).kl)
    maps = {"map": rng.standard_normal((4, 3, 2)).astype("f")}
    assert sample_losses(maps, {"map": 1.1 * maps["map"]}) == pytest.approx([0.01] * 4, rel=1e-4)
