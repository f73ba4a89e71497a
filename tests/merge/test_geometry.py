from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_layermerge.merge import Geometry

from .strategies import STEADY, geometries

SIZES = range(5, 41)


def geometry(k: int, s: int = 1, p: int = 0, q: int = 0) -> Geometry:
    return Geometry((k,), (s,), (p,), (q,))


@given(st.integers(1, 3).flatmap(lambda n: st.tuples(geometries(n), geometries(n), geometries(n))))
@settings(STEADY)
def test_composition_is_associative_and_keeps_the_nested_size(three: tuple[Geometry, ...]) -> None:
    a, b, c = three
    assert a.then(b).then(c) == a.then(b.then(c))
    assert a.then(Geometry.identity(a.ndim)) == a == Geometry.identity(a.ndim).then(a)
    for h in SIZES:
        assert a.then(b).out_size((h,) * a.ndim) == b.out_size(a.out_size((h,) * a.ndim))


def test_composition_by_hand() -> None:
    # 3×3 stride 2 pads (1, 0), then 5×5 pads (2, 2): kernel 3 + 2·4, pads 1 + 2·2 and 0 + 2·2.
    assert geometry(3, 2, 1, 0).then(geometry(5, 1, 2, 2)) == geometry(11, 2, 5, 4)
    assert geometry(3, 2, 1, 0).out_size((224,)) == (112,)


@given(geometries(1), geometries(1))
@settings(STEADY)
def test_same_grid_means_equal_sizes_for_every_input(a: Geometry, b: Geometry) -> None:
    equal = all(a.out_size((h,)) == b.out_size((h,)) for h in range(5, 41))
    assert a.same_grid(b) == equal


@given(geometries(2), st.integers(0, 3), st.integers(0, 3))
@settings(STEADY)
def test_union_covers_both_fields_and_no_more(a: Geometry, left: int, right: int) -> None:
    b = Geometry(
        (a.kernel[0] + left, a.kernel[1] + right),
        a.stride,
        (a.pad_begin[0] + left, a.pad_begin[1]),
        (a.pad_end[0], a.pad_end[1] + right),
    )
    assert a.union(b) == b == b.union(a)
    one = Geometry((1, 1), a.stride, (0, 0), tuple(c + 1 for c in a.slack)) if min(a.slack) >= -1 else a
    union = a.union(one)
    assert union.same_grid(a)
    for d in range(2):
        fields = [range(-g.pad_begin[d], g.kernel[d] - g.pad_begin[d]) for g in (a, one, union)]
        assert fields[2] == range(min(f[0] for f in fields[:2]), max(f[-1] for f in fields[:2]) + 1)


@pytest.mark.parametrize("other", [geometry(3, 2, 1, 1), geometry(3, 1, 1, 0), geometry(1, 1, 1, 0)])
def test_union_refuses_another_grid(other: Geometry) -> None:
    assert not geometry(3, 1, 1, 1).same_grid(other)
    with pytest.raises(ValueError, match="no union"):
        geometry(3, 1, 1, 1).union(other)


@given(geometries(2, max_kernel=9), st.tuples(st.integers(1, 11), st.integers(1, 11)))
@settings(STEADY)
def test_with_kernel_keeps_every_output_size_and_the_centre(g: Geometry, kernel: tuple[int, int]) -> None:
    other = g.with_kernel(kernel)
    begins = [p + (new - old) // 2 for p, new, old in zip(g.pad_begin, kernel, g.kernel, strict=True)]
    ends = [c + new - p for c, new, p in zip(g.slack, kernel, begins, strict=True)]
    assert (other is None) == (min(begins + ends) < 0)
    if other is None:
        return
    assert other.kernel == kernel and other.stride == g.stride
    for h in SIZES:
        assert other.out_size((h, h)) == g.out_size((h, h))
    shift = np.subtract(other.centre_offset, g.centre_offset)
    parity = np.abs(np.subtract(kernel, g.kernel)) % 2
    assert np.array_equal(shift, parity / 2)


@pytest.mark.parametrize(
    ("g", "kernel", "expected"),
    [
        (geometry(5, 2, 2, 2), 3, geometry(3, 2, 1, 1)),
        (geometry(3, 2, 0, 1), 1, None),  # the centre at 2t + 1 is out of reach of a 1-kernel without crop
        (geometry(3, 2, 0, 1), 5, geometry(5, 2, 1, 2)),
        (geometry(3, 1, 1, 1), 2, geometry(2, 1, 0, 1)),
        (geometry(3), 1, None),
        (geometry(3), 5, geometry(5, 1, 1, 1)),
    ],
)
def test_with_kernel_by_hand(g: Geometry, kernel: int, expected: Geometry | None) -> None:
    assert g.with_kernel((kernel,)) == expected


def test_values_are_plain_ints_and_checked() -> None:
    g = Geometry(tuple(np.array([3, 3])), (1, 1), (1, 1), (1, 1))
    assert json.dumps(g.kernel) == "[3, 3]" and hash(g) == hash(Geometry((3, 3), (1, 1), (1, 1), (1, 1)))
    for bad in (
        ((0,), (1,), (0,), (0,)),
        ((1,), (0,), (0,), (0,)),
        ((1,), (1,), (-1,), (0,)),
        ((), (), (), ()),
    ):
        with pytest.raises(ValueError, match="must hold"):
            Geometry(*bad)
    with pytest.raises(ValueError, match="must hold"):
        Geometry((1, 1), (1,), (0, 0), (0, 0))
    with pytest.raises(ValueError, match="do not combine"):
        geometry(1).then(Geometry.identity(2))
    with pytest.raises(ValueError, match="sizes are needed"):
        geometry(1).out_size((4, 4))
    with pytest.raises(ValueError, match="kernel must hold"):
        geometry(1).with_kernel((1, 1))
