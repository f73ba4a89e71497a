"""Weights of a given rank: the best there are, in the measure of the data."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_layermerge.fit import Gram, Job, Target, fit_conv, fit_jobs, fit_ranks
from onnx_layermerge.merge import Geometry
from tests.fit.problems import PLAIN, Problem

CASES = {
    "plain": (Problem(wide=6, out=7, rank=3), 3),
    "strided": (Problem(Geometry((3, 3), (2, 2), (1, 1), (1, 1)), images=60, out=6, rank=2), 2),
    "asymmetric": (Problem(Geometry((4, 2), (2, 1), (0, 1), (2, 0)), images=40, out=6, rank=2), 2),
    "line": (Problem(Geometry((5,), (1,), (2,), (2,)), images=80, rank=2), 2),
    "pointwise": (Problem(Geometry((1, 1), (1, 1), (0, 0), (0, 0)), wide=6, out=9, rank=4), 4),
    "grouped": (Problem(wide=6, out=8, groups=2, rank=2), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_a_convolution_of_low_rank_is_recovered(name: str) -> None:
    problem, rank = CASES[name]
    fit = fit_conv(problem.gram(), problem.target(), alphas=(1e-9,), rank=rank)
    np.testing.assert_allclose(fit.weight.reshape(problem.weight.shape), problem.weight, rtol=0, atol=1e-4)
    np.testing.assert_allclose(fit.bias, problem.bias, rtol=0, atol=3e-4)
    assert fit.error < 1e-9
    worse = fit_conv(problem.gram(), problem.target(), alphas=(1e-9,), rank=rank - 1)
    assert worse.error > 1e-3
    # By groups: each is a problem of its own.
    groups = worse.weight.reshape(problem.stage.groups, -1, worse.weight.shape[1])
    assert [np.linalg.matrix_rank(group, tol=1e-6) for group in groups] == [rank - 1] * problem.stage.groups


@pytest.mark.parametrize("rank", [5, 8])
def test_the_full_rank_is_the_ridge_solution(rank: int) -> None:
    problem, prior = Problem(), np.random.default_rng(1).standard_normal((5, 36))
    noisy = problem.target().value + np.random.default_rng(0).standard_normal(problem.target().value.shape)
    plain = fit_conv(problem.gram(), Target(noisy, low=0.0), alphas=(0.1,), prior=prior)
    whole = fit_conv(problem.gram(), Target(noisy, low=0.0), alphas=(0.1,), prior=prior, rank=rank)
    np.testing.assert_array_equal(whole.weight, plain.weight)
    assert whole.error == plain.error


def loss(gram: Gram, cross: np.ndarray, alpha: float, prior: np.ndarray, weight: np.ndarray) -> float:
    """tr WᵀAW − 2 tr WᵀB + λ‖W − W0‖²: the squared error and the ridge but for what no W changes."""
    fit = np.sum(weight * (gram.matrix[0] @ weight)) - 2 * np.sum(weight * cross)
    return float(fit + gram.ridge(alpha).item() * np.sum((weight - prior) ** 2))


@pytest.mark.parametrize("alpha", [1e-3, 1.0])
def test_no_alternating_search_finds_a_better_one(alpha: float) -> None:
    problem, rank, rng = Problem(wide=3, out=6, images=30), 2, np.random.default_rng(4)
    gram, prior = problem.gram(0), rng.standard_normal((1, 27, 6))
    moments = gram.cross(problem.target().value[None] + rng.standard_normal((1, len(problem.places()), 6)))
    main = gram.directions(moments, alpha, prior, gram.solve(moments, alpha, prior)[0])[:, :, -rank:]
    weight, bias = gram.solve(moments, alpha, prior, main)
    found = loss(gram, moments[0][0], alpha, prior[0], weight[0])
    matrix = gram.matrix[0] + gram.ridge(alpha).item() * np.eye(27)
    wanted = moments[0][0] + gram.ridge(alpha).item() * prior[0]
    losses = []
    for _ in range(4):
        inner = rng.standard_normal((27, rank))
        for _ in range(300):
            outer = np.linalg.solve(inner.T @ matrix @ inner, inner.T @ wanted)
            inner = np.linalg.solve(matrix, wanted) @ outer.T @ np.linalg.inv(outer @ outer.T)
        losses.append(loss(gram, moments[0][0], alpha, prior[0], inner @ outer))
    assert found <= min(losses) + 1e-9 * abs(found) and found == pytest.approx(min(losses), rel=1e-6)
    np.testing.assert_allclose(bias, moments[1] - gram.mean @ weight, rtol=0, atol=1e-12)
    # The truncated singular values of the solution itself are another, worse answer: the metric matters.
    left, values, right = np.linalg.svd(gram.solve(moments, alpha, prior)[0][0])
    plain = (left[:, :rank] * values[:rank]) @ right[:rank]
    assert loss(gram, moments[0][0], alpha, prior[0], plain) > found + 1e-3 * abs(found)


@pytest.mark.parametrize("bounds", [(0.0, np.inf), (0.0, 6.0)])
@pytest.mark.parametrize("with_skip", [False, True])
def test_rounds_behind_the_activation_keep_the_rank_and_help(bounds: tuple[float, float], with_skip: bool) -> None:
    problem = Problem(images=12, out=8, seed=5)
    skip = np.random.default_rng(2).standard_normal(problem.y.shape) if with_skip else None
    rows = problem.target(problem.y if skip is None else problem.y + skip).value
    skips = None if skip is None else problem.target(skip).value
    plain = fit_conv(problem.gram(0), Target(rows, skips), alphas=(1e-3,), rank=3)
    aware = fit_conv(problem.gram(0), Target(rows, skips, *bounds), alphas=(1e-3,), rank=3)
    patches = problem.gram(0)
    inputs = patches.rows[0] + patches.mean[0]

    def behind(weight: np.ndarray, bias: np.ndarray) -> float:
        guess = inputs @ weight.T + bias + (0 if skips is None else skips)
        return float(((np.clip(guess, *bounds) - np.clip(rows, *bounds)) ** 2).sum())

    assert np.linalg.matrix_rank(aware.weight, tol=1e-6) == 3
    assert behind(aware.weight, aware.bias) < 0.99 * behind(plain.weight, plain.bias)
    spread = ((np.clip(rows, *bounds) - np.clip(rows, *bounds).mean(axis=0)) ** 2).sum()
    assert aware.error == pytest.approx(behind(aware.weight, aware.bias) / spread, rel=1e-4)


def test_a_job_has_the_rank_and_the_weights_to_stay_near_from_its_candidate() -> None:
    problem = Problem(PLAIN, out=6, images=40)
    prior = np.random.default_rng(0).standard_normal((6, 36))
    site = problem.job().site
    jobs = [
        Job("near", "x", problem.stage, site, rank=2, prior=prior),
        Job("far", "x", problem.stage, site, rank=2),
        problem.job("plain"),
    ]
    fits = fit_jobs(jobs, problem.runs(), images=40, alphas=(1e9,))
    left, values, right = np.linalg.svd(prior, full_matrices=False)
    np.testing.assert_allclose(fits["near"].weight, (left[:, :2] * values[:2]) @ right[:2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(fits["far"].weight, 0, atol=1e-6)
    # Where nothing says otherwise, weights that there were before are trusted more than none.
    usual = fit_jobs(jobs, problem.runs(), images=40)
    assert usual["near"].alpha == 1e-2 and usual["far"].alpha == 1e-3
    assert usual["plain"].error < usual["far"].error < 1


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0.0, 6.0)])
def test_ranks_side_by_side_are_those_of_each_alone(bounds: tuple[float, float]) -> None:
    problem, prior = Problem(out=6), np.random.default_rng(1).standard_normal((6, 36))
    target = Target(problem.target().value + np.float32(0.5), None, *bounds)
    together = fit_ranks(problem.gram(), target, (2, None, 4, 9), alphas=(1e-2, 1.0), prior=prior)
    for rank, fit in zip((2, None, 4, 9), together, strict=True):
        alone = fit_conv(problem.gram(), target, alphas=(1e-2, 1.0), prior=prior, rank=rank)
        np.testing.assert_array_equal(fit.weight, alone.weight)
        assert (fit.error, fit.alpha) == (alone.error, alone.alpha)
    errors = [together[0].error, together[2].error, together[1].error]
    assert errors == sorted(errors, reverse=True) and together[3].error == together[1].error


def test_jobs_that_differ_in_rank_alone_are_solved_together(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(PLAIN, out=6, images=40)
    prior, site = np.random.default_rng(0).standard_normal((6, 36)), problem.job().site
    jobs = [Job(f"rank {rank}", "x", problem.stage, site, rank=rank, prior=prior.copy()) for rank in (1, 2, 3)]
    jobs.append(Job("other weights", "x", problem.stage, site, rank=2, prior=prior + 1))
    solved: list[np.ndarray] = []
    solve = Gram._solve
    monkeypatch.setattr(Gram, "_solve", lambda self, alpha, cross: solved.append(cross) or solve(self, alpha, cross))
    together = fit_jobs(jobs, problem.runs(), images=40, alphas=(1e-2,))
    assert len(solved) == 2
    for job in jobs:
        alone = fit_jobs([job], problem.runs(), images=40, alphas=(1e-2,))[job.key]
        np.testing.assert_array_equal(together[job.key].weight, alone.weight)
