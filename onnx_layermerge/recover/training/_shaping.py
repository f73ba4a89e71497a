"""Operators that move values about, or compute with sizes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from onnx_layermerge.recover.training._call import Call, Tensor, axis_of, ints, operator
from onnx_layermerge.recover.training._convolutions import pad_ends
from onnx_layermerge.recover.training._types import torch_type

_PADDING = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _wanted(given: Tensor | None, call: Call, name: str) -> list[int] | None:
    """Whole numbers that newer opsets have as an input and older ones as an attribute."""
    return ints(call.get(name)) if given is None else ints(given)


@operator("Constant")
def _constant(call: Call) -> Tensor:
    for name, kind in (("value_float", torch.float32), ("value_floats", torch.float32), ("value_int", torch.int64),
                       ("value_ints", torch.int64)):  # fmt: skip
        if name in call.attributes:
            return torch.tensor(call.get(name), dtype=kind)
    value = call.get("value")
    if not isinstance(value, torch.Tensor):
        raise call.refuse("it holds no numbers")
    return value


@operator("ConstantOfShape", sizes=(0,))
def _constant_of_shape(call: Call, shape: Tensor) -> Tensor:
    value = call.get("value")
    return torch.zeros(ints(shape)) if value is None else value.reshape(()).expand(ints(shape)).clone()


@operator("Shape")
def _shape(call: Call, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[call.get("start", 0) : call.get("end")], dtype=torch.int64)


@operator("Size")
def _size(call: Call, x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


@operator("Cast")
def _cast(call: Call, x: Tensor) -> Tensor:
    return x.to(torch_type(call.get("to"), call))


@operator("CastLike")
def _cast_like(call: Call, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


@operator("Reshape", sizes=(1,))
def _reshape(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    wanted = ints(shape) or []
    if not call.get("allowzero", 0):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


@operator("Flatten")
def _flatten(call: Call, x: Tensor) -> Tensor:
    axis = axis_of(call.get("axis", 1), x.ndim)
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@operator("Squeeze", sizes=(1,))
def _squeeze(call: Call, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = _wanted(given, call, "axes")
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operator("Unsqueeze", sizes=(1,))
def _unsqueeze(call: Call, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = _wanted(given, call, "axes") or []
    for axis in sorted(axis_of(axis, x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Transpose")
def _transpose(call: Call, x: Tensor) -> Tensor:
    return x.permute(*call.get("perm", range(x.ndim)[::-1]))


@operator("Concat")
def _concat(call: Call, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, call.get("axis", 1))


@operator("Split", sizes=(1,))
def _split(call: Call, x: Tensor, given: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, sizes = call.get("axis", 0), _wanted(given, call, "split")
    if sizes is None:  # equal parts, the last one smaller
        whole = x.shape[axis]
        each = -(-whole // call.get("num_outputs", call.outputs))
        sizes = [max(0, min(each, whole - start)) for start in range(0, each * call.outputs, each)]
    return torch.split(x, sizes, axis)


@operator("Slice", sizes=(1, 2, 3, 4))
def _slice(
    call: Call,
    x: Tensor,
    begin: Tensor | None = None,
    end: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    starts, ends = _wanted(begin, call, "starts") or [], _wanted(end, call, "ends") or []
    along = _wanted(axes, call, "axes") or list(range(len(starts)))
    strides = ints(steps) or [1] * len(starts)
    for axis, start, stop, step in zip(along, starts, ends, strides, strict=True):
        size = x.shape[axis]
        # An end below −size means "in front of the first", which is None in Python only when going backwards.
        taken = range(size)[start : None if step < 0 and stop < -size else stop : step]
        if step > 0:
            x = x.narrow(axis, taken.start, max(0, taken.stop - taken.start)) if len(taken) else x.narrow(axis, 0, 0)
            x = x if step == 1 else x.index_select(axis, torch.arange(0, x.shape[axis], step, device=x.device))
        else:
            x = x.index_select(axis, torch.tensor(list(taken), dtype=torch.int64, device=x.device))
    return x


@operator("Gather")
def _gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = axis_of(call.get("axis", 0), x.ndim)
    flat = indices.reshape(-1).long()
    found = x.index_select(axis, torch.where(flat < 0, flat + x.shape[axis], flat))
    return found.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def _gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = axis_of(call.get("axis", 0), x.ndim)
    return x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices).long())


@operator("Expand", sizes=(1,))
def _expand(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    return x.broadcast_to(torch.broadcast_shapes(x.shape, tuple(ints(shape) or ())))


@operator("Tile", sizes=(1,))
def _tile(call: Call, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(ints(repeats))


@operator("Range", sizes=(0, 1, 2))
def _range(call: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@operator("CumSum", sizes=(1,))
def _cum_sum(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    along = int(axis.item())
    x = x.flip(along) if call.get("reverse", 0) else x
    y = x.cumsum(along) - x if call.get("exclusive", 0) else x.cumsum(along)
    return y.flip(along) if call.get("reverse", 0) else y


@operator("TopK", sizes=(1,))
def _top_k(call: Call, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    found = x.topk(int(k.item()), call.get("axis", -1), bool(call.get("largest", 1)), True)
    return found.values, found.indices


@operator("DepthToSpace")
def _depth_to_space(call: Call, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = call.get("blocksize")
    if call.get("mode", "DCR") == "CRD":
        y = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        y = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def _space_to_depth(call: Call, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = call.get("blocksize")
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


@operator("Pad", sizes=(1, 2, 3))
def _pad(
    call: Call, x: Tensor, given: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    pads = _wanted(given, call, "pads") or []
    along = [axis_of(axis, x.ndim) for axis in ints(axes) or range(len(pads) // 2)]
    begin, end = [0] * x.ndim, [0] * x.ndim
    for place, axis in enumerate(along):
        begin[axis], end[axis] = pads[place], pads[place + len(along)]
    mode = call.get("mode", "constant")
    if mode == "constant":
        filled: Any = call.get("value", 0.0) if value is None or not value.numel() else value.item()
        return pad_ends(x, begin, end, filled)
    if mode not in _PADDING:
        raise call.refuse(f"its mode is '{mode}'")
    # What is cut is cut first: a reflection does not see it.
    x = pad_ends(x, [min(size, 0) for size in begin], [min(size, 0) for size in end])
    for axis, sizes in enumerate(zip(begin, end, strict=True)):
        first, last = max(sizes[0], 0), max(sizes[1], 0)
        if first or last:
            taken = np.pad(np.arange(x.shape[axis]), (first, last), mode=_PADDING[mode])  # type: ignore[call-overload]
            x = x.index_select(axis, torch.from_numpy(taken).to(x.device))
    return x
