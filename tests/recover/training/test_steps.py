"""AdamW on relative steps: scales, the start, the moving mean, going on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="fine-tuning is an extra: torch is not installed")

from onnx_layermerge.recover.training._steps import Stepper  # noqa: E402


def weights() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(3, 4, generator=generator) * torch.tensor([[1.0], [100.0], [0.01]])
    first[0, 0] = -0.0
    return {"w": torch.nn.Parameter(first), "b": torch.nn.Parameter(torch.zeros(3))}


def gradients(stepper: Stepper, step: int) -> list[Any]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(d.shape, generator=generator) for d in stepper.moved]


def test_a_step_is_as_large_as_the_rate_says_relative_to_each_channel() -> None:
    held = weights()
    start = held["w"].detach().clone()
    stepper = Stepper(held, ema=0.0, clip=1e9)
    stepper.step([torch.ones(3, 4), torch.ones(3)], 1e-2)
    size = start.square().mean(1, keepdim=True).sqrt() + 0.1 * start.square().mean().sqrt()
    moved = (held["w"].detach() - start) / size
    np.testing.assert_allclose(moved.numpy(), -1e-2, rtol=1e-2)
    assert bool((held["b"] != 0).all())


def test_clipping_bounds_the_norm_of_the_gradient() -> None:
    held = weights()
    stepper = Stepper(held, ema=0.0, clip=0.5)
    stepper.step([torch.full((3, 4), 1e3), torch.zeros(3)], 1e-2)
    first = stepper.state()["first"][0] / (1 - 0.9)
    assert float(first.norm()) == pytest.approx(0.5, rel=1e-3)


def test_the_start_keeps_every_bit() -> None:
    held = weights()
    bits = held["w"].detach().numpy().tobytes()
    stepper = Stepper(held, ema=0.9, clip=1.0)
    for step in range(3):
        stepper.step(gradients(stepper, step), 1e-2)
    stepper.show(None)
    assert held["w"].detach().numpy().tobytes() == bits
    assert stepper.arrays([torch.zeros(3, 4), torch.zeros(3)]) == {}
    one = torch.zeros(3, 4)
    one[1, 1] = 0.5
    (array,) = stepper.arrays([one, torch.zeros(3)]).values()
    assert array[0].tobytes() == held["w"].detach().numpy()[0].tobytes()  # −0 is still −0


def test_the_moving_mean_is_that_of_the_steps() -> None:
    stepper = Stepper(weights(), ema=0.5, clip=1.0)
    mean = torch.zeros(3, 4)
    for step in range(4):
        stepper.step(gradients(stepper, step), 1e-2)
        keep = min(0.5, (2 + step) / (11 + step))
        mean = keep * mean + (1 - keep) * stepper.moved[0]
    np.testing.assert_allclose(stepper.judged()[0], mean, rtol=1e-5)
    plain = Stepper(weights(), ema=0.0, clip=1.0)
    plain.step(gradients(plain, 0), 1e-2)
    np.testing.assert_array_equal(plain.judged()[0], plain.moved[0])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_is_restored_makes_the_same_steps(ema: float) -> None:
    whole, first, second = (Stepper(weights(), ema=ema, clip=1.0) for _ in range(3))
    for step in range(6):
        whole.step(gradients(whole, step), 1e-2)
    for step in range(3):
        first.step(gradients(first, step), 1e-2)
    state = {kind: [t.detach().clone() for t in tensors] for kind, tensors in first.state().items()}
    second.restore(state, first.count)
    for step in range(3, 6):
        second.step(gradients(second, step), 1e-2)
    for one, other in zip(whole.moved + whole.judged(), second.moved + second.judged(), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()
