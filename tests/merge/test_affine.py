from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate

from onnx_layermerge.merge import AffineConv, Geometry

from .strategies import STEADY, TOLERANCE, chains, convs, data, error, fitting_sizes, run

RNG = np.random.default_rng(7)


def conv(
    c_out: int, c_in: int, k: int, groups: int = 1, bias: bool = True, **attributes: object
) -> AffineConv:
    weight = RNG.standard_normal((c_out, c_in // groups, k, k))
    b = RNG.standard_normal(c_out) if bias else None
    return AffineConv.from_conv(weight, b, groups=groups, **attributes)  # type: ignore[arg-type]


@given(st.data())
@settings(STEADY, max_examples=40)
def test_apply_and_dilation_against_scipy(draw: st.DataObject) -> None:
    ndim = draw.draw(st.integers(1, 3))
    groups = draw.draw(st.sampled_from([1, 2, 4]))
    attribute = st.lists(st.integers(1, 3), min_size=ndim, max_size=ndim)
    kernel, stride, dilation = draw.draw(attribute), draw.draw(attribute), draw.draw(attribute)
    pads = draw.draw(st.lists(st.integers(0, 2), min_size=2 * ndim, max_size=2 * ndim))
    rng = np.random.default_rng(draw.draw(st.integers(0, 999)))
    w, b = rng.standard_normal((8, 4 // groups, *kernel)), rng.standard_normal(8)
    x = rng.standard_normal((2, 4, *(7 + d for d in range(ndim))))

    # By hand: pad, put holes into each kernel, correlate channel by channel, then take every stride-th value.
    padded = np.pad(x, [(0, 0), (0, 0), *((pads[d], pads[d + ndim]) for d in range(ndim))])
    outputs = []
    for n in range(2):
        for o in range(8):
            first = o // (8 // groups) * (4 // groups)
            total: np.ndarray | float = b[o]
            for i in range(4 // groups):
                holes = w[o, i]
                for axis, d in enumerate(dilation):
                    at = [j for tap in range(1, holes.shape[axis]) for j in [tap] * (d - 1)]
                    holes = np.insert(holes, at, 0.0, axis=axis)
                total = total + correlate(padded[n, first + i], holes, mode="valid", method="direct")
            outputs.append(np.asarray(total)[tuple(slice(None, None, s) for s in stride)])
    expected = np.stack(outputs).reshape(2, 8, *outputs[0].shape)

    layer = AffineConv.from_conv(w, b, stride, dilation, pads, groups)
    assert layer.geometry.out_size(x.shape[2:]) == expected.shape[2:]
    assert error(layer.apply(x), expected).max() <= TOLERANCE
    assert error(layer.dense().apply(x), expected).max() <= TOLERANCE


@given(chains(3, pads=(0, 0)))
@settings(STEADY, max_examples=60)
def test_series_without_padding_is_equal_everywhere(
    chain_sizes: tuple[list[AffineConv], tuple[int, ...]],
) -> None:
    chain, sizes = chain_sizes
    a, b, c = chain
    x = data(a.in_channels, sizes)
    left, right = a.then(b).then(c), a.then(b.then(c))
    assert error(left.apply(x), run(chain, x)).max() <= TOLERANCE
    assert left.geometry == right.geometry
    scale = max(1.0, float(np.abs(left.weight).max()))
    assert np.abs(left.dense().weight - right.dense().weight).max() <= TOLERANCE * scale


@pytest.mark.parametrize(
    ("one", "two", "groups"),
    [
        (conv(6, 6, 3, groups=6), conv(6, 6, 3, groups=6), 6),  # depthwise ∘ depthwise stays depthwise
        (conv(12, 6, 3, groups=6), conv(12, 12, 3, groups=12), 6),  # with a channel multiplier
        (conv(8, 4, 3, groups=2), conv(4, 8, 3, groups=2), 2),
        (conv(8, 8, 1, groups=4), conv(8, 8, 3, groups=2), 2),
        (conv(8, 8, 3, groups=2), conv(8, 8, 1, groups=8), 2),
        (conv(12, 12, 3, groups=4), conv(12, 12, 1, groups=6), 2),  # neither divides the other
        (conv(6, 4, 1), conv(6, 6, 3, groups=6), 1),
        (conv(6, 6, 3, groups=6), conv(4, 6, 1), 1),
    ],
)
def test_series_keeps_the_finest_grouping_of_the_product(
    one: AffineConv, two: AffineConv, groups: int
) -> None:
    product = one.then(two)
    assert product.groups == groups
    assert product.weight.shape[:2] == (two.out_channels, one.in_channels // groups)
    dense = one.dense().then(two.dense())
    assert np.abs(product.dense().weight - dense.weight).max() <= TOLERANCE * np.abs(dense.weight).max()
    assert np.abs(product.bias - dense.bias).max() <= TOLERANCE * np.abs(dense.bias).max()
    x = data(one.in_channels, (9, 8))
    assert error(product.apply(x), run([one, two], x)).max() <= TOLERANCE


@given(st.data())
@settings(STEADY, max_examples=60)
def test_parallel_branches_add_everywhere(draw: st.DataObject) -> None:
    main = draw.draw(convs(draw.draw(st.integers(1, 2)), 4))
    g = main.geometry
    # Any kernel on the same grid, asymmetric to the first: the pads are what is left of the slack.
    begin = tuple(draw.draw(st.integers(0, 3)) for _ in g.kernel)
    kernel = tuple(max(1, p - c) + draw.draw(st.integers(0, 2)) for p, c in zip(begin, g.slack, strict=True))
    end = tuple(c + k - p for c, k, p in zip(g.slack, kernel, begin, strict=True))
    groups = draw.draw(st.sampled_from([n for n in (1, 2, 4) if main.out_channels % n == 0]))
    weight = np.random.default_rng(1).standard_normal((main.out_channels, 4 // groups, *kernel))
    side = AffineConv.from_conv(weight, None, g.stride, None, begin + end, groups)
    total = main.plus(side)
    assert total.geometry == g.union(side.geometry)
    x = data(4, draw.draw(fitting_sizes([main])))
    assert error(total.apply(x), main.apply(x) + side.apply(x)).max() <= TOLERANCE


def test_residual_and_strided_shortcut() -> None:
    x = data(6, (7, 8))
    depthwise = conv(6, 6, 5, groups=6, pads=(2, 2, 2, 2))
    block = depthwise.plus(AffineConv.dirac(6, 2))
    assert block.groups == 6 and block.geometry == depthwise.geometry
    assert error(block.apply(x), depthwise.apply(x) + x).max() <= TOLERANCE
    # As in a residual net: 3×3 stride 2 pad 1 beside 1×1 stride 2 pad 0.
    down, shortcut = conv(4, 6, 3, stride=(2, 2), pads=(1, 1, 1, 1)), conv(4, 6, 1, stride=(2, 2))
    assert error(down.plus(shortcut).apply(x), down.apply(x) + shortcut.apply(x)).max() <= TOLERANCE
    with pytest.raises(ValueError, match="no union"):
        down.plus(conv(4, 6, 1))
    with pytest.raises(ValueError, match="agree"):
        down.plus(conv(5, 6, 1, stride=(2, 2)))


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3, 0.0])
def test_batchnorm_folds_with_its_own_epsilon(epsilon: float) -> None:
    layer, x = conv(5, 3, 3, pads=(1, 0, 0, 1)), data(3, (6, 6))
    gamma, beta, mean = RNG.standard_normal((3, 5))
    var = RNG.uniform(1e-4, 1e-2, 5)  # so small that a wrong epsilon is far off
    y = layer.apply(x)
    per_channel = (1, 5, 1, 1)
    expected = gamma.reshape(per_channel) * (y - mean.reshape(per_channel)) / np.sqrt(
        var.reshape(per_channel) + epsilon
    ) + beta.reshape(per_channel)
    assert error(layer.fold_batchnorm(gamma, beta, mean, var, epsilon).apply(x), expected).max() <= TOLERANCE
    assert error(layer.scale_channels(gamma).apply(x), y * gamma.reshape(per_channel)).max() <= TOLERANCE


def test_inputs_are_checked_and_never_changed() -> None:
    weight = np.ones((4, 2, 3), dtype=np.float32)
    layer = AffineConv.from_conv(weight, groups=2)
    assert (
        layer.weight.dtype == np.float64
        and layer.in_channels == 4
        and layer.geometry == Geometry((3,), (1,), (0,), (0,))
    )
    with pytest.raises(ValueError, match="read-only"):
        layer.bias[0] = 1
    own = np.zeros(4)
    AffineConv(np.ones((4, 1, 1)), own, Geometry.identity(1))
    own[0] = 1  # the caller's array stays writable
    cases = [
        ("has not the kernel", lambda: AffineConv(weight, np.zeros(4), Geometry.identity(1))),
        ("does not fit 4 channels", lambda: AffineConv.from_conv(weight, np.zeros(3))),
        ("do not split", lambda: AffineConv.from_conv(weight, groups=3)),
        ("do not fit a weight", lambda: AffineConv.from_conv(weight, pads=(1,))),
        ("do not fit a weight", lambda: AffineConv.from_conv(weight, dilation=(0,))),
        ("do not fit a weight", lambda: AffineConv.from_conv(weight[:, :, 0])),
        ("do not feed", lambda: layer.then(AffineConv.dirac(5, 1))),
        ("do not combine", lambda: layer.then(AffineConv.dirac(4, 2))),
        ("cannot be written", lambda: layer.regrouped(4)),
        ("is not \\[N, 4", lambda: layer.apply(np.ones((1, 3, 9)))),
        ("too small", lambda: layer.apply(np.ones((1, 4, 2)))),
        ("statistic", lambda: layer.fold_batchnorm(1, np.ones(4), np.ones(4), np.ones(4), 0)),
        ("positive", lambda: layer.fold_batchnorm(*np.ones((3, 4)), np.zeros(4), 0)),
    ]
    for message, call in cases:
        with pytest.raises(ValueError, match=message):
            call()
