"""What a convolution does to space, one entry per spatial dimension.

A convolution of kernel k, stride s and pads p (begin), q (end) computes, for every output position t,

    y[t] = b + Σ_u W[u] · x[s·t + u − p],        0 ≤ u < k,   0 ≤ t < H',
    H' = ⌊(H + p + q − k) / s⌋ + 1,

with x = 0 outside 0 ≤ position < H.  A dilation d is written into the kernel, k ← d(k − 1) + 1 with zeros
between the taps, so that it needs no symbol of its own.  The slack c = p + q − k alone fixes the output size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

__all__ = ["Geometry"]


@dataclass(frozen=True)
class Geometry:
    """Kernel, stride and zero padding of a convolution-like map, each a tuple with one int per dimension.

    Kernels and strides are ≥ 1, pads are ≥ 0, and there is at least one dimension.

    Raises:
        ValueError: a field has another length than the others or a value out of range.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad_begin: tuple[int, ...]
    pad_end: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("kernel", "stride", "pad_begin", "pad_end"):
            values = getattr(self, name)
            if type(values) is not tuple or any(type(value) is not int for value in values):
                values = tuple(int(value) for value in values)
                object.__setattr__(self, name, values)  # plain ints, whatever came in: hashable and JSON-ready
            least = 0 if name.startswith("pad") else 1
            if len(values) != len(self.kernel) or not values or min(values) < least:
                raise ValueError(
                    f"{name} must hold {len(self.kernel) or 'some'} values ≥ {least}, got {values}"
                )

    @staticmethod
    @cache
    def identity(ndim: int) -> Geometry:
        """The geometry of the identity map on ``ndim`` spatial dimensions: a 1-kernel without padding."""
        return Geometry((1,) * ndim, (1,) * ndim, (0,) * ndim, (0,) * ndim)

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.kernel)

    @cached_property
    def slack(self) -> tuple[int, ...]:
        """c = pad_begin + pad_end − kernel: with the stride, all that the output size depends on."""
        return tuple(p + q - k for p, q, k in zip(self.pad_begin, self.pad_end, self.kernel, strict=True))

    @property
    def centre_offset(self) -> tuple[float, ...]:
        """(k − 1)/2 − p: the centre of output t's receptive field is at input position s·t + this."""
        return tuple((k - 1) / 2 - p for k, p in zip(self.kernel, self.pad_begin, strict=True))

    def out_size(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Output sizes for the input ``sizes``; a value below 1 says that the map does not fit the input.

        Raises:
            ValueError: ``sizes`` has another number of dimensions.
        """
        if len(sizes) != self.ndim:
            raise ValueError(f"{self.ndim} spatial sizes are needed, got {tuple(sizes)}")
        return tuple((h + c) // s + 1 for h, c, s in zip(sizes, self.slack, self.stride, strict=True))

    def then(self, other: Geometry) -> Geometry:
        """The geometry of ``other`` after ``self``: the two maps as one.

        Put m = s2·t + v − p2, the position that tap v of the second map reads, into the first:
        s1·m + u − p1 = s1·s2·t + (u + s1·v) − (p1 + s1·p2).  Hence

            k = k1 + s1(k2 − 1),   s = s1·s2,   p = p1 + s1·p2,   q = q1 + s1·q2.

        The output size is the nested one.  With c_i = p_i + q_i − k_i the slack of the product is
        c = c1 + s1·c2 + s1, and because ⌊⌊a/s1⌋/s2⌋ = ⌊a/(s1·s2)⌋ for integers,

            H'' = ⌊(⌊(H + c1)/s1⌋ + 1 + c2)/s2⌋ + 1 = ⌊⌊(H + c1 + s1 + s1·c2)/s1⌋/s2⌋ + 1 = ⌊(H + c)/s⌋ + 1.

        Raises:
            ValueError: the numbers of dimensions differ.
        """
        self._require_same_ndim(other)
        dims = range(self.ndim)
        return Geometry(
            tuple(self.kernel[d] + self.stride[d] * (other.kernel[d] - 1) for d in dims),
            tuple(self.stride[d] * other.stride[d] for d in dims),
            tuple(self.pad_begin[d] + self.stride[d] * other.pad_begin[d] for d in dims),
            tuple(self.pad_end[d] + self.stride[d] * other.pad_end[d] for d in dims),
        )

    def same_grid(self, other: Geometry) -> bool:
        """Whether both maps give the same output size for every input size: equal stride and equal slack."""
        return self.ndim == other.ndim and self.stride == other.stride and self.slack == other.slack

    def union(self, other: Geometry) -> Geometry:
        """The smallest geometry on the same grid whose receptive field covers both.

        Output t reads the positions s·t − p … s·t − p + k − 1 = s·t + (q − c) − 1, so the larger p and the
        larger q cover both fields, and k = p + q − c keeps the slack.

        Raises:
            ValueError: the two are not on the same grid, so that their outputs cannot be added.
        """
        if not self.same_grid(other):
            raise ValueError(f"maps of unequal stride or output size have no union: {self} and {other}")
        begin = tuple(map(max, self.pad_begin, other.pad_begin))
        end = tuple(map(max, self.pad_end, other.pad_end))
        kernel = tuple(p + q - c for p, q, c in zip(begin, end, self.slack, strict=True))
        return Geometry(kernel, self.stride, begin, end)

    def with_kernel(self, kernel: tuple[int, ...]) -> Geometry | None:
        """The geometry of a convolution of another kernel that stands for the same map.

        Stride and slack stay, so output sizes are equal for every input size.  The receptive field keeps its
        centre: p' = p + (k' − k)/2, rounded down where the parities differ (the centre then moves by half a
        position towards the end).  None where that needs a negative pad: no such convolution exists.

        Raises:
            ValueError: ``kernel`` has another number of dimensions or a value below 1.
        """
        if len(kernel) != self.ndim or min(kernel) < 1:
            raise ValueError(f"kernel must hold {self.ndim} values ≥ 1, got {kernel}")
        begin = tuple(
            p + (new - old) // 2 for p, new, old in zip(self.pad_begin, kernel, self.kernel, strict=True)
        )
        end = tuple(c + new - p for c, new, p in zip(self.slack, kernel, begin, strict=True))
        if min(begin + end) < 0:
            return None
        return Geometry(kernel, self.stride, begin, end)

    def _require_same_ndim(self, other: Geometry) -> None:
        if self.ndim != other.ndim:
            raise ValueError(f"maps on {self.ndim} and {other.ndim} spatial dimensions do not combine")
