from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_layermerge.merge import keep_subset

from .strategies import STEADY

LAYERS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 9), st.booleans()), max_size=9)


@given(LAYERS)
@settings(STEADY)
def test_against_every_subset(layers: list[tuple[int, int, bool]]) -> None:
    growth, norm, reducible = ([layer[f] for layer in layers] for f in range(3))
    best: dict[int, tuple[int, int, tuple[bool, ...]]] = {}
    for keep in product((False, True), repeat=len(layers)):
        if all(kept or may_drop for kept, may_drop in zip(keep, reducible, strict=True)):
            total = sum(g for g, kept in zip(growth, keep, strict=True) if kept)
            value = (sum(n for n, kept in zip(norm, keep, strict=True) if kept), sum(keep), keep)
            best[total] = max(value, best.get(total, value))
    # Whole norms add without rounding, so that ties are true ties and the answer is one and the same.
    assert keep_subset(growth, norm, reducible) == {total: keep for total, (_, _, keep) in best.items()}


def test_by_hand() -> None:
    # An inverted residual: 1×1 irreducible, 3×3 reducible, 1×1 irreducible, then two reducible 3×3.
    subsets = keep_subset([0, 2, 0, 2, 2], [5.0, 1.0, 5.0, 3.0, 2.0], [False, True, False, True, True])
    assert list(subsets) == [0, 2, 4, 6]  # kernels 1, 3, 5, 7
    assert subsets[0] == (True, False, True, False, False)
    assert subsets[2] == (True, False, True, True, False)
    assert subsets[4] == (True, False, True, True, True)
    assert keep_subset([], [], []) == {0: ()}
    assert keep_subset([2, 2], [1.0, 1.0], [True, True])[2] == (True, False)  # a tie keeps the earlier
    assert keep_subset([0], [0.0], [True]) == {0: (True,)}  # nothing is dropped without a gain


@pytest.mark.parametrize(
    ("growth", "norm", "reducible"),
    [([1], [1.0, 2.0], [True]), ([-1], [1.0], [True]), ([1], [float("nan")], [True]), ([1], [-1.0], [True])],
)
def test_bad_input(growth: list[int], norm: list[float], reducible: list[bool]) -> None:
    with pytest.raises(ValueError, match="growth"):
        keep_subset(growth, norm, reducible)
