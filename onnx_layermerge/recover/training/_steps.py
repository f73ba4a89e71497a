r"""AdamW on steps that are relative to the size of the weights.

A weight is θ = θ₀ + s ∘ d with s the root mean square of its channel (a tenth of the tensor's own added, so that no
channel stands still), and what is descended in is d, from 0.  One rate then suits every layer of a network whose norms
are folded into its convolutions, where a channel's weights may be a thousand times another's; the decay of AdamW pulls
towards the start, not towards zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from onnx_layermerge.recover.training._call import Tensor

__all__ = ["Stepper"]

BETAS, DECAY = (0.9, 0.99), 0.01
LEAST_SCALE, SMALLEST = 0.1, 1e-3


class Stepper:
    """Moves ``weights`` (parameters, by initializer) by their gradients.

    ``moved`` is d, ``ema`` its moving mean (None where steps are judged as they are).
    """

    def __init__(self, weights: Mapping[str, torch.nn.Parameter], *, ema: float, clip: float) -> None:
        self._weights = dict(weights)
        self._start = [weight.detach().clone() for weight in weights.values()]
        self._scale = [_scale(weight) for weight in self._start]
        self._decay, self._clip = ema, clip
        self.reset()

    def reset(self) -> None:
        """Back to the start, as if no step had been made."""
        self.moved = [torch.zeros_like(weight) for weight in self._start]
        self.ema = [torch.zeros_like(weight) for weight in self._start] if self._decay else None
        self.count = 0
        self._optimizer = torch.optim.AdamW(self.moved, lr=0.0, betas=BETAS, weight_decay=DECAY)
        self.show(None)

    def gradients(self) -> list[Tensor]:
        """Those of the weights, summed since ``clear``; zeros where a weight had none."""
        return [torch.zeros_like(w) if w.grad is None else w.grad for w in self._weights.values()]

    def clear(self) -> None:
        """Forget the gradients."""
        for weight in self._weights.values():
            weight.grad = None

    def step(self, gradients: Sequence[Tensor], rate: float) -> bool:
        """One step along ``gradients`` (of the weights), then the weights are where it led; False, and none, where
        their norm is not finite."""
        for d, s, gradient in zip(self.moved, self._scale, gradients, strict=True):
            d.grad = gradient * s
        if not torch.nn.utils.clip_grad_norm_(self.moved, self._clip).isfinite():
            return False
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()
        self.count += 1
        if self.ema is not None:
            # At first there is little to take the mean of.
            keep = min(self._decay, (1 + self.count) / (10 + self.count))
            torch._foreach_lerp_(self.ema, self.moved, 1 - keep)
        self.show(self.moved)
        return True

    def show(self, moved: Sequence[Tensor] | None) -> None:
        """Let the parameters be those at d = ``moved``; at the start for None."""
        with torch.no_grad():
            for number, weight in enumerate(self._weights.values()):
                start = self._start[number]
                weight.copy_(start if moved is None else torch.addcmul(start, self._scale[number], moved[number]))

    def judged(self) -> list[Tensor]:
        """A copy of the d that counts: the moving mean where there is one."""
        return [d.detach().clone() for d in (self.moved if self.ema is None else self.ema)]

    def arrays(self, moved: Sequence[Tensor]) -> dict[str, np.ndarray]:
        """The weights at d = ``moved``, those alone that differ from the start."""
        found = {}
        for name, start, scale, d in zip(self._weights, self._start, self._scale, moved, strict=True):
            if bool((d != 0).any()):
                weight = torch.where(d == 0, start, torch.addcmul(start, scale, d))  # −0 + 0 is not −0
                found[name] = weight.cpu().numpy()
        return found

    def state(self) -> dict[str, list[Tensor]]:
        """All that the next step depends on, beside ``count``."""
        held = self._optimizer.state
        first = [held[d]["exp_avg"] if d in held else torch.zeros_like(d) for d in self.moved]
        second = [held[d]["exp_avg_sq"] if d in held else torch.zeros_like(d) for d in self.moved]
        return {"moved": self.moved, "first": first, "second": second, "ema": self.ema or []}

    def restore(self, state: Mapping[str, Sequence[Tensor]], count: int) -> None:
        """Go on from :meth:`state`."""
        self.count = count
        for kind, into in (("moved", self.moved), ("ema", self.ema or [])):
            for d, saved in zip(into, state[kind], strict=True):
                d.copy_(saved)
        for number, d in enumerate(self.moved):
            if count:
                self._optimizer.state[d] = {
                    "step": torch.tensor(float(count)),
                    "exp_avg": state["first"][number].to(d).clone(),
                    "exp_avg_sq": state["second"][number].to(d).clone(),
                }
        self.show(self.moved)


def _scale(weight: Tensor) -> Tensor:
    """s, to be broadcast over the weight: by its first axis, one for all of a vector."""
    whole = weight.square().mean().sqrt()
    whole = torch.where(whole > 0, whole, torch.full_like(whole, SMALLEST))
    if weight.ndim < 2:
        return whole.expand_as(weight).clone()
    each = weight.square().mean(tuple(range(1, weight.ndim)), keepdim=True).sqrt()
    return (each + LEAST_SCALE * whole).expand_as(weight).clone()
