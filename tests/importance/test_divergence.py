from __future__ import annotations

import math

import numpy as np
import pytest

from onnx_layermerge.importance import direction, divergence, is_class_scores


def logits(count: int, classes: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Scores that compete: what all classes share is a tenth of the rest."""
    rng = np.random.default_rng(seed)
    values = scale * rng.standard_normal((count, classes))
    return values - 0.9 * values.mean(axis=1, keepdims=True)


def test_the_kl_of_probabilities_by_hand() -> None:
    p, q = np.array([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]]), np.array([[0.25, 0.5, 0.25], [0.8, 0.1, 0.1]])
    found = divergence({"y": p}, {"y": q})
    # Sample 1: ½ ln 2 + ¼ ln ½ = ¼ ln 2; sample 2: 0.
    assert found.kl == pytest.approx(math.log(2) / 8, rel=1e-12)
    assert found.agreement == 0.5
    spread = 2 * 0.15**2 + 4 * 0.075**2
    assert found.relative == pytest.approx(2 * 0.25**2 / spread, rel=1e-12)


def test_logits_are_normalised_first() -> None:
    p, q = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.2, 0.7]])
    plain = divergence({"y": p}, {"y": q})
    shifted = divergence({"y": np.log(p) + 40.0}, {"y": np.log(q) + 30.0})
    assert plain.kl == pytest.approx(0.6 * math.log(7), rel=1e-12)
    assert shifted.kl == pytest.approx(plain.kl, rel=1e-9)


def test_equal_outputs_do_not_diverge() -> None:
    values = logits(6, 4)
    found = divergence({"y": values}, {"y": values.copy()})
    assert (found.kl, found.relative, found.agreement) == (0.0, 0.0, 1.0)


def test_probabilities_of_zero_stay_finite() -> None:
    found = divergence({"y": np.array([[1.0, 0.0]])}, {"y": np.array([[0.0, 1.0]])})
    assert found.kl == pytest.approx(math.log(1e12), rel=1e-6)


def test_maps_are_compared_by_their_spread() -> None:
    wanted = np.random.default_rng(0).standard_normal((8, 3, 5, 5))
    mean = np.broadcast_to(wanted.mean(axis=0), wanted.shape)
    found = divergence({"y": wanted}, {"y": mean})
    assert found.kl == pytest.approx(1.0, rel=1e-12) and found.relative == pytest.approx(1.0, rel=1e-12)
    assert math.isnan(found.agreement)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_infinitely_far(bad: float) -> None:
    values = np.zeros((2, 3))
    found = divergence({"y": values}, {"y": np.full((2, 3), bad)})
    assert (found.kl, found.relative, found.agreement) == (np.inf, np.inf, 0.0)


def test_outputs_add_up_and_integers_count_by_the_share_that_differs() -> None:
    p, q = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    one = divergence({"a": p}, {"a": q})
    both = divergence({"a": p, "b": p, "i": np.array([1])}, {"a": q, "b": q, "i": np.array([2])})
    assert both.kl == pytest.approx(2 * one.kl + 1) and both.relative == pytest.approx((2 * one.relative + 1) / 3)


def test_constant_outputs_have_a_scale_of_their_own() -> None:
    wanted = np.full((4, 2, 3, 3), 2.0)
    found = divergence({"y": wanted}, {"y": wanted + 1})
    assert found.relative == pytest.approx(0.25)


def test_class_scores_are_floats_with_a_column_for_each_class() -> None:
    assert is_class_scores(np.zeros((3, 2)))
    assert not is_class_scores(np.zeros((3, 1))) and not is_class_scores(np.zeros((3, 2, 2)))
    assert not is_class_scores(np.zeros((3, 2), np.int64))


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_logits_are_class_scores_however_sure(classes: int, scale: float) -> None:
    values = logits(64, classes, scale)
    assert is_class_scores(values) and is_class_scores((values + 5).astype(np.float32))
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    assert is_class_scores(probabilities) and is_class_scores(np.log(np.maximum(probabilities, 1e-30)))


def test_probabilities_of_one_class_alone_are_class_scores() -> None:
    assert is_class_scores(np.tile([0.0, 1.0], (8, 1)) + 1e-5 * np.random.default_rng(0).standard_normal((8, 1)) ** 2)


RNG = np.random.default_rng(1)
VALUES = {
    "rising together": RNG.standard_normal((64, 1)) + 0.5 * RNG.standard_normal((64, 5)),
    "unrelated": RNG.standard_normal((64, 4)) @ np.eye(4) + RNG.standard_normal((64, 1)) * 0.3,
    "of hundreds": logits(64, 5, 400),
    "one column far above": logits(64, 5) + np.array([0, 0, 40, 0, 0]),
    "features behind a ReLU": np.maximum(RNG.standard_normal((64, 512)) * RNG.random((64, 1)), 0),
    "of one length": (lambda v: v / np.linalg.norm(v, axis=1, keepdims=True))(logits(64, 128)),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_what_bears_no_marks_of_class_scores_is_judged_by_relative_error(values: np.ndarray) -> None:
    assert not is_class_scores(values)
    found = divergence({"y": values}, {"y": values + 0.1})
    assert found.kl == found.relative > 0
    assert found.agreement == np.mean(values.argmax(1) == (values + 0.1).argmax(1))  # told all the same
    move = direction({"y": values}, {"y": values + 0.1})
    assert float(move @ move) == pytest.approx(found.kl, rel=0.15)


def test_no_values_get_away_with_an_error_out_of_proportion() -> None:
    """Whatever they are taken for: softmax sees no shift."""
    for values in (logits(64, 5), *VALUES.values()):
        found = divergence({"y": values}, {"y": values + 1000})
        assert found.kl >= found.relative - 1 > 1


def test_the_kl_of_logits_is_what_counts_as_long_as_the_error_is_in_proportion() -> None:
    wanted = logits(64, 10, 3)
    for seed, size in enumerate((0.01, 0.3, 3, 10), 1):
        other = wanted + size * logits(64, 10, seed=seed)
        p, q = (np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in (wanted, other))
        expected = float((p * np.log(p / q)).sum(axis=1).mean())
        assert divergence({"y": wanted}, {"y": other}).kl == pytest.approx(expected, rel=1e-9)


def test_a_sample_alone_is_what_it_is_told_to_be() -> None:
    wanted = VALUES["rising together"][:1]
    by_kl, by_error = (divergence({"y": wanted}, {"y": wanted + 0.01}, names).kl for names in (("y",), ()))
    assert by_kl == pytest.approx(0, abs=1e-9) and by_error > 0


def test_images_of_bytes_are_compared_by_their_spread_and_labels_by_the_share_that_differs() -> None:
    wanted = np.random.default_rng(0).integers(1, 255, (4, 3, 8, 8)).astype(np.uint8)
    off = wanted + np.where(wanted < 128, 1, -1).astype(np.uint8)
    alone = divergence({"y": wanted.astype(np.float32)}, {"y": off.astype(np.float32)})
    found = divergence({"y": wanted}, {"y": off})
    assert 0 < found.relative == pytest.approx(alone.relative, rel=1e-12) and found.relative < 0.01
    assert found.kl == pytest.approx(found.relative) and math.isnan(found.agreement)
    # Few values, another type or no map at all: labels.
    for labels in (wanted // 8, wanted.astype(np.int64), wanted.reshape(4, -1)):
        other = labels.copy()
        other[0] = labels[0] + 1
        found = divergence({"y": labels}, {"y": other})
        assert (found.kl, found.relative, found.agreement) == (0.25, 0.25, 0.75)


def test_an_output_that_is_missing_is_infinitely_far() -> None:
    values = np.zeros((2, 3))
    assert divergence({"y": values, "z": values}, {"y": values}).kl == np.inf
