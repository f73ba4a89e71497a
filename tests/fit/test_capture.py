"""Jobs fitted from runs of models: what they see, what they share, and that they agree with the plain solution."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_layermerge.candidates import Stage
from onnx_layermerge.errors import DataError
from onnx_layermerge.fit import Job, _capture, fit_conv, fit_jobs
from onnx_layermerge.merge import Geometry
from tests.fit.problems import PLAIN, Problem

TINY = (1e-9,)


@pytest.mark.parametrize(
    "geometry", [PLAIN, Geometry((3, 3), (2, 2), (0, 1), (1, 0)), Geometry((1, 1), (2, 2), (0, 0), (0, 0))]
)
@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_is_recovered_from_runs(geometry: Geometry, groups: int) -> None:
    problem = Problem(geometry, wide=4, out=4, groups=groups, images=40)
    fit = fit_jobs([problem.job()], problem.runs(), images=40, alphas=TINY)["j"]
    np.testing.assert_allclose(fit.weight.reshape(problem.weight.shape), problem.weight, rtol=0, atol=1e-4)
    np.testing.assert_allclose(fit.bias, problem.bias, rtol=0, atol=3e-4)
    assert fit.error < 1e-8


def test_jobs_that_share_an_entry_do_not_disturb_each_other() -> None:
    problem = Problem(images=40)
    small = Job("small", "x", Stage(4, 5, Geometry((1, 1), (1, 1), (0, 0), (0, 0))), problem.job().site)
    jobs = [problem.job("one"), small, problem.job("bent", bounds=(0.0, np.inf))]
    together = fit_jobs(jobs, problem.runs(), images=40)
    assert set(together) == {"one", "small", "bent"}
    for job in jobs:
        alone = fit_jobs([job], problem.runs(), images=40)[job.key]
        assert alone.error == pytest.approx(together[job.key].error, rel=0.2, abs=1e-5)
    assert together["one"].error < together["small"].error


def test_what_arrives_when_deployed_is_what_is_fitted_on() -> None:
    """The compressed prefix hands over 2x − 1 under another name; the weights have to undo that."""
    problem = Problem(Geometry((1, 1), (1, 1), (0, 0), (0, 0)), images=20)

    runs = problem.runs(deployed={"elsewhere": 2 * problem.x - 1})
    fit = fit_jobs([problem.job()], runs, entry="elsewhere", images=20, alphas=TINY)["j"]
    np.testing.assert_allclose(fit.weight.reshape(problem.weight.shape), problem.weight / 2, rtol=0, atol=1e-4)
    np.testing.assert_allclose(fit.bias, problem.bias + problem.weight.sum(axis=(1, 2, 3)) / 2, rtol=0, atol=3e-4)


def test_the_skip_is_the_deployed_one_under_its_own_name() -> None:
    problem = Problem(images=30)
    rng = np.random.default_rng(0)
    skip, drifted = (rng.standard_normal(problem.y.shape) for _ in range(2))

    original = {"y": problem.y + skip, "s": skip}
    # What is added behind the convolution drifted by a constant; the bias can make up for it.
    deployed = {"x": problem.x, "renamed": skip + 0.25, "s": drifted}
    runs = problem.runs(original, deployed)
    fit = fit_jobs([problem.job(skip="s")], runs, skips={"s": "renamed"}, images=30, alphas=TINY)["j"]
    np.testing.assert_allclose(fit.weight.reshape(problem.weight.shape), problem.weight, rtol=0, atol=1e-4)
    np.testing.assert_allclose(fit.bias, problem.bias - 0.25, rtol=0, atol=3e-4)


def test_no_more_images_than_asked_are_run() -> None:
    runs = Problem(images=40).runs(size=5)
    fit_jobs([Problem().job()], runs, images=12)
    assert len(list(runs)) == 5  # of eight batches three were taken


def test_fewer_images_than_hoped_for_are_enough() -> None:
    problem = Problem(images=24)
    fit = fit_jobs([problem.job()], problem.runs(), images=500, alphas=TINY)["j"]
    np.testing.assert_allclose(fit.weight.reshape(problem.weight.shape), problem.weight, rtol=0, atol=1e-4)


def test_features_that_do_not_fit_in_memory_are_kept_as_patches_of_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(images=40)
    wide = Job("wide", "x", Stage(4, 5, Geometry((1, 1), (1, 1), (0, 0), (0, 0))), problem.job().site)
    jobs = [problem.job("one"), wide, problem.job("bent", bounds=(0.0, np.inf))]
    whole = fit_jobs(jobs, problem.runs(size=7), images=40)
    monkeypatch.setattr(_capture, "FEATURE_BYTES", 5 * problem.x[0].size * 4)
    parts = fit_jobs(jobs, problem.runs(size=7), images=40)
    for key, fit in whole.items():
        assert parts[key].images == fit.images == 40
        np.testing.assert_array_equal(parts[key].weight, fit.weight)
    # Where patches are too large as well, fewer images have to do.
    monkeypatch.setattr(_capture, "PATCH_BYTES", 0)
    few = fit_jobs(jobs, problem.runs(size=7), images=40)
    assert {fit.images for fit in few.values()} == {5}


def test_a_single_image_is_fitted_and_judged_on_itself() -> None:
    problem = Problem(Geometry((1, 1), (1, 1), (0, 0), (0, 0)), images=1)
    fit = fit_jobs([problem.job()], problem.runs(), images=1, alphas=TINY)["j"]
    assert fit.error < 1e-8


def test_runs_repeat_with_the_seed() -> None:
    problem = Problem(images=30)
    fits = [
        fit_jobs([problem.job()], problem.runs(), images=30, seed=seed, rows_per_unknown=1)["j"]
        for seed in (1, 1)
    ]
    np.testing.assert_array_equal(fits[0].weight, fits[1].weight)


@pytest.mark.parametrize("kernel", [1, 3])
def test_all_but_the_duplicate_channels_are_enough(kernel: int) -> None:
    pad = (kernel // 2,) * 2
    problem = Problem(
        Geometry((kernel, kernel), (1, 1), pad, pad), wide=8, images=60, copies={5: 1, 6: 3}
    )
    site = problem.job().site
    jobs = [Job(f"w{width}", "x", problem.stage, site, width=width) for width in (6, 4)]
    fits = fit_jobs(jobs, problem.runs(), images=60, alphas=(1e-7,))
    kept = fits["w6"].kept
    assert kept is not None and kept.tolist() == sorted(kept.tolist()) and len(kept) == 6
    assert len({1, 5} & set(kept.tolist())) == 1 and len({3, 6} & set(kept.tolist())) == 1
    assert fits["w6"].error < 1e-6 < fits["w4"].error
    assert fits["w6"].weight.shape == (5, 6 * kernel * kernel)
    smaller = fits["w4"].kept
    assert smaller is not None and set(smaller.tolist()) < set(kept.tolist())  # one order serves every width


def test_a_width_of_everything_is_the_plain_fit() -> None:
    problem = Problem(images=40)
    jobs = [Job("all", "x", problem.stage, problem.job().site, width=4), problem.job("plain")]
    fits = fit_jobs(jobs, problem.runs(), images=40, alphas=(1e-2,))
    np.testing.assert_allclose(fits["all"].weight, fits["plain"].weight, rtol=0, atol=1e-5)
    assert fits["all"].kept is not None and fits["all"].kept.tolist() == [0, 1, 2, 3]


def test_a_width_stays_near_the_weights_that_read_its_channels() -> None:
    problem = Problem(images=40)
    prior = np.random.default_rng(0).standard_normal((5, 36))
    job = Job("near", "x", problem.stage, problem.job().site, width=3, prior=prior)
    fit = fit_jobs([job], problem.runs(), images=40, alphas=(1e9,))["near"]
    assert fit.kept is not None
    columns = (fit.kept[:, None] * 9 + np.arange(9)).ravel()
    np.testing.assert_allclose(fit.weight, prior[:, columns], rtol=0, atol=1e-6)


def test_a_job_agrees_with_the_solution_on_all_rows() -> None:
    problem = Problem(images=30)
    plain = fit_conv(problem.gram(6), problem.target(), alphas=(1e-2,))
    fit = fit_jobs([problem.job()], problem.runs(), images=30, alphas=(1e-2,))["j"]
    np.testing.assert_allclose(fit.weight, plain.weight, rtol=0, atol=2e-2)


@pytest.mark.parametrize("where", ["x", "y"])
def test_what_is_no_number_inside_the_original_is_an_error_that_names_it(where: str) -> None:
    """Of one sample of forty, though the outputs may be fine; in the deployed model it is the plan's own fault."""
    problem = Problem(images=40)
    spoilt = {"x": problem.x.copy(), "y": problem.y.copy()}
    spoilt[where][33, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match=rf"'{where}' is NaN or infinite for 1 of samples \d+ to \d+ of .*: leave"):
        fit_jobs([problem.job()], problem.runs(spoilt), images=40)
