from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from onnx_layermerge.importance import divergence
from onnx_layermerge.report import as_json
from onnx_layermerge.verify import OutputDrift, _drift, drift, out_of_proportion

RNG = np.random.default_rng(5)


def one(wanted: np.ndarray, got: np.ndarray) -> OutputDrift:
    (found,) = drift({"out": wanted}, {"out": got})
    assert found.name == "out"
    return found


def pair(*shape: int, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    wanted = RNG.standard_normal(shape).astype(np.float32)
    if len(shape) == 2 and shape[1] > 1:  # class scores compete
        wanted -= wanted.mean(axis=1, keepdims=True)
    return wanted, wanted + noise * RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("chunk", [1 << 20, 50, 7])
def test_maps_are_compared_sample_by_sample(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part of an output is looked at once."""
    monkeypatch.setattr(_drift, "CHUNK", chunk)
    wanted, got = pair(6, 3, 5, 4)
    wanted *= np.arange(1, 7, dtype=np.float32)[:, None, None, None]
    found = one(wanted, got)
    x, y = (values.reshape(6, -1).astype(float) for values in (wanted, got))
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert found.cosine == pytest.approx(cosines.mean(), rel=1e-9)
    assert found.snr_db == pytest.approx(10 * np.log10((x**2).sum() / ((y - x) ** 2).sum()), rel=1e-9)
    assert found.largest == pytest.approx(np.abs(y - x).max(), rel=1e-9)
    assert found.relative == pytest.approx(divergence({"o": wanted}, {"o": got}).relative)
    assert found.kl is found.agreement is found.rank_correlation is None


def test_the_snr_of_a_tenth_is_twenty_decibels() -> None:
    wanted = np.ones((4, 8), np.float64)
    assert one(wanted, 1.1 * wanted).snr_db == pytest.approx(20)


def test_class_scores_have_what_is_for_classes() -> None:
    wanted, got = pair(20, 7, noise=1.0)
    found, whole = one(wanted, got), divergence({"o": wanted}, {"o": got})
    assert (found.kl, found.agreement) == (whole.kl, whole.agreement) and found.kl > 0 and found.agreement < 1
    assert found.rank_correlation is None


@pytest.mark.parametrize("shape", [(30,), (30, 1), (30, 1, 1, 1)])
def test_a_single_score_is_ranked(shape: tuple[int, ...]) -> None:
    wanted, got = pair(*shape, noise=1.0)
    wanted[3:6] = wanted[3]  # ties
    found = one(wanted, got)
    assert found.rank_correlation == pytest.approx(spearmanr(wanted.ravel(), got.ravel()).statistic, abs=1e-12)
    x, y = wanted.ravel().astype(float), got.ravel().astype(float)
    assert found.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_two_scores_rank_as_the_probability_of_the_second() -> None:
    wanted, got = pair(30, 2, noise=1.0)
    ranks = [1 / (1 + np.exp(logits[:, 0] - logits[:, 1])) for logits in (wanted, got)]
    expected = spearmanr(*ranks).statistic
    assert one(wanted, got).rank_correlation == pytest.approx(expected, abs=1e-12)
    assert one(*(np.stack([1 - p, p], axis=1) for p in ranks)).rank_correlation == pytest.approx(expected, abs=1e-12)


def test_errors_that_kl_does_not_see_are_said() -> None:
    wanted, got = pair(40, 7)
    assert out_of_proportion(drift({"y": wanted}, {"y": got})) == ()
    for shift in (1.0, 100.0):
        (said,) = out_of_proportion(drift({"y": wanted}, {"y": wanted + np.float32(shift)}))
        assert "'y'" in said and "--metric psnr or mse" in said
    values = wanted + 5 * RNG.standard_normal((40, 1)).astype(np.float32)  # no class scores: nothing is hidden
    assert out_of_proportion(drift({"y": values}, {"y": values + np.float32(100)})) == ()


def test_equal_outputs_differ_in_nothing() -> None:
    wanted, _ = pair(5, 6)
    found = one(wanted, wanted.copy())
    assert (found.relative, found.snr_db, found.largest, found.agreement) == (0, math.inf, 0, 1)
    assert found.cosine == pytest.approx(1) and found.kl == pytest.approx(0, abs=1e-12)
    assert '"snr_db": null' in as_json(found)


def test_outputs_of_zeros_do_not_divide_by_zero() -> None:
    zeros, ones = np.zeros((3, 4)), np.ones((3, 4))
    assert one(zeros, zeros).cosine == 1 and one(zeros, ones).cosine == 0
    assert one(zeros, ones).snr_db == -math.inf
    assert one(np.ones((3, 1)), np.ones((3, 1))).rank_correlation is None


def test_whole_numbers_are_equal_or_not() -> None:
    found = one(np.array([[1, 2], [3, 250]], np.uint8), np.array([[1, 2], [3, 5]], np.uint8))
    assert (found.agreement, found.largest, found.cosine) == (0.75, 245, None)


@pytest.mark.parametrize("got", [np.full((2, 3), np.nan), np.full((2, 3), np.inf), np.zeros((2, 4))])
def test_what_cannot_be_compared_is_infinitely_far(got: np.ndarray) -> None:
    found = one(np.ones((2, 3)), got)
    assert found.largest == found.relative == math.inf and found.snr_db == -math.inf


def test_each_output_has_its_own_line() -> None:
    first, second = pair(4, 3), pair(4, 2, 5)
    found = drift({"a": first[0], "b": second[0], "empty": np.zeros((0, 3))}, {"a": first[1], "b": second[1]})
    assert [output.name for output in found] == ["a", "b"]


def test_images_of_bytes_are_measured_as_floats_are() -> None:
    wanted = np.random.default_rng(0).integers(0, 255, (4, 3, 8, 8)).astype(np.uint8)
    found, floats = one(wanted, wanted + np.uint8(1)), one(wanted.astype(np.float32), wanted.astype(np.float32) + 1)
    assert found.agreement is None and found.snr_db is not None and found.snr_db > 30
    assert (found.relative, found.cosine, found.snr_db, found.largest) == pytest.approx(
        (floats.relative, floats.cosine, floats.snr_db, floats.largest), rel=1e-12
    )


def test_an_output_that_is_missing_is_infinitely_far() -> None:
    (found,) = drift({"y": np.ones((2, 3))}, {})
    assert found.largest == found.relative == math.inf
