from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from onnx_layermerge.merge import (
    AffineConv,
    Certificate,
    Geometry,
    MergedConv,
    merge_chain,
    series_certificate,
)

from .strategies import STEADY, TOLERANCE, chains, convs, data, error, fitting_sizes, run

ChainSizes = tuple[list[AffineConv], tuple[int, ...]]


def assert_holds(certificate: Certificate, difference: np.ndarray) -> None:
    inside = difference[(slice(None), slice(None), *certificate.interior(difference.shape[2:]))]
    assert inside.max(initial=0.0) <= TOLERANCE
    if certificate.kind == "exact":
        assert inside.shape == difference.shape  # exact means everywhere
    assert (certificate.kind == "exact") == (not any(map(any, certificate.ring)))


def wrong_rows(difference: np.ndarray, dim: int) -> np.ndarray:
    """Per position of spatial dimension ``dim``: whether any value there really differs."""
    axes = tuple(a for a in range(difference.ndim) if a != dim + 2)
    return np.asarray(difference.max(axis=axes) > 1e-9)


@given(st.one_of(chains(2), chains(3)))
@settings(STEADY, max_examples=150)
def test_chains_are_equal_outside_the_predicted_ring(chain_sizes: ChainSizes) -> None:
    chain, sizes = chain_sizes
    x = data(chain[0].in_channels, sizes)
    known, unknown = merge_chain(chain, sizes), merge_chain(chain)
    difference = error(known.conv.apply(x), run(chain, x))
    assert_holds(known.certificate, difference)
    assert_holds(unknown.certificate, difference)
    for (begin, end), (most_begin, most_end) in zip(
        known.certificate.ring, unknown.certificate.ring, strict=True
    ):
        assert begin <= most_begin and end <= most_end


@given(chains(2, bias=True))
@settings(STEADY, max_examples=80)
def test_the_ring_of_two_convolutions_with_bias_is_the_true_one(chain_sizes: ChainSizes) -> None:
    chain, sizes = chain_sizes
    x = data(chain[0].in_channels, sizes)
    merged = merge_chain(chain, sizes)
    difference = error(merged.conv.apply(x), run(chain, x))
    # Rows of one dimension can be told apart only where the other dimensions are right somewhere.
    interior = merged.certificate.interior(difference.shape[2:])
    for dim, (begin, end) in enumerate(merged.certificate.ring):
        others = tuple(slice(None) if d == dim else s for d, s in enumerate(interior))
        rows = difference[(slice(None), slice(None), *others)]
        if rows.size:
            wrong = wrong_rows(rows, dim)
            assert wrong[:begin].all() and wrong[len(wrong) - end :].all()


@given(chains(2, bias=False, max_stride=1, max_dilation=1, pads=(0, 1)))
@settings(STEADY, max_examples=60)
def test_the_ring_without_bias_is_the_true_one_at_stride_1(chain_sizes: ChainSizes) -> None:
    chain, sizes = chain_sizes
    sizes = tuple(max(h, 6) for h in sizes)
    x = data(chain[0].in_channels, sizes)
    merged = merge_chain(chain, sizes)
    difference = error(merged.conv.apply(x), run(chain, x))
    assert_holds(merged.certificate, difference)
    for dim, (begin, end) in enumerate(merged.certificate.ring):
        interior = merged.certificate.interior(difference.shape[2:])
        others = tuple(slice(None) if d == dim else s for d, s in enumerate(interior))
        rows = difference[(slice(None), slice(None), *others)]
        if rows.size:
            wrong = wrong_rows(rows, dim)
            assert wrong[:begin].all() and wrong[len(wrong) - end :].all()


@given(st.data())
@settings(STEADY, max_examples=60)
def test_skips_inside_a_block(draw: st.DataObject) -> None:
    """stem, then (a, b) + identity or 1×1 shortcut, then tail: the ring goes through both kinds of step."""
    ndim = draw.draw(st.integers(1, 2))
    stem = draw.draw(convs(ndim, 4))
    channels = stem.out_channels
    a = draw.draw(convs(ndim, channels))
    b = draw.draw(convs(ndim, a.out_channels))
    tail = draw.draw(convs(ndim, b.out_channels))
    body = a.geometry.then(b.geometry)
    if draw.draw(st.booleans()):
        side = (
            Geometry((1,) * ndim, body.stride, (0,) * ndim, tuple(c + 1 for c in body.slack))
            if min(body.slack) >= -1
            else body
        )
        rng = np.random.default_rng(3)
        weight = rng.standard_normal((b.out_channels, channels, *side.kernel))
        skip = AffineConv(weight, rng.standard_normal(b.out_channels), side)
    else:
        assume(b.out_channels == channels and body.same_grid(Geometry.identity(ndim)))
        skip = AffineConv.dirac(channels, ndim)
    sizes = draw.draw(fitting_sizes([stem, a, b, tail]))
    x = data(4, sizes)
    y = stem.apply(x)
    expected = tail.apply(run([a, b], y) + skip.apply(y))
    for known in (sizes, None):
        inner = None if known is None else stem.geometry.out_size(sizes)
        branches = merge_chain([a, b], inner).plus(MergedConv.of(skip, inner))
        block = MergedConv.of(stem, known).then(branches).then(MergedConv.of(tail))
        assert_holds(block.certificate, error(block.conv.apply(x), expected))


