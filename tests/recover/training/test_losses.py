"""Losses against the measures that plans are judged by, and against formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="fine-tuning is an extra: torch is not installed")

from onnx_layermerge.data import Layout  # noqa: E402
from onnx_layermerge.errors import DataError, UsageError  # noqa: E402
from onnx_layermerge.importance import divergence  # noqa: E402
from onnx_layermerge.importance._divergence import log_softmax  # noqa: E402
from onnx_layermerge.recover.training import Options  # noqa: E402
from onnx_layermerge.recover.training._losses import Objective, check_labels  # noqa: E402

RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((8, 5)).astype(np.float32)
OTHER = SCORES + RNG.standard_normal((8, 5)).astype(np.float32)


def tensors(values: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in values.items()}


def first(wanted: dict[str, np.ndarray]) -> Layout:
    """Axis 0 counts the samples of all."""
    return Layout(dict.fromkeys(wanted, 0), (), len(next(iter(wanted.values()))))


def loss_of(wanted: dict[str, np.ndarray], got: dict[str, np.ndarray], classes: Any = None, **words: Any) -> float:
    count = len(next(iter(wanted.values())))
    objective = Objective(Options(**words), wanted, first(wanted))
    given = None if classes is None else torch.from_numpy(classes)
    return float(objective.judged(tensors(got), tensors(wanted), given, count))


def probabilities(scores: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(scores)).astype(np.float32)


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ({"y": SCORES}, {"y": OTHER}),
        ({"y": probabilities(SCORES)}, {"y": probabilities(OTHER)}),
        ({"y": SCORES.reshape(8, 5, 1)}, {"y": OTHER.reshape(8, 5, 1)}),
        ({"y": SCORES, "z": OTHER.reshape(8, 1, 5)}, {"y": OTHER, "z": SCORES.reshape(8, 1, 5)}),
        ({"y": SCORES, "label": SCORES.argmax(1)}, {"y": OTHER, "label": OTHER.argmax(1)}),
    ],
    ids=["scores", "probabilities", "amounts", "both", "with labels that nothing can be learned from"],
)
def test_the_loss_is_the_divergence_that_plans_are_judged_by(
    wanted: dict[str, np.ndarray], got: dict[str, np.ndarray]
) -> None:
    measured = {name: values for name, values in wanted.items() if values.dtype.kind == "f"}
    assert loss_of(wanted, got) == pytest.approx(divergence(measured, got).kl, rel=1e-5)


def test_batches_of_one_output_add_up() -> None:
    wanted, got = SCORES.reshape(8, 5, 1), OTHER.reshape(8, 5, 1)
    objective = Objective(Options(), {"y": wanted}, first({"y": wanted}))
    parts = [
        float(objective.judged(tensors({"y": got[part]}), tensors({"y": wanted[part]}), None, 4))
        for part in (slice(0, 4), slice(4, 8))
    ]
    assert np.mean(parts) == pytest.approx(divergence({"y": wanted}, {"y": got}).kl, rel=1e-5)


def test_class_scores_may_have_their_samples_in_columns() -> None:
    objective = Objective(Options(), {"y": SCORES}, Layout({"y": 1}, (), 8))
    found = float(objective.judged(tensors({"y": OTHER.T.copy()}), tensors({"y": SCORES.T.copy()}), None, 8))
    assert found == pytest.approx(divergence({"y": SCORES}, {"y": OTHER}).kl, rel=1e-5)


def test_labels_are_mixed_in_as_cross_entropy() -> None:
    labels = np.array([0, 1, 2, 3, 4, 0, 1, 2])
    entropy = -log_softmax(OTHER)[np.arange(8), labels].mean()
    apart = divergence({"y": SCORES}, {"y": OTHER}).kl
    found = loss_of({"y": SCORES}, {"y": OTHER}, labels, labels="l", label_weight=0.25)
    assert found == pytest.approx(0.75 * apart + 0.25 * entropy, rel=1e-5)


def test_features_are_compared_relative_to_their_spread() -> None:
    objective = Objective(Options(feature_weight=2.0), {"y": SCORES}, first({"y": SCORES}))
    objective.add_features({"f": 4.0})
    same = tensors({"y": SCORES, "f": np.zeros((8, 3), np.float32)})
    moved = {**same, "f": torch.ones(8, 3)}
    assert float(objective.judged(moved, same, None, 8)) == pytest.approx(0, abs=1e-6)
    loss, features = objective.training(moved, same, None, 8)
    assert float(loss) == pytest.approx(0, abs=1e-6) and float(features) == pytest.approx(2.0 * 3 / 4, abs=1e-6)


def test_a_loss_of_the_users_gets_outputs_the_originals_and_labels() -> None:
    seen: list[Any] = []

    def own(got: Any, wanted: Any, labels: Any) -> Any:
        seen.append((set(got), set(wanted), labels))
        return (got["y"] - wanted["y"]).abs().mean()

    assert loss_of({"y": SCORES}, {"y": OTHER}, loss=own) == pytest.approx(np.abs(OTHER - SCORES).mean(), rel=1e-5)
    assert seen == [({"y"}, {"y"}, None)]


@pytest.mark.parametrize(("returned", "named"), [(1.0, "float"), (torch.zeros(3), "(3,)"), (None, "NoneType")])
def test_a_loss_of_the_users_returns_one_number(returned: Any, named: str) -> None:
    with pytest.raises(UsageError, match="one number") as caught:
        loss_of({"y": SCORES}, {"y": OTHER}, loss=lambda *given: returned)
    assert named in str(caught.value)


def test_outputs_that_are_labels_alone_give_nothing_to_train_towards() -> None:
    with pytest.raises(DataError, match="--loss"):
        Objective(Options(), {"y": SCORES.argmax(1)}, first({"y": SCORES}))


def test_labels_without_class_scores_are_refused() -> None:
    objective = Objective(Options(), {"y": SCORES.reshape(8, 5, 1)}, first({"y": SCORES}))
    with pytest.raises(DataError, match="score for each class"):
        objective.classes()


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_label_out_of_range_is_named(wrong: int) -> None:
    check_labels(np.array([0, 4]), 5, "l", "data.npz")
    with pytest.raises(DataError, match=rf"label {wrong} in 'l' of data.npz .* 5 classes, 0 to 4"):
        check_labels(np.array([0, wrong, 1]), 5, "l", "data.npz")
