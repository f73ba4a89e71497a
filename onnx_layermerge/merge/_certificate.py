"""How far one merged convolution equals what it replaces, proved from the geometry.

Let F be the convolution merged so far (kernel k1, stride s1, pads p1, q1, bias b1), standing for a map g with
outputs 0 … H1 − 1, and let a convolution (k2, s2, p2, q2) follow.  The original reads g inside and zeros in
the padding, m < 0 or m ≥ H1.  The merged one has all its padding in front, on the block's input, and so reads
there F evaluated beyond its own range,

    F(m) = b1 + Σ_u W1[u] · x[s1·m + u − p1].

A position m is *wrong* if both differ.  Outside it is clean if b1 = 0 and every x that F(m) reads is itself
outside 0 … H − 1.  The position next to the border reads most, hence the whole padding is clean if b1 = 0 and

    begin (m = −1):   k1 − 1 − p1 − s1 < 0           end (m = H1):   k1 + ρ1 ≤ q1 + s1,
    ρ1 = (H + p1 + q1 − k1) mod s1    (input positions behind the last window of F, which F(H1) does read).

Inside, m is wrong only in the ring that earlier steps left: r positions at the begin, e at the end.  An
output t is wrong if its window reads a wrong position.  Windows start at s2·t − p2 and end, for the i-th
output from the end, at H1 − 1 + q2 − ρ2 − s2·i with ρ2 = (H1 + p2 + q2 − k2) mod s2.  So the new ring is

    r' = ⌈(p2 + r)/s2⌉   if r > 0 or the padding p2 > 0 is not clean, else 0
    e' = ⌈(q2 − ρ2 + e)/s2⌉   likewise, and at least 0.

With the input sizes known, ρ1 and ρ2 are exact, and for two convolutions of which the first has a bias the
ring is the true one (for generic weights).  Without sizes ρ1 = s1 − 1 and ρ2 = 0 are taken: a bound for every
size.  In both cases a ring may be too wide, never too narrow: for pads wider than the kernel, or a dilated
kernel that steps over the wrong positions.

Dimensions are independent: a window reads a wrong position if and only if it does so in some dimension.  If
the following map is itself a merge with a ring, its ring is added (the larger counts); branches that are
summed take the larger of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ._geometry import Geometry

__all__ = ["Certificate", "Kind", "Ring", "parallel_certificate", "series_certificate"]

Kind = Literal["exact", "border", "lossy"]
Ring = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Certificate:
    """What is proved about a merged convolution.

    ``kind``: "exact", equal everywhere; "border", equal but for ``ring``; "lossy", an activation or a
    convolution was removed.  ``ring``: per spatial dimension how many output positions at the begin and at
    the end may differ; for "lossy", may differ from the block *without* what was removed.  Begin and end
    together may exceed the output: then every position may differ.  ``reason``: one phrase for a person.
    """

    kind: Kind
    ring: Ring
    reason: str

    @classmethod
    def exact(cls, ndim: int, reason: str = "one convolution as it was") -> Certificate:
        """The certificate of a convolution that replaces nothing but itself."""
        return cls("exact", ((0, 0),) * ndim, reason)

    def lossy(self, reason: str) -> Certificate:
        """The same merge, of which the caller says that it also leaves something out."""
        return replace(
            self, kind="lossy", reason=f"{self.reason}; {reason}" if self.kind == "lossy" else reason
        )

    def interior(self, out_sizes: Sequence[int]) -> tuple[slice, ...]:
        """The output positions outside the ring, one slice per spatial dimension (perhaps empty).

        Raises:
            ValueError: ``out_sizes`` has another number of dimensions.
        """
        if len(out_sizes) != len(self.ring):
            raise ValueError(f"{len(self.ring)} output sizes are needed, got {tuple(out_sizes)}")
        return tuple(slice(b, max(b, n - e)) for n, (b, e) in zip(out_sizes, self.ring, strict=True))


def series_certificate(
    inner: Certificate,
    inner_geometry: Geometry,
    inner_has_bias: bool,
    outer: Certificate,
    outer_geometry: Geometry,
    sizes: Sequence[int] | None = None,
) -> Certificate:
    """The certificate of ``outer`` after ``inner``, both perhaps merges themselves.

    ``inner_has_bias``: whether any bias of the inner (merged) convolution is not zero.  ``sizes``: the
    spatial sizes of the inner map's input; None, where they are not known, gives a ring for every size.

    Raises:
        ValueError: the numbers of dimensions differ, or an input of ``sizes`` is too small for the maps.
    """
    ndims = {inner_geometry.ndim, outer_geometry.ndim, len(inner.ring), len(outer.ring)}
    if sizes is not None:
        ndims.add(len(sizes))
    if len(ndims) != 1:
        raise ValueError(f"maps on {sorted(ndims)} spatial dimensions do not combine")
    merged = _ring(inner.ring, inner_geometry, inner_has_bias, outer_geometry, sizes)
    ring = tuple((max(a, c), max(b, d)) for (a, b), (c, d) in zip(merged, outer.ring, strict=True))
    padded = any(outer_geometry.pad_begin + outer_geometry.pad_end)
    exact = (
        "zero padding inside is what the merged convolution reads there" if padded else "no padding inside"
    )
    return _combined(ring, exact, inner, outer)


def parallel_certificate(one: Certificate, two: Certificate) -> Certificate:
    """The certificate of the sum of two branches with one input.

    Raises:
        ValueError: the numbers of dimensions differ.
    """
    if len(one.ring) != len(two.ring):
        raise ValueError(f"branches on {len(one.ring)} and {len(two.ring)} spatial dimensions do not add")
    ring = tuple((max(a, c), max(b, d)) for (a, b), (c, d) in zip(one.ring, two.ring, strict=True))
    return _combined(ring, "all branches are exact", one, two)


def _combined(ring: Ring, exact_reason: str, *parts: Certificate) -> Certificate:
    """Lossy if a part is, with the parts' reasons; else as the ring says."""
    losses = list(dict.fromkeys(part.reason for part in parts if part.kind == "lossy"))
    if losses:
        return Certificate("lossy", ring, "; ".join(losses))
    if any(map(any, ring)):
        widths = " × ".join(f"{begin}+{end}" for begin, end in ring)
        return Certificate("border", ring, f"zero padding inside changes a border of {widths} outputs")
    return Certificate("exact", ring, exact_reason)


