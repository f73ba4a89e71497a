"""The training as a whole, on a network of a few thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason="fine-tuning is an extra: torch is not installed")

from onnx_layermerge.errors import DataError, DeviceError, ModelError, UsageError  # noqa: E402
from onnx_layermerge.recover.training import Answers, Options, Trained, _loop, _parts, train  # noqa: E402
from onnx_layermerge.recover.training._held_out import HeldOut  # noqa: E402
from onnx_layermerge.recover.training._rate import RATES, cycle, rate_of_step  # noqa: E402
from tests import zoo  # noqa: E402
from tests.recover.training import tiny  # noqa: E402


def same(one: Trained, other: Trained) -> bool:
    """To the last bit."""
    return one.weights.keys() == other.weights.keys() and all(
        one.weights[name].tobytes() == other.weights[name].tobytes() for name in one.weights
    )


def test_training_brings_held_out_samples_closer() -> None:
    found = tiny.trained(steps=40)
    assert found.improved and found.ended == "done" and found.steps == 40
    assert found.value < 0.5 * found.start_value
    assert found.divergence.kl == pytest.approx(found.value, rel=1e-2)
    assert found.start_divergence.kl == pytest.approx(found.start_value, rel=1e-4)
    assert set(found.weights) == {f"c{n}.{part}" for n in range(4) for part in "wb"} | {"scores.w"}
    assert len(found.checks) == 20 and min(check.value for check in found.checks) == pytest.approx(found.value)


def test_a_training_is_the_same_again_and_another_with_another_seed() -> None:
    one = tiny.trained()
    assert same(one, tiny.trained())
    assert not same(one, tiny.trained(seed=1))


def test_with_nothing_to_gain_the_start_comes_back() -> None:
    found = tiny.trained(tiny.original())
    assert not found.improved and found.weights == {}
    assert found.value == found.start_value == pytest.approx(0, abs=1e-6)


def test_a_gain_of_rounding_is_none() -> None:
    found = tiny.trained(tiny.worse(tiny.original(), by=1e-6))
    assert not found.improved


def test_features_are_compared_where_both_have_them_and_they_changed() -> None:
    taps = ("r0", "a", "r2", "c3")
    found = tiny.trained(feature_weight=1.0, taps=taps)
    assert found.taps == taps[1:]  # nothing changed in front of the first
    assert found.improved
    assert not same(found, tiny.trained())


def test_a_value_of_the_same_name_that_stands_for_something_else_is_no_feature() -> None:
    student = tiny.worse(tiny.original(), "c1.w", "c2.w", by=0.1)
    for tensor in student.graph.initializer:
        if tensor.name == "c3.w":
            tensor.raw_data = (-np.frombuffer(tensor.raw_data, np.float32)).tobytes()
    assert tiny.trained(student, feature_weight=1.0, taps=("a", "c3"), steps=3).taps == ("a",)


def test_labels_are_learned() -> None:
    first = tiny.trained(labels=True, label_weight=1.0, steps=60, augment=False, rate=1e-2)
    # Random labels of other samples cannot be told, but the loss is theirs.
    assert first.start_value != pytest.approx(first.start_divergence.kl, rel=0.1)


def test_labels_out_of_range_are_refused() -> None:
    net = zoo.Net(seed=3)
    two = net.proto(net.classifier(net.relu(net.conv(net.input(shape=("N", 3, 8, 8)), "c0", 8), "r0"), classes=2))
    with pytest.raises(DataError, match="none of the model's 2 classes"):
        tiny.trained(tiny.worse(two, "c0.w"), teacher=two, labels=True)


def test_a_loss_of_the_users_own_is_what_becomes_small() -> None:
    def own(got: Any, wanted: Any, labels: Any) -> Any:
        return (got["scores"] - wanted["scores"]).abs().mean()

    found = tiny.trained(loss=own, steps=40)
    assert found.value < 0.7 * found.start_value
    assert found.start_value != pytest.approx(found.start_divergence.kl, rel=0.01)


def test_a_rate_that_is_not_given_is_chosen_among_a_few() -> None:
    found = tiny.trained(rate=None, steps=100)
    assert found.rate in RATES and found.improved and found.value < 0.5 * found.start_value


def test_where_no_rate_gains_the_smallest_is_taken() -> None:
    assert tiny.trained(tiny.original(), rate=None, steps=10).rate == RATES[-1]


def test_a_loss_that_is_nan_ends_it_with_the_best_weights_before() -> None:
    calls = []

    def own(got: Any, wanted: Any, labels: Any) -> Any:
        calls.append(got["scores"].requires_grad)
        loss = (got["scores"] - wanted["scores"]).square().mean()
        return loss * float("nan") if sum(calls) > 10 else loss

    found = tiny.trained(loss=own)
    assert found.ended == "nan" and found.at == found.steps == 11
    whole = tiny.trained(loss=lambda got, wanted, labels: (got["scores"] - wanted["scores"]).square().mean())
    assert found.improved and found.checks == whole.checks[: len(found.checks)]
    assert all(np.isfinite(array).all() for array in found.weights.values())


def test_a_rate_far_too_high_never_gives_worse_weights_than_the_start() -> None:
    found = tiny.trained(rate=1e3)
    assert found.ended in ("nan", "early") and not found.improved


def test_it_ends_early_where_it_is_far_worse_than_the_start_for_long() -> None:
    found = tiny.trained(tiny.original(), steps=200, rate=1e-1)
    assert found.ended == "early" and found.steps < 100


def test_it_does_not_end_where_nothing_new_comes_until_the_rate_falls() -> None:
    student = tiny.worse(tiny.original(), *(f"c{n}.w" for n in range(4)), by=1.0)
    found = tiny.trained(student, rate=3e-2, steps=60, ema=0.0)
    values = [check.value for check in found.checks]
    assert found.ended == "done" and values.index(min(values)) >= 15


def test_minutes_end_it_and_the_schedule_goes_by_them() -> None:
    found = tiny.trained(steps=None, minutes=0.01)
    assert found.ended == "done" and found.steps > 0 and found.checks[-1].step == found.steps
    cut = tiny.trained(steps=10**6, minutes=0.005)
    assert cut.ended == "time" and cut.steps < 10**6


def test_the_rate_goes_up_and_down() -> None:
    shares = [cycle(share / 100) for share in range(101)]
    assert max(shares) == shares[10] == pytest.approx(1) and min(shares) == shares[-1]
    assert shares[:11] == sorted(shares[:11]) and shares[10:] == sorted(shares[10:], reverse=True)


def test_the_only_step_of_a_training_is_not_at_the_foot_of_the_cycle() -> None:
    assert rate_of_step(0.0, 1) > 0.5 and rate_of_step(0.0, None) == cycle(0.0)
    shares = [rate_of_step(step / 40, 40) for step in range(40)]
    assert shares == pytest.approx([cycle((step + 0.5) / 40) for step in range(40)])


def test_the_weights_that_come_out_are_not_judged_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    judge = HeldOut.judge
    monkeypatch.setattr(HeldOut, "judge", lambda self, student: (looks.append(1), judge(self, student))[1])
    found = tiny.trained(rate=3e-2, steps=20, checks=1)
    assert found.improved and len(looks) == 2  # before and behind
    assert found.divergence.kl < found.start_divergence.kl


def test_trainings_that_share_an_original_ask_it_once() -> None:
    answers = Answers()
    first, second = (tiny.trained(steps=5, answers=answers) for _ in range(2))
    parts = answers.parts
    assert parts is not None and same(first, second) and same(first, tiny.trained(steps=5))
    parts[0]["scores"][:] = 0  # what is there is what is judged by
    assert tiny.trained(steps=5, answers=answers).start_value != first.start_value and answers.parts is parts


def test_bf16_trains_and_is_judged_in_float32() -> None:
    found = tiny.trained(precision="bf16", steps=40)
    assert found.value < 0.7 * found.start_value
    assert found.start_value == tiny.trained(steps=1).start_value
    assert all(array.dtype == np.float32 for array in found.weights.values())


def test_a_model_of_a_fixed_batch_is_trained_in_parts_that_add_up() -> None:
    whole, parts = tiny.trained(ema=0.0), tiny.trained(ema=0.0, own_batch=8)
    for name, array in whole.weights.items():
        np.testing.assert_allclose(parts.weights[name], array, rtol=1e-2, atol=1e-4)
    with pytest.raises(DataError, match="takes 64 at once"):
        tiny.trained(own_batch=64, batch=64)


def test_on_a_cpu_a_batch_is_computed_in_parts_that_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny.trained(ema=0.0)
    # Values of a sample: 8 channels of 8 x 8 floats.  Parts of 5 do not divide the batch of 32.
    monkeypatch.setattr(_parts, "BYTES", 5 * 8 * 8 * 8 * 4)
    sizes: list[int] = []
    backward = _loop._Training._backward

    def watched(self: Any, part: dict[str, np.ndarray]) -> Any:
        sizes.append(len(part["x"]))
        return backward(self, part)

    monkeypatch.setattr(_loop._Training, "_backward", watched)
    parts = tiny.trained(ema=0.0)
    assert sizes[:7] == [5] * 6 + [2]
    for name, array in whole.weights.items():
        np.testing.assert_allclose(parts.weights[name], array, rtol=1e-2, atol=1e-4)


def test_a_loss_of_the_users_own_sees_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parts, "BYTES", 1)
    sizes: list[int] = []

    def loss(got: Any, wanted: Any, labels: Any) -> Any:
        (name,) = got
        sizes.append(len(got[name]))
        return (got[name] - wanted[name]).square().mean()

    tiny.trained(loss=loss, steps=3)
    assert set(sizes) == {32}


def test_no_step_is_made_along_a_gradient_that_is_not_finite(tmp_path: Path) -> None:
    """√ has no slope at 0: the loss stays finite."""
    calls: list[int] = []

    def own(got: Any, wanted: Any, labels: Any) -> Any:
        calls.append(1)
        loss = (got["scores"] - wanted["scores"]).square().mean()
        return loss + (0 * loss).sqrt() if got["scores"].requires_grad and len(calls) > 10 else loss

    path = tmp_path / "state.npz"
    found = tiny.trained(loss=own, checkpoint=path, checkpoint_minutes=1e-9)
    assert found.ended == "nan" and found.improved and found.at == found.steps > 1
    assert all(np.isfinite(array).all() for array in found.weights.values())
    with np.load(path) as kept:
        assert all(np.isfinite(kept[name]).all() for name in kept.files if kept[name].dtype.kind == "f")


def test_a_gradient_that_is_never_finite_ends_every_try() -> None:
    def own(got: Any, wanted: Any, labels: Any) -> Any:
        return (got["scores"] - wanted["scores"]).square().mean() + (0 * got["scores"].sum()).abs().sqrt()

    found = tiny.trained(loss=own, rate=None)
    assert found.ended == "nan" and found.rate == RATES[-1] and not found.improved


def test_a_batch_that_teaches_nothing_is_passed_over() -> None:
    """As where no sample has what the loss is about; the first one does."""
    calls: list[int] = []

    def own(got: Any, wanted: Any, labels: Any) -> Any:
        calls.append(1)
        loss = (got["scores"] - wanted["scores"]).abs().mean()
        return loss.detach() if got["scores"].requires_grad and len(calls) % 3 == 0 else loss

    assert tiny.trained(loss=own).ended == "done"


def test_progress_tells_loss_pace_and_time_left() -> None:
    told: list[tuple[int, int, str]] = []
    first = tiny.original()
    models = ir.from_proto(tiny.worse(first)), ir.from_proto(first)
    train(*models, tiny.samples(64), tiny.samples(32, 2), Options(steps=5, rate=1e-3), lambda *each: told.append(each))
    assert [done for done, *_ in told] == [1, 2, 3, 4, 5] and all(total == 5 for _, total, _ in told)
    assert all("loss " in what and "samples/s" in what and "left" in what for *_, what in told)


# --- what cannot be trained ----------------------------------------------------------------------------------------


def test_a_loss_that_is_nan_from_the_start_is_refused() -> None:
    with pytest.raises(DataError, match="before the first step"):
        tiny.trained(loss=lambda got, wanted, labels: got["scores"].sum() * float("nan"))


@pytest.mark.parametrize("words", [{}, {"rate": None}, {"feature_weight": 1.0, "taps": ("a", "c3")}], ids=str)
@pytest.mark.parametrize(
    "own",
    [
        lambda got, wanted, labels: torch.tensor(1.0),
        lambda got, wanted, labels: (got["scores"] - wanted["scores"]).abs().mean().detach(),
        lambda got, wanted, labels: torch.tensor(np.abs(got["scores"].detach().numpy()).mean()),
    ],
    ids=["a constant", "detached", "NumPy inside"],
)
def test_a_loss_without_a_gradient_is_refused(own: Any, words: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no gradient, so nothing can be learned by it"):
        tiny.trained(loss=own, **words)


def test_a_model_without_weights_is_refused() -> None:
    net = zoo.Net()
    net.relu(net.input(shape=("N", 3, 8, 8)), "y")
    with pytest.raises(ModelError, match="no weights"):
        tiny.trained(net.proto("y"), teacher=net.proto("y"))


def test_an_original_that_answers_nan_is_refused() -> None:
    net = zoo.Net()
    value = net.node("Log", net.conv(net.input(shape=("N", 3, 8, 8)), "c"), name="y")
    with pytest.raises(DataError, match="'y' is NaN or infinite"):
        tiny.trained(net.proto(value), teacher=net.proto(value))


@pytest.mark.parametrize(
    ("device", "error"), [("tpu-9", UsageError), ("meta", UsageError), ("cuda:64", DeviceError)], ids=str
)
def test_devices_that_are_not_there_are_refused(device: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="--device"):
        tiny.trained(device=device)
