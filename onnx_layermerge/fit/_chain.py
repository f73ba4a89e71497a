r"""A short chain of convolutions with activations between them, as arrays, and its gradient.

    x₀ = entry,   u_l = W_l ∗ x_{l−1} + b_l,   x_l = f_l(u_l),   y = u_L

runs over whole maps, each layer with its own zero padding, or over *windows* of the output, in float32 and with the
channels last.  A window reads what its receptive field covers and nothing is padded: what lies beyond the border of a
map is zero in the window of the entry, and ``valid`` says where a hidden value lies beyond the border of its own map,
where the next layer's padding makes it zero whatever the layer before would give there.

Dense convolutions are matrix products over patches; depthwise ones are sums over shifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from onnx_layermerge.fit._slope import Elementwise, elementwise
from onnx_layermerge.graph import Network, Series

__all__ = ["Chain", "Layer", "Run", "chain_of"]

Array = npt.NDArray[np.float32]
Weights = tuple[Array, Array]


@dataclass(frozen=True, eq=False)
class Layer:
    """One convolution in the plane; ``after`` is the activation behind it, None at the end of a chain."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    depthwise: bool
    after: Elementwise | None

    def reads(self, start: int, size: int, axis: int) -> tuple[int, int]:
        """First input position, which may be negative, and their number, behind the outputs [start, start + size)."""
        stride, kernel = self.stride[axis], self.kernel[axis]
        return start * stride - self.pads[axis], (size - 1) * stride + kernel

    def forward(self, x: Array, weights: Weights) -> Array:
        """[N, h, w, C_in] → [N, h', w', C_out], nothing padded."""
        weight, bias = weights
        if self.depthwise:
            result = np.empty((len(x), *self._out(x), len(bias)), np.float32)
            result[...] = bias
            part = np.empty_like(result)
            for row, column, window in self._shifts(x):
                np.multiply(window, weight[:, 0, row, column], out=part)
                result += part
            return result
        patches = self._patches(x)
        made: Array = patches @ weight.reshape(len(weight), -1).T
        made += bias
        return made.reshape(len(x), *self._out(x), len(weight))

    def backward(self, x: Array, weights: Weights, out: Array, *, entry: bool) -> tuple[Weights, Array | None]:
        """From the gradient [N, h', w', C_out] of the output to those of weight and bias and, unless the layer stands
        at the entry, of its input."""
        weight, bias = weights
        flat = out.reshape(-1, len(bias))
        slope = flat.sum(axis=0)
        back = None if entry else np.zeros_like(x)
        if self.depthwise:
            found = np.empty_like(weight)
            part = np.empty_like(out)
            for row, column, window in self._shifts(x):
                found[:, 0, row, column] = np.einsum("nhwc,nhwc->c", out, window)
                if back is not None:
                    np.multiply(out, weight[:, 0, row, column], out=part)
                    self._at(back, row, column)[...] += part
            return (found, slope), back
        rows = weight.reshape(len(weight), -1)
        gradient = (flat.T @ self._patches(x)).reshape(weight.shape)
        if back is not None:
            spread = (flat @ rows).reshape(*out.shape[:3], x.shape[3], *self.kernel)
            for row in range(self.kernel[0]):
                for column in range(self.kernel[1]):
                    self._at(back, row, column)[...] += spread[..., row, column]
        return (gradient, slope), back

    def makes(self, size: tuple[int, int], pads: tuple[int, int, int, int]) -> tuple[int, int]:
        """Size of the output for an input of ``size`` with these pads."""
        height, width = (
            (size[a] + pads[a] + pads[a + 2] - self.kernel[a]) // self.stride[a] + 1 for a in (0, 1)
        )
        return height, width

    def _out(self, x: Array) -> tuple[int, int]:
        return self.makes((x.shape[1], x.shape[2]), (0, 0, 0, 0))

    def _at(self, x: Array, row: int, column: int) -> Array:
        """What the tap (row, column) reads for every output."""
        (height, width), (down, right) = self._out(x), self.stride
        return x[:, row : row + down * (height - 1) + 1 : down, column : column + right * (width - 1) + 1 : right]

    def _shifts(self, x: Array) -> list[tuple[int, int, Array]]:
        return [(r, c, self._at(x, r, c)) for r in range(self.kernel[0]) for c in range(self.kernel[1])]

    def _patches(self, x: Array) -> Array:
        """[N·h'·w', C_in·∏kernel], in the order of a weight's axes."""
        if self.kernel == (1, 1):
            return self._at(x, 0, 0).reshape(-1, x.shape[3])
        windows = sliding_window_view(x, self.kernel, axis=(1, 2))[:, :: self.stride[0], :: self.stride[1]]
        return windows.reshape(-1, x.shape[3] * self.kernel[0] * self.kernel[1])