@example(dilation=2, bias=True)
@given(st.integers(1, 3), st.booleans())
@settings(STEADY)
def test_identity_residual_block(dilation: int, bias: bool) -> None:
    """The basic block of a residual net without activations: only its second padding is inside."""
    rng = np.random.default_rng(dilation)

    def same(groups: int) -> AffineConv:
        b = rng.standard_normal(4) if bias else None
        return AffineConv.from_conv(
            rng.standard_normal((4, 4 // groups, 3, 3)), b, None, (dilation,) * 2, (dilation,) * 4, groups
        )

    for groups in (1, 4):
        a, b = same(groups), same(groups)
        block = merge_chain([a, b], (9, 9)).plus(MergedConv.of(AffineConv.dirac(4, 2), (9, 9)))
        assert block.conv.groups == groups and block.conv.geometry.kernel == (4 * dilation + 1,) * 2
        assert block.certificate.kind == "border"
        assert block.certificate.ring == ((dilation, dilation),) * 2
        swapped = MergedConv.of(AffineConv.dirac(4, 2)).plus(merge_chain([a, b], (9, 9)))
        assert swapped.certificate == block.certificate and swapped.sizes == (9, 9)
        x = data(4, (9, 9))
        assert_holds(block.certificate, error(block.conv.apply(x), run([a, b], x) + x))


def conv(k: int, p: int, q: int | None = None, s: int = 1, bias: bool = False) -> AffineConv:
    rng = np.random.default_rng(k)
    b = rng.standard_normal(2) if bias else None
    return AffineConv.from_conv(rng.standard_normal((2, 2, k)), b, (s,), None, (p, p if q is None else q))


@pytest.mark.parametrize(
    ("chain", "size", "ring"),
    [
        ([conv(3, 1, bias=True), conv(3, 0)], 12, (0, 0)),  # no padding inside
        ([conv(3, 1, bias=True), conv(1, 0)], 12, (0, 0)),
        ([conv(1, 0), conv(3, 1)], 12, (0, 0)),  # a 1-kernel without bias gives zero where x is zero
        ([conv(1, 0, bias=True), conv(3, 1)], 12, (1, 1)),  # with bias it gives b1 there
        ([conv(3, 2), conv(3, 1)], 12, (0, 0)),  # full padding: nothing lies beyond the border
        ([conv(3, 2, bias=True), conv(3, 1)], 12, (1, 1)),
        ([conv(3, 1), conv(5, 2)], 12, (2, 2)),
        ([conv(3, 1), conv(5, 2, s=2)], 12, (1, 1)),  # ⌈(2 + 0)/2⌉; ρ2 = 1 of the 2 end pads are not read
        ([conv(3, 1), conv(3, 1, s=2)], 12, (1, 0)),  # even size, stride 2: the end padding is never read
        ([conv(3, 1), conv(3, 1, s=2)], 13, (1, 1)),
        ([conv(3, 1), conv(3, 1, s=2)], None, (1, 1)),
        ([conv(2, 0, s=2), conv(3, 1)], 12, (0, 0)),  # patches: the next one is all outside
        ([conv(2, 0, s=2), conv(3, 1)], 13, (0, 1)),  # but at odd sizes one position is left over
        ([conv(2, 0, s=2), conv(3, 1)], None, (0, 1)),
        ([conv(3, 1), conv(3, 1), conv(3, 1)], 12, (2, 2)),
        ([conv(3, 1), conv(3, 1), conv(3, 0)], 12, (1, 1)),  # wrong inside stays wrong without padding
        ([conv(3, 1), conv(3, 0, 2), conv(3, 1, 0)], 12, (1, 2)),
    ],
)
def test_rings_by_hand(chain: list[AffineConv], size: int | None, ring: tuple[int, int]) -> None:
    merged = merge_chain(chain, None if size is None else (size,))
    assert merged.certificate.ring == (ring,)
    assert merged.certificate.kind == ("border" if any(ring) else "exact")
    x = data(2, (size or 12,))
    difference = error(merged.conv.apply(x), run(chain, x))
    assert_holds(merged.certificate, difference)
    if size is not None:
        wrong = wrong_rows(difference, 0)
        assert wrong[: ring[0]].all() and wrong[len(wrong) - ring[1] :].all()


def test_lossy_is_said_by_the_caller_and_stays() -> None:
    dropped = MergedConv.of(conv(3, 1)).lossy("activation relu_1 removed")
    merged = dropped.then(MergedConv.of(conv(3, 1, bias=True)))
    again = merged.plus(MergedConv.of(AffineConv.dirac(2, 1))).lossy("convolution conv_2 removed")
    assert merged.certificate == Certificate("lossy", ((1, 1),), "activation relu_1 removed")
    assert again.certificate.kind == "lossy"
    assert again.certificate.reason == "activation relu_1 removed; convolution conv_2 removed"
    border = merge_chain([conv(3, 1), conv(3, 1)]).certificate
    assert "1+1" in border.reason and border.interior((5,)) == (slice(1, 4),)
    assert border.interior((1,)) == (slice(1, 1),)  # nothing is left


def test_what_does_not_match_is_refused() -> None:
    one, plane = MergedConv.of(conv(3, 1), (8,)), MergedConv.of(AffineConv.dirac(2, 2))
    cases = [
        ("do not feed", lambda: one.then(MergedConv.of(conv(3, 1), (7,)))),
        ("do not add", lambda: one.plus(MergedConv.of(conv(3, 1), (7,)))),
        ("do not add", lambda: one.plus(plane)),
        ("do not combine", lambda: one.then(plane)),
        ("too small", lambda: merge_chain([conv(3, 0), conv(3, 0)], (3,))),
        ("sizes are needed", lambda: MergedConv.of(conv(3, 1), (8, 8))),
        ("sizes are needed", lambda: one.certificate.interior((8, 8))),
        ("at least one", lambda: merge_chain([])),
        (
            "do not combine",
            lambda: series_certificate(
                one.certificate, one.conv.geometry, True, one.certificate, one.conv.geometry, (8, 8)
            ),
        ),
    ]
    for message, call in cases:
        with pytest.raises(ValueError, match=message):
            call()
