"""Random convolutions for the property tests: small, but of every kind that the algebra must bear."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from onnx_layermerge.merge import AffineConv, Geometry

TOLERANCE = 1e-12
# A busy machine is no reason to fail: no time limit, neither on an example nor on drawing it.
STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def geometries(draw: st.DrawFn, ndim: int, max_kernel: int = 4) -> Geometry:
    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim)))

    return Geometry(each(1, max_kernel), each(1, 3), each(0, 3), each(0, 3))


@st.composite
def convs(
    draw: st.DrawFn,
    ndim: int,
    c_in: int,
    max_stride: int = 3,
    max_dilation: int = 3,
    bias: bool | None = None,
    pads: tuple[int, int] = (0, 3),
) -> AffineConv:
    """An ONNX-like convolution on ``c_in`` channels: dense, grouped, depthwise, with multiplier."""

    def each(low: int, high: int, n: int = ndim) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=n, max_size=n))

    groups = draw(st.sampled_from([g for g in range(1, c_in + 1) if c_in % g == 0]))
    c_out = groups * draw(st.integers(1, max(1, 6 // groups)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    has_bias = draw(st.booleans()) if bias is None else bias
    return AffineConv.from_conv(
        rng.standard_normal((c_out, c_in // groups, *each(1, 4))),
        rng.standard_normal(c_out) if has_bias else None,
        stride=each(1, max_stride),
        dilation=each(1, max_dilation),
        pads=each(*pads, 2 * ndim),
        groups=groups,
    )


@st.composite
def chains(draw: st.DrawFn, length: int, **options: Any) -> tuple[list[AffineConv], tuple[int, ...]]:
    """Convolutions that feed each other, and input sizes for which all of them have an output."""
    ndim = draw(st.integers(1, 2))
    channels = draw(st.sampled_from([1, 2, 3, 4, 6]))
    chain: list[AffineConv] = []
    for _ in range(length):
        chain.append(draw(convs(ndim, channels, **options)))
        channels = chain[-1].out_channels
    return chain, draw(fitting_sizes(chain))


@st.composite
def fitting_sizes(draw: st.DrawFn, chain: list[AffineConv]) -> tuple[int, ...]:
    """From the least input sizes upward, so that rings that overlap and remainders of every kind occur."""
    ndim = chain[0].geometry.ndim
    least = [1] * ndim
    for conv in reversed(chain):
        g = conv.geometry
        least = [max(1, s * (h - 1) - c) for h, s, c in zip(least, g.stride, g.slack, strict=True)]
    return tuple(h + draw(st.integers(0, 9)) for h in least)


def data(channels: int, sizes: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, channels, *sizes))


def run(chain: list[AffineConv], x: np.ndarray) -> np.ndarray:
    """The network as it is, one convolution after the other."""
    for conv in chain:
        x = conv.apply(x)
    return x


def error(merged: np.ndarray, original: np.ndarray) -> np.ndarray:
    """The absolute difference relative to the largest value of the original."""
    assert merged.shape == original.shape
    return np.abs(merged - original) / max(1.0, float(np.abs(original).max()))
