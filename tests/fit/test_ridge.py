from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from onnx_layermerge.fit import Gram, Target, fit_conv
from onnx_layermerge.merge import Geometry
from tests.fit.problems import PLAIN, Problem

TINY = (1e-9,)

CASES = {
    "plain": Problem(),
    "strided": Problem(Geometry((3, 3), (2, 2), (1, 1), (1, 1)), images=60),
    "asymmetric": Problem(Geometry((4, 2), (2, 1), (0, 1), (2, 0)), images=40),
    "depthwise": Problem(wide=4, out=4, groups=4),
    "grouped": Problem(wide=6, out=4, groups=2),
    "line": Problem(Geometry((5,), (1,), (2,), (2,)), images=60),
    "pointwise": Problem(Geometry((1, 1), (1, 1), (0, 0), (0, 0))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_convolution_is_recovered(name: str) -> None:
    problem = CASES[name]
    fit = fit_conv(problem.gram(), problem.target(), alphas=TINY)
    np.testing.assert_allclose(fit.weight.reshape(problem.weight.shape), problem.weight, rtol=0, atol=1e-4)
    np.testing.assert_allclose(fit.bias, problem.bias, rtol=0, atol=3e-4)
    assert fit.error < 1e-9 and fit.alpha == TINY[0] and fit.kept is None


def test_the_solution_is_the_ridge_in_centred_moments() -> None:
    problem, alpha = CASES["plain"], 0.3
    gram, target = problem.gram(0), problem.target()
    rows = gram.rows[0].astype(np.float64) + gram.mean[0]
    noisy = target.value + np.random.default_rng(0).standard_normal(target.value.shape)
    prior = np.random.default_rng(1).standard_normal((5, 36))
    fit = fit_conv(gram, Target(noisy), alphas=(alpha,), prior=prior)
    centred, mean = rows - rows.mean(axis=0), noisy.mean(axis=0)
    matrix = centred.T @ centred / len(rows)
    ridge = alpha * np.trace(matrix) / len(matrix)
    cross = centred.T @ (noisy - mean) / len(rows) + ridge * prior.T
    weight = np.linalg.solve(matrix + ridge * np.eye(len(matrix)), cross)
    np.testing.assert_allclose(fit.weight, weight.T, rtol=0, atol=2e-5)
    np.testing.assert_allclose(fit.bias, mean - rows.mean(axis=0) @ weight, rtol=0, atol=1e-4)


def test_a_huge_ridge_returns_the_prior() -> None:
    problem = CASES["plain"]
    prior = np.random.default_rng(3).standard_normal((5, 36))
    fit = fit_conv(problem.gram(), problem.target(), alphas=(1e9,), prior=prior)
    np.testing.assert_allclose(fit.weight, prior, rtol=0, atol=1e-6)
    none = fit_conv(problem.gram(), problem.target(), alphas=(1e9,))
    np.testing.assert_allclose(none.weight, 0, atol=1e-6)
    # What is left without weights is the mean: the error is the whole spread.
    assert none.error == pytest.approx(1.0, abs=0.02)


def test_a_constant_entry_gives_the_mean_of_the_target() -> None:
    rows = np.full((1, 40, 9), 3.0, np.float32)
    values = np.arange(40.0).reshape(40, 1)
    fit = fit_conv(Gram(rows, 0), Target(values), alphas=TINY)
    np.testing.assert_allclose(fit.weight, 0, atol=1e-12)
    np.testing.assert_allclose(fit.bias, values.mean(), rtol=1e-6)


def test_a_constant_target_has_no_error_to_speak_of() -> None:
    problem = CASES["plain"]
    fit = fit_conv(problem.gram(), Target(np.full((len(problem.places()), 5), 2.0)), alphas=TINY)
    np.testing.assert_allclose(fit.weight, 0, atol=1e-6)
    np.testing.assert_allclose(fit.bias, 2.0, rtol=1e-6)
    assert fit.error == 0.0


def test_the_error_is_that_of_images_that_were_not_fitted() -> None:
    problem = Problem(images=8)
    target = problem.target()
    values = target.value.copy()
    per_image = len(values) // 8
    values[-2 * per_image :] = np.random.default_rng(0).standard_normal((2 * per_image, 5))
    fit = fit_conv(problem.gram(2), Target(values), alphas=TINY)
    # The weights come from the first six images only ...
    np.testing.assert_allclose(fit.weight.reshape(problem.weight.shape), problem.weight, rtol=0, atol=1e-4)
    # ... and the error from the last two, where the target has nothing to do with the entry.
    held = values[-2 * per_image :]
    guess = target.value[-2 * per_image :]
    wanted = ((guess - held) ** 2).sum() / ((held - held.mean(axis=0)) ** 2).sum()
    assert fit.error == pytest.approx(wanted, rel=1e-3)


def test_the_ridge_is_chosen_on_the_held_out_images() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1, 300, 30)).astype(np.float32)
    # Nearly all noise: a strong ridge generalises better than a weak one.
    values = rows[0, :, :1] * 0.05 + rng.standard_normal((300, 1))
    errors = {}
    for alpha in (1e-3, 10.0):
        errors[alpha] = fit_conv(Gram(rows.copy(), 100), Target(values), alphas=(alpha,)).error
    chosen = fit_conv(Gram(rows.copy(), 100), Target(values), alphas=(1e-3, 10.0))
    assert errors[10.0] < errors[1e-3]
    assert (chosen.alpha, chosen.error) == (10.0, errors[10.0])


