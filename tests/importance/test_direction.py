"""The sketch of a move has its divergence for length, and inner products that tell what two moves do together."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_layermerge.importance import _score, direction, divergence


def outputs(seed: int, size: float, *, base: np.ndarray, name: str = "scores") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (base + size * rng.standard_normal(base.shape)).astype(np.float32)}


@pytest.mark.parametrize("shape", [(32, 50), (16, 4, 6, 6)])
def test_its_squared_length_is_the_divergence_of_a_small_move(shape: tuple[int, ...]) -> None:
    base = np.random.default_rng(0).standard_normal(shape)
    wanted = {"scores": base.astype(np.float32)}
    for seed in range(1, 4):
        other = outputs(seed, 0.05, base=base)
        found = direction(wanted, other)
        assert float(found @ found) == pytest.approx(divergence(wanted, other).kl, rel=0.15)


def test_probabilities_and_logits_tell_the_same() -> None:
    base = np.random.default_rng(3).standard_normal((24, 10))
    base -= base.mean(axis=1, keepdims=True)
    other = base + 0.1 * np.random.default_rng(4).standard_normal(base.shape)

    def softmax(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values)
        return powers / powers.sum(axis=1, keepdims=True)

    by_logits = direction({"y": base}, {"y": other + 3.0})  # a constant over the classes is no move
    by_probabilities = direction({"y": softmax(base)}, {"y": softmax(other)})
    np.testing.assert_allclose(by_logits, by_probabilities, atol=1e-6)


def test_inner_products_tell_moves_that_add_up_from_moves_that_cancel() -> None:
    base = np.random.default_rng(5).standard_normal((64, 40))
    step = 0.05 * np.random.default_rng(6).standard_normal(base.shape)
    other = 0.05 * np.random.default_rng(7).standard_normal(base.shape)
    wanted = {"y": base}
    same, back, apart = (direction(wanted, {"y": base + move}) for move in (2 * step, -step, other))
    one = direction(wanted, {"y": base + step})

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(one, same) > 0.95 and cosine(one, back) < -0.95 and abs(cosine(one, apart)) < 0.15


def test_integers_move_nothing() -> None:
    wanted = {"label": np.arange(8)}
    assert not direction(wanted, {"label": np.arange(8)[::-1]}).any()


def test_a_move_too_large_to_be_told_is_left_out() -> None:
    base = np.array([[[1e-30]], [[-1e-30]]])
    far = {"y": np.full_like(base, 1e37)}
    assert np.isfinite(divergence({"y": base}, far).kl)
    assert _score._move({"y": base}, far) is None
    assert _score._move({"y": base}, {"y": 2 * base}) is not None


def test_images_of_bytes_move_as_floats_do() -> None:
    image = np.arange(1, 193, dtype=np.uint8).reshape(3, 4, 16)
    floats = {"y": image.astype(np.float32)}, {"y": image.astype(np.float32) + 1}
    found = direction({"y": image}, {"y": image + np.uint8(1)})
    assert found.any()
    np.testing.assert_array_equal(found, direction(*floats))


def test_an_output_that_is_missing_moves_nothing() -> None:
    assert not direction({"y": np.arange(8.0).reshape(2, 2, 2)}, {}).any()
