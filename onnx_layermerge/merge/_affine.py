"""Convolutions as affine maps that compose and add, in float64.

In the symbols of ``_geometry``, with output channels o, middle channels m and input channels i:

    series     W[o,i,w] = Σ_m Σ_v W2[o,m,v] · W1[m,i,w − s1·v]      b = b2 + Σ_m Σ_v W2[o,m,v] · b1[m]
    parallel   W = W1 + W2, both kernels placed on the union of their receptive fields      b = b1 + b2
    norm       W ← a·W, b ← a·(b − μ) + β, a = γ/√(σ² + ε)      (per output channel, ε the norm's own)

The series is exact wherever every position that the second convolution reads was computed by the first;
what its zero padding does to the border is the matter of ``_certificate``.

A convolution of g groups is one of g' groups for every divisor g' of g (its weight then is block-diagonal),
so two convolutions compose and add in gcd(g1, g2) groups: depthwise∘depthwise stays depthwise, and dense is
what is left when nothing else fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from ._geometry import Geometry

__all__ = ["AffineConv"]

Array = NDArray[np.float64]
_ALL = slice(None)


@dataclass(frozen=True, eq=False)
class AffineConv:
    """One convolution: ``weight`` float64 [C_out, C_in/groups, *kernel] and ``bias`` float64 [C_out].

    The arrays are read-only views; every operation returns a new object.

    Raises:
        ValueError: shapes, geometry and groups do not belong together.
    """

    weight: Array
    bias: Array
    geometry: Geometry
    groups: int = 1

    def __post_init__(self) -> None:
        for name in ("weight", "bias"):
            view = np.asarray(getattr(self, name), dtype=np.float64).view()
            view.setflags(write=False)
            object.__setattr__(self, name, view)
        if self.weight.shape[2:] != self.geometry.kernel:
            raise ValueError(
                f"a weight of shape {self.weight.shape} has not the kernel {self.geometry.kernel}"
            )
        if self.bias.shape != self.weight.shape[:1]:
            raise ValueError(
                f"a bias of shape {self.bias.shape} does not fit {self.weight.shape[0]} channels"
            )
        if self.groups < 1 or self.out_channels % self.groups:
            raise ValueError(f"{self.out_channels} output channels do not split into {self.groups} groups")

    @classmethod
    def from_conv(
        cls,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        stride: Sequence[int] | None = None,
        dilation: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        groups: int = 1,
    ) -> AffineConv:
        """An ONNX ``Conv``: weight [C_out, C_in/groups, *kernel] of any float type, its attributes as there.

        ``pads`` holds all begins, then all ends.  None means no bias, strides of 1, dilations of 1, no pads.
        The dilation is expanded: the kernel becomes d(k − 1) + 1 wide, with zeros between the taps.

        Raises:
            ValueError: an attribute's length or value does not fit the weight.
        """
        taps = np.asarray(weight, dtype=np.float64)
        ndim = taps.ndim - 2
        step = tuple(dilation) if dilation is not None else (1,) * ndim
        pad = tuple(pads) if pads is not None else (0,) * (2 * ndim)
        if ndim < 1 or len(step) != ndim or min(step) < 1 or len(pad) != 2 * ndim:
            raise ValueError(f"dilations {step} and pads {pad} do not fit a weight of shape {taps.shape}")
        kernel = tuple(d * (k - 1) + 1 for d, k in zip(step, taps.shape[2:], strict=True))
        geometry = Geometry(
            kernel, tuple(stride) if stride is not None else (1,) * ndim, pad[:ndim], pad[ndim:]
        )
        expanded = np.zeros(taps.shape[:2] + kernel)
        expanded[(_ALL, _ALL, *(slice(None, None, d) for d in step))] = taps
        return cls(expanded, np.zeros(len(taps)) if bias is None else np.asarray(bias), geometry, groups)

    @classmethod
    def dirac(cls, channels: int, ndim: int) -> AffineConv:
        """The identity map on ``channels`` channels, as a depthwise 1-kernel."""
        return cls(
            np.ones((channels, 1) + (1,) * ndim), np.zeros(channels), Geometry.identity(ndim), channels
        )

    @classmethod
    def diagonal(cls, scale: ArrayLike, shift: ArrayLike, ndim: int) -> AffineConv:
        """a·x + c per channel (both [C]), as a depthwise 1-kernel.

        Raises:
            ValueError: ``scale`` and ``shift`` are not two vectors of one length.
        """
        a = np.asarray(scale, dtype=np.float64)
        return cls(a.reshape(-1, *(1,) * (1 + ndim)), np.asarray(shift), Geometry.identity(ndim), len(a))

    @classmethod
    def average(cls, channels: int, geometry: Geometry, dilation: Sequence[int] | None = None) -> AffineConv:
        """Every channel's mean over a window, zero padding counted, as a depthwise convolution.

        ``geometry`` has the dilation expanded into its kernel.

        Raises:
            ValueError: ``dilation`` does not fit the kernel.
        """
        step = tuple(dilation) if dilation is not None else (1,) * geometry.ndim
        if len(step) != geometry.ndim or any((k - 1) % d for k, d in zip(geometry.kernel, step, strict=True)):
            raise ValueError(f"dilations {step} do not fit the kernel {geometry.kernel}")
        window = np.zeros((channels, 1, *geometry.kernel))
        taps = tuple(slice(None, None, d) for d in step)
        window[(_ALL, _ALL, *taps)] = 1.0
        return cls(window / window[0].sum(), np.zeros(channels), geometry, channels)

    @property
    def out_channels(self) -> int:
        """C_out."""
        return int(self.weight.shape[0])

    @property
    def in_channels(self) -> int:
        """C_in."""
        return int(self.weight.shape[1]) * self.groups

    def then(self, other: AffineConv) -> AffineConv:
        """``other`` after ``self`` as one convolution, in gcd(groups) groups (series rule of the module).

        Raises:
            ValueError: the channels or the numbers of spatial dimensions do not match.
        """
        if other.in_channels != self.out_channels:
            raise ValueError(f"{self.out_channels} channels do not feed a convolution of {other.in_channels}")
        geometry = self.geometry.then(other.geometry)
        groups = gcd(self.groups, other.groups)
        # Only one of the two is ever expanded, and only if neither has the common number of groups.
        outer = other if self.groups == groups else other.regrouped(groups)
        weight = np.zeros((other.out_channels, self.in_channels // groups, *geometry.kernel))
        for v in np.ndindex(other.geometry.kernel):
            tap = outer.weight[(..., *v)]
            if not tap.any():  # the holes of a dilated kernel
                continue
            at = zip(v, self.geometry.stride, self.geometry.kernel, strict=True)
            window = (slice(s * a, s * a + k) for a, s, k in at)
            weight[(_ALL, _ALL, *window)] += _mix(tap, outer.groups, self, groups)
        taps = outer.weight.reshape(*outer.weight.shape[:2], -1).sum(axis=2)
        passed = _split(taps, outer.groups) @ self.bias.reshape(outer.groups, -1, 1)
        return AffineConv(weight, other.bias + passed.reshape(-1), geometry, groups)

    def plus(self, other: AffineConv) -> AffineConv:
        """The sum of two parallel branches as one convolution, in gcd(groups) groups.

        Raises:
            ValueError: the branches differ in channels, stride or output size.
        """
        if (self.in_channels, self.out_channels) != (other.in_channels, other.out_channels):
            raise ValueError("parallel branches must agree in input and output channels")
        geometry = self.geometry.union(other.geometry)
        groups = gcd(self.groups, other.groups)
        one, two = (branch.regrouped(groups)._placed(geometry) for branch in (self, other))
        return AffineConv(one + two, self.bias + other.bias, geometry, groups)

    def beside(self, other: AffineConv) -> AffineConv:
        """Two branches with one input, their output channels one after the other: one dense convolution.

        Raises:
            ValueError: the branches differ in input channels, stride or output size.
        """
        if self.in_channels != other.in_channels:
            raise ValueError("branches side by side must read the same channels")
        geometry = self.geometry.union(other.geometry)
        weights = [branch.dense()._placed(geometry) for branch in (self, other)]
        return AffineConv(np.concatenate(weights), np.concatenate((self.bias, other.bias)), geometry)

    def scale_channels(self, factor: ArrayLike) -> AffineConv:
        """Every output channel times its ``factor`` [C_out] (or one number): weight and bias alike.

        Raises:
            ValueError: ``factor`` does not broadcast to [C_out].
        """
        a = np.broadcast_to(np.asarray(factor, dtype=np.float64), self.bias.shape)
        return replace(
            self, weight=self.weight * a.reshape(-1, *(1,) * (self.weight.ndim - 1)), bias=self.bias * a
        )

    def fold_batchnorm(
        self, scale: ArrayLike, bias: ArrayLike, mean: ArrayLike, var: ArrayLike, epsilon: float
    ) -> AffineConv:
        """This convolution followed by an inference BatchNormalization (norm rule of the module).

        ``scale``, ``bias``, ``mean``, ``var`` are γ, β, μ, σ², each [C_out]; ``epsilon`` is that node's own.

        Raises:
            ValueError: a statistic does not fit the channels, or σ² + ε is not positive.
        """
        gamma, beta, mu, spread = (np.asarray(value, dtype=np.float64) for value in (scale, bias, mean, var))
        if any(value.shape != self.bias.shape for value in (gamma, beta, mu, spread)):
            raise ValueError(f"every BatchNormalization statistic must have shape {self.bias.shape}")
        if not np.all(spread + epsilon > 0):
            raise ValueError("variance plus epsilon must be positive in every channel")
        scaled = replace(self, bias=self.bias - mu).scale_channels(gamma / np.sqrt(spread + epsilon))
        return replace(scaled, bias=scaled.bias + beta)

    def regrouped(self, groups: int) -> AffineConv:
        """The same map in fewer groups, block-diagonal within each.

        Raises:
            ValueError: ``groups`` does not divide this convolution's groups.
        """
        if groups < 1 or self.groups % groups:
            raise ValueError(f"{self.groups} groups cannot be written as {groups}")
        if groups == self.groups:
            return self
        r = self.groups // groups  # this many old groups become one new group
        per_out, per_in = self.out_channels // self.groups, self.weight.shape[1]
        kernel = self.geometry.kernel
        weight = np.zeros((groups, r, per_out, r, per_in, *kernel))
        block = np.arange(r)
        # Two index arrays apart move their common axis to the front: [r, groups, per_out, per_in, *kernel].
        weight[:, block, :, block] = np.moveaxis(
            self.weight.reshape(groups, r, per_out, per_in, *kernel), 1, 0
        )
        return replace(self, weight=weight.reshape(self.out_channels, r * per_in, *kernel), groups=groups)

    def dense(self) -> AffineConv:
        """The same map in one group."""
        return self.regrouped(1)

    def apply(self, x: ArrayLike) -> Array:
        """The convolution of ``x`` [N, C_in, *sizes], zero padded: float64 [N, C_out, *out_size(sizes)].

        The plain reference that certificates are checked with (patches times weights); not tuned for memory.

        Raises:
            ValueError: ``x`` has other channels or dimensions, or is too small for the kernel.
        """
        data = np.asarray(x, dtype=np.float64)
        g = self.geometry
        if data.ndim != g.ndim + 2 or data.shape[1] != self.in_channels:
            raise ValueError(
                f"input of shape {data.shape} is not [N, {self.in_channels}, {g.ndim} spatial sizes]"
            )
        sizes = g.out_size(data.shape[2:])
        if min(sizes) < 1:
            raise ValueError(f"input of shape {data.shape} is too small for {g}")
        padded = np.pad(data, [(0, 0), (0, 0), *zip(g.pad_begin, g.pad_end, strict=True)])
        axes = tuple(range(2, 2 + g.ndim))
        windows = sliding_window_view(padded, g.kernel, axis=axes)
        windows = windows[(_ALL, _ALL, *(slice(None, None, s) for s in g.stride))]
        n, per_in = len(data), self.weight.shape[1]
        patches = windows.reshape(n, self.groups, per_in, prod(sizes), prod(g.kernel))
        patches = patches.transpose(1, 0, 3, 2, 4).reshape(
            self.groups, n * prod(sizes), per_in * prod(g.kernel)
        )
        out = patches @ self.weight.reshape(self.groups, -1, patches.shape[2]).swapaxes(1, 2)
        out = out.reshape(self.groups, n, prod(sizes), -1).transpose(1, 0, 3, 2).reshape(n, -1, *sizes)
        return np.asarray(out + self.bias.reshape(-1, *(1,) * g.ndim), dtype=np.float64)

    def _placed(self, geometry: Geometry) -> Array:
        """The weight inside the larger kernel of ``geometry``, every tap over the position that it reads."""
        before = [new - old for new, old in zip(geometry.pad_begin, self.geometry.pad_begin, strict=True)]
        after = [new - old for new, old in zip(geometry.pad_end, self.geometry.pad_end, strict=True)]
        return np.pad(self.weight, [(0, 0), (0, 0), *zip(before, after, strict=True)])


def _split(matrix: Array, groups: int) -> Array:
    """[C_out, C_in/groups] as a stack of one matrix per group: [groups, C_out/groups, C_in/groups]."""
    return matrix.reshape(groups, -1, matrix.shape[1])


def _mix(tap: Array, tap_groups: int, inner: AffineConv, groups: int) -> Array:
    """Σ_m tap[o,m] · W1[m,i,u]: the ``inner`` weight through one tap [C_out, C_mid/tap_groups].

    Returns [C_out, C_in/groups, *k1] for ``groups`` = gcd of both; one of the two has that many groups.
    """
    rows: Array
    mixed: Array
    kernel = inner.geometry.kernel
    if inner.groups == groups:
        # Case 1, the tap has as many groups or more: the rows m of one of its groups share one inner group.
        rows = inner.weight.reshape(tap_groups, -1, inner.weight[0].size)
        mixed = _split(tap, tap_groups) @ rows
    else:
        # Case 2, the inner one has more: r inner groups side by side fill the inputs of one product group.
        r = inner.groups // groups
        columns = tap.reshape(groups, -1, r, tap.shape[1] // r).swapaxes(1, 2)
        rows = inner.weight.reshape(groups, r, -1, inner.weight[0].size)
        mixed = (columns @ rows).swapaxes(1, 2)
    return np.asarray(mixed.reshape(len(tap), inner.in_channels // groups, *kernel), dtype=np.float64)