@dataclass(frozen=True, eq=False)
class Run:
    """What a forward pass left for the way back: the input of each layer, and each value in front of an activation."""

    inputs: list[Array]
    before: list[Array]
    y: Array


@dataclass(frozen=True, eq=False)
class Chain:
    """``weights`` are [C_out, C_in/groups, kh, kw] and [C_out] for each of ``layers``."""

    layers: tuple[Layer, ...]
    weights: tuple[Weights, ...]

    def made(self, height: int, width: int) -> tuple[int, int, int]:
        """Rows, columns and channels of the output for whole maps of this size."""
        size = (height, width)
        for layer in self.layers:
            size = layer.makes(size, layer.pads)
        return (*size, len(self.weights[-1][1]))

    def macs(self, height: int, width: int, *, padded: bool) -> int:
        """Multiply-accumulates of one forward pass over an entry of this size."""
        total, size = 0, (height, width)
        for layer, (weight, _) in zip(self.layers, self.weights, strict=True):
            size = layer.makes(size, layer.pads if padded else (0, 0, 0, 0))
            total += weight.size * size[0] * size[1]
        return total

    def forward(self, x: Array, valid: Sequence[Array | None] | None = None) -> Run:
        """From [N, h, w, C]: whole maps, or windows with ``valid`` [N, h, w, 1] for each hidden value (None: all)."""
        run = Run([], [], x)
        value = x
        for number, (layer, weights) in enumerate(zip(self.layers, self.weights, strict=True)):
            if valid is None and any(layer.pads):
                top, left, bottom, right = layer.pads
                value = np.pad(value, ((0, 0), (top, bottom), (left, right), (0, 0)))
            run.inputs.append(value)
            value = layer.forward(value, weights)
            if layer.after is not None:
                run.before.append(value)
                value = layer.after.value(value)
            if valid is not None and number < len(self.layers) - 1:
                mask = valid[number]
                value = value if mask is None else value * mask
        return Run(run.inputs, run.before, value)

    def backward(self, run: Run, out: Array, valid: Sequence[Array | None] | None = None) -> list[Weights]:
        """Gradients of the weights from that of y."""
        found: list[Weights] = []
        for number in reversed(range(len(self.layers))):
            layer = self.layers[number]
            if layer.after is not None:
                out = out * layer.after.slope(run.before[number])
            gradient, back = layer.backward(run.inputs[number], self.weights[number], out, entry=number == 0)
            found.append(gradient)
            if back is None:
                break
            top, left, bottom, right = layer.pads
            if valid is None:
                out = back[:, top : back.shape[1] - bottom, left : back.shape[2] - right]
            else:
                mask = valid[number - 1]
                out = back if mask is None else back * mask
        return found[::-1]


def chain_of(network: Network, series: Series) -> Chain | None:
    """``series`` as a chain; None where a convolution is neither dense nor depthwise, is dilated or not in the plane,
    or an activation is not the same for all channels."""
    layers, weights = [], []
    for number, (conv, activation) in enumerate(series):
        depthwise = conv.groups == conv.channels_in == conv.channels_out and conv.groups > 1
        plain = len(conv.kernel) == 2 and all(d == 1 for d in conv.dilation)
        last = number == len(series) - 1
        if not plain or not (conv.groups == 1 or depthwise) or (activation is not None) == last:
            return None
        after = None
        if activation is not None:
            if activation.channelwise:
                return None
            after = elementwise(network, activation)
        kernel, stride = (conv.kernel[0], conv.kernel[1]), (conv.stride[0], conv.stride[1])
        layers.append(Layer(kernel, stride, (conv.pads[0], conv.pads[1], conv.pads[2], conv.pads[3]), depthwise, after))
        bias = np.zeros(conv.channels_out) if conv.bias is None else conv.bias
        weights.append((conv.weight.astype(np.float32), bias.astype(np.float32)))
    return Chain(tuple(layers), tuple(weights)) if layers else None
