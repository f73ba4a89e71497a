"""Functions of single values, and of several that are broadcast against each other."""

from __future__ import annotations

import operator as python
from collections.abc import Callable
from functools import reduce
from math import inf

import torch
import torch.nn.functional as F

from onnx_layermerge.recover.training._call import Call, Tensor, operator

_OF_ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}
_OF_TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}
_OF_MANY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Sum": torch.add,
}


@operator(*_OF_ONE)
def _one(call: Call, x: Tensor) -> Tensor:
    return _OF_ONE[call.op](x)


@operator(*_OF_TWO)
def _two(call: Call, a: Tensor, b: Tensor) -> Tensor:
    return _OF_TWO[call.op](a, b)


@operator(*_OF_MANY)
def _many(call: Call, *inputs: Tensor) -> Tensor:
    return reduce(_OF_MANY[call.op], inputs)


@operator("Mean")
def _mean(call: Call, *inputs: Tensor) -> Tensor:
    return reduce(python.add, inputs) / len(inputs)


@operator("Div")
def _div(call: Call, a: Tensor, b: Tensor) -> Tensor:
    whole = not a.is_floating_point() and not b.is_floating_point()
    return torch.div(a, b, rounding_mode="trunc" if whole else None)


@operator("Mod")
def _mod(call: Call, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if call.get("fmod", 0) else torch.remainder(a, b)


@operator("Pow")
def _pow(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """In the type of the base; the gradient of a constant exponent is none, or it would be that of log a."""
    if b.numel() == 1 and not b.requires_grad:
        return torch.pow(a, b.item()).to(a.dtype) if a.ndim >= b.ndim else torch.pow(a, b).to(a.dtype)
    return torch.pow(a, b).to(a.dtype)


@operator("Where")
def _where(call: Call, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


@operator("Clip", sizes=(1, 2))
def _clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    least = call.get("min", -inf) if low is None else low.item()
    most = call.get("max", inf) if high is None else high.item()
    if not x.is_floating_point():  # an int has no infinity to be clipped to
        limits = torch.iinfo(x.dtype)
        least, most = max(least, limits.min), min(most, limits.max)
    if x.is_floating_point() and least <= most:
        return F.hardtanh(x, least, most)  # as clamp, with a gradient that is one pass instead of four
    return x.clamp(least, most)


@operator("Dropout")
def _dropout(call: Call, x: Tensor, *unused: Tensor | None) -> Tensor:
    """The identity, as at inference."""
    call.single()
    return x


@operator("LeakyRelu")
def _leaky_relu(call: Call, x: Tensor) -> Tensor:
    return F.leaky_relu(x, call.get("alpha", 0.01))


@operator("PRelu")
def _prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


@operator("Elu")
def _elu(call: Call, x: Tensor) -> Tensor:
    return F.elu(x, call.get("alpha", 1.0))


@operator("Celu")
def _celu(call: Call, x: Tensor) -> Tensor:
    return F.celu(x, call.get("alpha", 1.0))


@operator("Selu")
def _selu(call: Call, x: Tensor) -> Tensor:
    alpha, gamma = call.get("alpha", 1.67326319217681884765625), call.get("gamma", 1.05070102214813232421875)
    return gamma * F.elu(x, alpha)


@operator("Gelu")
def _gelu(call: Call, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=call.get("approximate", "none"))


@operator("HardSigmoid")
def _hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    return (x * call.get("alpha", 0.2) + call.get("beta", 0.5)).clamp(0, 1)


@operator("Swish")
def _swish(call: Call, x: Tensor) -> Tensor:
    return x * torch.sigmoid(call.get("alpha", 1.0) * x)


@operator("ThresholdedRelu")
def _thresholded_relu(call: Call, x: Tensor) -> Tensor:
    return torch.where(x > call.get("alpha", 1.0), x, torch.zeros_like(x))


@operator("Shrink")
def _shrink(call: Call, x: Tensor) -> Tensor:
    bias, bound = call.get("bias", 0.0), call.get("lambd", 0.5)
    return torch.where(x > bound, x - bias, torch.where(x < -bound, x + bias, torch.zeros_like(x)))