def test_few_rows_trust_only_the_strongest_ridge() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1, 4 * 30, 30)).astype(np.float32)
    fit = fit_conv(Gram(rows, 0), Target(rows[0, :, :1].copy()), alphas=(1e-6, 1e-1))
    assert fit.alpha == 1e-1 and fit.rows_per_unknown == 4


@pytest.mark.parametrize("bounds", [(0.0, np.inf), (0.0, 6.0), (-1.0, 1.0)])
@pytest.mark.parametrize("with_skip", [False, True])
def test_rounds_behind_the_activation_never_harm(bounds: tuple[float, float], with_skip: bool) -> None:
    """A 1×1 kernel cannot be the 3×3 one; behind the activation it need not be where the activation is flat."""
    problem = Problem(images=12, seed=5)
    small = Problem(Geometry((1, 1), (1, 1), (0, 0), (0, 0)), images=12, seed=5)
    skip = np.random.default_rng(2).standard_normal(problem.y.shape) if with_skip else None
    value = problem.y if skip is None else problem.y + skip
    rows = problem.target(value).value
    skips = None if skip is None else problem.target(skip).value
    plain = fit_conv(small.gram(0), Target(rows, skips), alphas=(1e-3,))
    aware = fit_conv(small.gram(0), Target(rows, skips, *bounds), alphas=(1e-3,))
    patches = small.gram(0)
    inputs = patches.rows[0] + patches.mean[0]

    def behind(fit: object) -> float:
        guess = inputs @ fit.weight.T + fit.bias + (0 if skips is None else skips)  # type: ignore[attr-defined]
        return float(((np.clip(guess, *bounds) - np.clip(rows, *bounds)) ** 2).sum())

    assert behind(aware) < 0.999 * behind(plain)
    spread = ((np.clip(rows, *bounds) - np.clip(rows, *bounds).mean(axis=0)) ** 2).sum()
    assert aware.error == pytest.approx(behind(aware) / spread, rel=1e-4)


def test_the_skip_is_taken_off_the_target() -> None:
    problem = CASES["plain"]
    skip = np.random.default_rng(0).standard_normal(problem.y.shape)
    target = dataclasses.replace(problem.target(problem.y + skip), skip=problem.target(skip).value)
    fit = fit_conv(problem.gram(), target, alphas=TINY)
    np.testing.assert_allclose(fit.weight.reshape(problem.weight.shape), problem.weight, rtol=0, atol=1e-4)
    assert fit.error < 1e-9


def test_some_columns_of_a_gram_are_the_gram_of_some_columns() -> None:
    problem = Problem(PLAIN, images=6)
    gram, columns = problem.gram(1), np.array([0, 3, 4, 17, 30])
    raw = (gram.rows + gram.mean)[:, :, columns].astype(np.float32)
    direct, part = Gram(raw, gram.held_out), gram.subset(columns)
    np.testing.assert_allclose(part.matrix, direct.matrix, rtol=0, atol=1e-5)
    np.testing.assert_allclose(part.mean, direct.mean, rtol=0, atol=1e-6)
    target = problem.target()
    np.testing.assert_allclose(fit_conv(part, target).weight, fit_conv(direct, target).weight, rtol=0, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("with_prior", [False, True])
def test_few_rows_have_the_solution_of_the_normal_equations(groups: int, with_prior: bool) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((groups, 20, 70)).astype(np.float32)
    gram = Gram(rows.copy(), 4)
    prior = rng.standard_normal((groups, 70, 3)) if with_prior else None
    moments = gram.cross(rng.standard_normal((groups, 16, 3)))
    weight, bias = gram.solve(moments, 0.1, prior)
    assert gram.by_rows and "matrix" not in vars(gram)  # A would have 70 x 70 entries for each group
    system = gram.matrix + gram.ridge(0.1) * np.eye(70)
    wanted = moments[0] + (0 if prior is None else gram.ridge(0.1) * prior)
    np.testing.assert_allclose(np.matmul(system, weight), wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(bias, moments[1] - np.matmul(gram.mean, weight), rtol=0, atol=1e-12)
    np.testing.assert_allclose(gram.power, np.trace(gram.matrix, axis1=1, axis2=2) / 70, rtol=1e-6)
    part = gram.subset(np.arange(40)) if groups == 1 else gram
    assert part.by_rows is (groups > 1)  # 40 columns are not three times as many as 16 rows
    size = part.rows.shape[2]
    np.testing.assert_allclose(part.matrix, gram.matrix[:, :size, :size], rtol=0, atol=1e-6)


def test_what_cannot_be_fitted_is_refused() -> None:
    problem = CASES["depthwise"]
    with pytest.raises(ValueError, match="4 groups, 5 channels"):
        fit_conv(problem.gram(), Target(np.zeros((len(problem.places()), 5))))
    with pytest.raises(ValueError, match="ridge strengths"):
        fit_conv(problem.gram(), problem.target(), alphas=())
