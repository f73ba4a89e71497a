from __future__ import annotations

import math

import pytest
from scipy import stats

from onnx_layermerge.errors import UsageError
from onnx_layermerge.latency._statistics import (
    StopRule,
    median_interval,
    median_rank,
    percentile,
    summarize,
)


@pytest.mark.parametrize("n", [6, 7, 10, 15, 16, 30, 61, 200, 1023, 1024, 1600, 5000])
def test_rank_is_the_largest_that_covers_95_percent(n: int) -> None:
    k = median_rank(n)
    assert 1 - 2 * stats.binom.cdf(k - 1, n, 0.5) >= 0.95
    assert 1 - 2 * stats.binom.cdf(k, n, 0.5) < 0.95


@pytest.mark.parametrize(("n", "k"), [(5, 0), (6, 1), (8, 1), (9, 2), (15, 4), (20, 6), (30, 10)])
def test_rank_agrees_with_published_sign_test_tables(n: int, k: int) -> None:
    assert median_rank(n) == k


def test_interval_is_made_of_samples_and_is_symmetric_in_rank() -> None:
    ordered = [float(x) for x in range(1, 31)]
    assert median_interval(ordered) == (10.0, 21.0)
    assert median_interval([1.0, 2.0, 9.0]) == (1.0, 9.0), "too few samples: the range"


def test_percentiles_are_the_smallest_sample_that_covers() -> None:
    ordered = [float(x) for x in range(1, 101)]
    assert (percentile(ordered, 0.9), percentile(ordered, 0.99), percentile([7.0], 0.9)) == (90.0, 99.0, 7.0)


def test_summary_counts_outliers_and_drops_none() -> None:
    samples = [1.0] * 17 + [2.0, 2.5, 50.0]
    result = summarize(samples, [3.0] * 20, "rounds")
    assert (result.seconds, result.n, result.outliers, result.wall_s) == (1.0, 20, 2, 3.0)
    assert (result.low_s, result.high_s, result.p99_s) == (1.0, 1.0, 50.0)


def test_cost_below_zero_is_clipped_but_its_uncertainty_is_kept() -> None:
    result = summarize([-3.0, -2.0, -1.0, -0.5, 0.5, 1.0], [-1.0] * 6, "rounds")
    assert (result.seconds, result.low_s, result.high_s, result.wall_s) == (0.0, 0.0, 1.0, 0.0)
    assert result.half_width_s == 2.0
    assert result.outliers == 0


class TestStopRule:
    rule = StopRule(min_n=10, max_n=14, cap_s=5.0, target=0.01, floor_s=0.5)

    def test_judges_more_rounds_than_a_float_can_count_the_ways_of(self) -> None:
        rule = StopRule(min_n=10, max_n=10**6, cap_s=5.0, target=0.0, floor_s=0.0)
        assert rule.verdict([1.0, 2.0] * 600, 1.0) is None and rule.verdict([1.0] * 1200, 1.0) == "precise"

    def test_waits_for_the_fewest_rounds_an_interval_needs(self) -> None:
        assert self.rule.verdict([1.0] * 5, 99.0) is None

    def test_cap_holds_before_the_least_number_of_rounds(self) -> None:
        assert self.rule.verdict([1.0] * 6, 5.0) == "cap"

    def test_precision_is_judged_from_the_least_number_on_at_even_rounds(self) -> None:
        assert self.rule.verdict([1.0] * 9, 0.0) is None
        assert self.rule.verdict([1.0] * 10, 0.0) == "precise"
        assert self.rule.verdict([1.0] * 11, 0.0) is None

    def test_floor_is_absolute(self) -> None:
        wide = [0.6, 1.4] * 5  # interval 0.6..1.4: half-width 0.4 is over 1 % but under the floor
        assert self.rule.verdict(wide, 0.0) == "floor"
        assert StopRule(10, 14, 5.0, 0.01, 0.39).verdict(wide, 0.0) is None

    def test_rounds_end_what_never_settles(self) -> None:
        assert self.rule.verdict([0.0, 9.0] * 7, 0.0) == "rounds"

    @pytest.mark.parametrize(
        "arguments", [(5, 10), (20, 10), (6, 10, 0.0), (6, 10, math.nan), (6, 10, 1.0, -0.1)]
    )
    def test_senseless_bounds_are_refused(self, arguments: tuple[float, ...]) -> None:
        with pytest.raises(UsageError):
            StopRule(*arguments)  # type: ignore[arg-type]
