"""Normalisations, softmax and reductions.

A BatchNormalization uses the statistics that the model holds, while training too: y = γ·(x − μ)/√(σ² + ε) + β with γ
and β learned, μ and σ² as they are.  Statistics of a fine-tuning's small batches would only blur what the model has.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F

from onnx_layermerge.recover.training._call import Call, Tensor, axis_of, ints, operator

_REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """[C] to be broadcast along axis 1."""
    return values.reshape(-1, *[1] * (x.ndim - 2))


@operator("BatchNormalization")
def _batch_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if call.get("training_mode", 0) or not call.get("spatial", 1):
        raise call.refuse("it is in training mode or not by channel")
    call.single()
    return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, call.get("epsilon", 1e-5))


@operator("InstanceNormalization")
def _instance_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.group_norm(x, x.shape[1], scale, shift, call.get("epsilon", 1e-5))


@operator("GroupNormalization")
def _group_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    groups = call.get("num_groups")
    if len(scale) != x.shape[1]:  # up to opset 20 they are by group
        scale, shift = (each.repeat_interleave(x.shape[1] // groups) for each in (scale, shift))
    return torch.group_norm(x, groups, scale, shift, call.get("epsilon", 1e-5))


@operator("LayerNormalization")
def _layer_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    call.single()
    shape = x.shape[axis_of(call.get("axis", -1), x.ndim) :]
    y = F.layer_norm(x, shape, None, None, call.get("epsilon", 1e-5)) * scale
    return y if shift is None else y + shift


@operator("RMSNormalization")
def _rms_norm(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(axis_of(call.get("axis", -1), x.ndim), x.ndim))
    return x * torch.rsqrt(x.square().mean(axes, True) + call.get("epsilon", 1e-5)) * scale


@operator("LpNormalization")
def _lp_norm(call: Call, x: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(x, call.get("p", 2), call.get("axis", -1), True)
    return x / torch.where(size == 0, torch.ones_like(size), size)


@operator("MeanVarianceNormalization")
def _mean_variance_norm(call: Call, x: Tensor) -> Tensor:
    axes = list(call.get("axes", (0, 2, 3)))
    centred = x - x.mean(axes, True)
    return centred / (centred.square().mean(axes, True).sqrt() + 1e-9)


@operator("LRN")
def _lrn(call: Call, x: Tensor) -> Tensor:
    size, alpha, beta = call.get("size"), call.get("alpha", 1e-4), call.get("beta", 0.75)
    before = (size - 1) // 2
    squares = F.pad(x.square(), [0, 0] * (x.ndim - 2) + [before, size - 1 - before])
    total = sum(squares[:, start : start + x.shape[1]] for start in range(size))
    y: Tensor = x / (call.get("bias", 1.0) + alpha / size * total) ** beta
    return y


@operator("Softmax", "LogSoftmax")
def _softmax(call: Call, x: Tensor) -> Tensor:
    """Up to opset 12 over all axes from ``axis`` on at once."""
    function = torch.softmax if call.op == "Softmax" else torch.log_softmax
    if call.opset >= 13:
        return function(x, call.get("axis", -1))
    axis = axis_of(call.get("axis", 1), x.ndim)
    return function(x.reshape(prod(x.shape[:axis]), -1), 1).reshape(x.shape)


@operator(*_REDUCTIONS, "ReduceProd", sizes=(1,))
def _reduce(call: Call, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = ints(call.get("axes")) if given is None else ints(given)
    keep = bool(call.get("keepdims", 1))
    if not axes:
        if call.get("noop_with_empty_axes", 0):
            return x
        axes = list(range(x.ndim))
    if not axes:
        return x
    if call.op != "ReduceProd":
        return _REDUCTIONS[call.op](x, axes, keep)
    for axis in sorted((axis_of(axis, x.ndim) for axis in axes), reverse=True):
        x = x.prod(axis, keep)
    return x


@operator("ArgMax", "ArgMin")
def _arg(call: Call, x: Tensor) -> Tensor:
    axis, last = call.get("axis", 0), bool(call.get("select_last_index", 0))
    x = x.flip(axis) if last else x
    found = (torch.argmax if call.op == "ArgMax" else torch.argmin)(x, axis, bool(call.get("keepdims", 1)))
    return x.shape[axis] - 1 - found if last else found
