"""Convolutions and products of matrices.

Pads may differ at the two ends of an axis, which torch's convolutions cannot say: then the input is padded first.
``SAME`` pads so that o = ⌈i / s⌉ outputs come out of i inputs at stride s, the odd one at the end (UPPER) or in front
(LOWER); a kernel k of dilation d spans (k − 1)·d + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from onnx_layermerge.recover.training._call import Call, Tensor, ints, operator

__all__ = ["pad_ends", "pads_of", "span"]

_CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def span(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """What a kernel covers along each axis."""
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]


def pads_of(
    call: Call, sizes: Sequence[int], covers: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Pads in front of and behind each spatial axis, from ``pads`` or ``auto_pad``."""
    rank, auto = len(sizes), call.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [0] * rank, [0] * rank
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-size // stride) - 1) * stride + cover - size, 0)
            for size, cover, stride in zip(sizes, covers, strides, strict=True)
        ]
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return (less, more) if auto == "SAME_UPPER" else (more, less)
    pads = ints(call.get("pads")) or [0] * (2 * rank)
    return pads[:rank], pads[rank:]


def pad_ends(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    """``x`` padded along its last ``len(begin)`` axes; negative pads cut."""
    if not any(begin) and not any(end):
        return x
    both = [size for pair in zip(reversed(begin), reversed(end), strict=True) for size in pair]
    return F.pad(x, both, value=value)


@operator("Conv")
def _conv(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    rank = w.ndim - 2
    if rank not in _CONVS:
        raise call.refuse(f"its kernel has {rank} spatial axes")
    strides, dilations = (list(call.get(name, (1,) * rank)) for name in ("strides", "dilations"))
    begin, end = pads_of(call, x.shape[2:], span(w.shape[2:], dilations), strides)
    padding = begin
    if begin != end or min(begin) < 0:
        x, padding = pad_ends(x, begin, end), [0] * rank
    if rank == 2 and strides != [1, 1] and w.shape[2:].numel() == 1 and not any(padding):
        # Only these places are read.  Left to torch (2.13, channels last, even sizes), the gradient writes beyond its
        # memory and the process dies.
        x, strides = x[:, :, :: strides[0], :: strides[1]], [1, 1]
    found: Tensor = _CONVS[rank](x, w, b, strides, padding, dilations, call.get("group", 1))
    return found


@operator("ConvTranspose")
def _conv_transpose(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """All s·(i − 1) + span outputs; then pads cut at the ends, and ``output_padding`` puts back behind the end."""
    rank = w.ndim - 2
    if rank not in _TRANSPOSED:
        raise call.refuse(f"its kernel has {rank} spatial axes")
    strides, dilations = (list(call.get(name, (1,) * rank)) for name in ("strides", "dilations"))
    extra = list(call.get("output_padding", (0,) * rank))
    whole = [s * (i - 1) + c for s, i, c in zip(strides, x.shape[2:], span(w.shape[2:], dilations), strict=True)]
    begin, end = _cuts(call, x.shape[2:], whole, strides, extra)
    y = _TRANSPOSED[rank](x, w, None, strides, 0, 0, call.get("group", 1), dilations)
    y = pad_ends(y, [-cut for cut in begin], [more - cut for more, cut in zip(extra, end, strict=True)])
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def _cuts(
    call: Call, sizes: Sequence[int], whole: Sequence[int], strides: Sequence[int], extra: Sequence[int]
) -> tuple[list[int], list[int]]:
    """How much is cut in front and behind, from pads, from the wanted shape, or so that each size is times stride."""
    auto, wanted = call.get("auto_pad", "NOTSET"), ints(call.get("output_shape"))
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if wanted is None:
        return pads_of(call, sizes, whole, strides)
    totals = [max(w + e - o, 0) for w, e, o in zip(whole, extra, wanted[-len(whole) :], strict=True)]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (less, more) if auto == "SAME_UPPER" else (more, less)


@operator("Gemm")
def _gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    if call.get("transA", 0):
        a = a.T
    if alpha == 1 and beta == 1 and call.get("transB", 0) and (c is None or c.ndim == 1) and len(a):
        return F.linear(a, b, c if c is None or len(c) == len(b) else c.expand(len(b)))
    y = alpha * torch.matmul(a, b.T if call.get("transB", 0) else b)
    return y if c is None else y + beta * c


@operator("MatMul")
def _matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


@operator("Einsum")
def _einsum(call: Call, *inputs: Tensor) -> Tensor:
    return torch.einsum(call.get("equation").replace(" ", ""), *inputs)