def _ring(inner_ring: Ring, g1: Geometry, has_bias: bool, g2: Geometry, sizes: Sequence[int] | None) -> Ring:
    """r', e' of the module docstring for every dimension, clipped to the output where its size is known."""
    rings = []
    middle = None if sizes is None else g1.out_size(sizes)
    out = None if middle is None else g2.out_size(middle)
    if middle is not None and out is not None and min(middle + out) < 1:
        raise ValueError(f"an input of {tuple(sizes or ())} is too small for {g1} and {g2}")
    for d, (r, e) in enumerate(inner_ring):
        k1, s1, p1, q1 = g1.kernel[d], g1.stride[d], g1.pad_begin[d], g1.pad_end[d]
        s2, p2, q2 = g2.stride[d], g2.pad_begin[d], g2.pad_end[d]
        rho1, rho2 = s1 - 1, 0
        if sizes is not None and middle is not None:
            rho1, rho2 = (sizes[d] + g1.slack[d]) % s1, (middle[d] + g2.slack[d]) % s2
        wrong_before = p2 > 0 and (has_bias or k1 > p1 + s1)
        wrong_behind = q2 > 0 and (has_bias or k1 + rho1 > q1 + s1)
        begin = -(-(p2 + r) // s2) if r or wrong_before else 0
        end = max(0, -(-(q2 - rho2 + e) // s2)) if e or wrong_behind else 0
        rings.append((begin, end) if out is None else (min(begin, out[d]), min(end, out[d])))
    return tuple(rings)
