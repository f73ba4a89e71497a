"""Pooling, with pads that may differ at the two ends, dilations, and outputs rounded up.

With i inputs, pads p and p', stride s and a kernel that covers c, there are o = ⌊(i + p + p' − c) / s⌋ + 1 outputs;
with ``ceil_mode`` it is ⌈…⌉, less a last window that would start behind the input and its front pad.  What such a
window reaches beyond the pads counts nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F

from onnx_layermerge.recover.training._call import Call, Tensor, operator
from onnx_layermerge.recover.training._convolutions import pad_ends, pads_of, span

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class _Windows:
    """The windows of a pooling node over an input of these sizes; ``beyond`` is what they reach behind the pads."""

    def __init__(self, call: Call, x: Tensor) -> None:
        self.kernel = list(call.get("kernel_shape"))
        rank = len(self.kernel)
        if rank not in _MAX:
            raise call.refuse(f"it pools over {rank} axes")
        self.strides, self.dilations = (list(call.get(name, (1,) * rank)) for name in ("strides", "dilations"))
        covers, sizes = span(self.kernel, self.dilations), list(x.shape[2:])
        self.begin, self.end = pads_of(call, sizes, covers, self.strides)
        self.beyond = [0] * rank
        if call.get("ceil_mode", 0):
            for axis in range(rank):
                size, stride = sizes[axis] + self.begin[axis] + self.end[axis] - covers[axis], self.strides[axis]
                count = -(-size // stride) + 1
                if (count - 1) * stride >= sizes[axis] + self.begin[axis]:
                    count -= 1
                self.beyond[axis] = max((count - 1) * stride - size, 0)

    def padded(self, x: Tensor, value: float) -> Tensor:
        return pad_ends(x, self.begin, [a + b for a, b in zip(self.end, self.beyond, strict=True)], value)

    def sums(self, x: Tensor) -> Tensor:
        """Of each window of ``x``, which is padded already."""
        rank = len(self.kernel)
        if all(d == 1 for d in self.dilations):
            return _MEAN[rank](x, self.kernel, self.strides) * float(torch.Size(self.kernel).numel())
        flat = x.reshape(-1, 1, *x.shape[2:])
        ones = torch.ones((1, 1, *self.kernel), dtype=x.dtype, device=x.device)
        y = _CONVS[rank](flat, ones, None, self.strides, 0, self.dilations)
        return y.reshape(*x.shape[:2], *y.shape[2:])

    def counts(self, sizes: Sequence[int], with_pads: bool, like: Tensor) -> Tensor:
        """How many positions of each window count."""
        per_axis = []
        for axis, size in enumerate(sizes):
            begin, end, beyond = self.begin[axis], self.end[axis], self.beyond[axis]
            counted = torch.full((begin + size + end + beyond,), 1.0 if with_pads else 0.0)
            counted[begin : begin + size] = 1.0
            counted[begin + size + end :] = 0.0
            cover = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            windows = counted.unfold(0, cover, self.strides[axis])[:, :: self.dilations[axis]]
            per_axis.append(windows.sum(1))
        grid = reduce(lambda whole, one: whole[..., None] * one, per_axis)
        return grid.clamp(min=1.0).to(like)


@operator("MaxPool")
def _max_pool(call: Call, x: Tensor) -> Tensor:
    call.single()
    windows = _Windows(call, x)
    lowest = float("-inf") if x.is_floating_point() else float(torch.iinfo(x.dtype).min)
    x = windows.padded(x, lowest)
    found: Tensor = _MAX[len(windows.kernel)](x, windows.kernel, windows.strides, 0, windows.dilations)
    return found


@operator("AveragePool")
def _average_pool(call: Call, x: Tensor) -> Tensor:
    windows = _Windows(call, x)
    if not any((*windows.begin, *windows.end, *windows.beyond)) and set(windows.dilations) == {1}:
        return _MEAN[len(windows.kernel)](x, windows.kernel, windows.strides)
    counts = windows.counts(x.shape[2:], bool(call.get("count_include_pad", 0)), x)
    return windows.sums(windows.padded(x, 0.0)) / counts


@operator("LpPool")
def _lp_pool(call: Call, x: Tensor) -> Tensor:
    p, windows = call.get("p", 2), _Windows(call, x)
    return windows.sums(windows.padded(x.abs() ** p, 0.0)) ** (1 / p)


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


@operator("GlobalAveragePool")
def _global_average_pool(call: Call, x: Tensor) -> Tensor:
    return x.mean(_spatial(x), keepdim=True)


@operator("GlobalMaxPool")
def _global_max_pool(call: Call, x: Tensor) -> Tensor:
    return x.amax(_spatial(x), keepdim=True)


@operator("GlobalLpPool")
def _global_lp_pool(call: Call, x: Tensor) -> Tensor:
    p = call.get("p", 2)
    return (x.abs() ** p).sum(_spatial(x), keepdim=True) ** (1 / p)
