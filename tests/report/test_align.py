"""Two networks side by side: nothing is lost, the same stands beside the same, and what is long is folded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onnx_layermerge.report import Line
from onnx_layermerge.report._align import LEAST_FOLDED, align
from tests.report import made


def rows(names: str, blocks: dict[str, int] | None = None) -> list[Line]:
    return [Line("conv", "3×3", name, (blocks or {}).get(name, 0), (), ()) for name in names]


def test_a_replaced_block_stands_beside_what_it_was() -> None:
    steps = align(made.before().lines, made.after().lines)
    assert [(step.left, step.right, step.block) for step in steps] == [
        ((0,), (0,), 0),
        ((1,), (1,), 0),
        ((2, 3), (2,), 1),
        ((4,), (3,), 0),
        ((5,), (), 2),  # dropped
        ((6,), (4,), 0),
    ]
    assert [step.same for step in steps] == [True, True, False, True, False, True]


def test_what_moved_or_came_without_a_block_stands_alone() -> None:
    steps = align(rows("abc"), rows("axc"))
    assert [(step.left, step.right) for step in steps] == [((0,), (0,)), ((1,), ()), ((), (1,)), ((2,), (2,))]


def test_a_long_run_is_folded_and_a_short_one_is_not() -> None:
    short, long = "abcdefghij"[: LEAST_FOLDED - 1], "abcdefghij"
    assert not any(step.folded for step in align(rows(short), rows(short)))
    (folded,) = [step for step in align(rows(long), rows(long)) if step.folded]
    assert folded.left == folded.right == tuple(range(1, 9))


@given(st.text("abcdef", max_size=12), st.text("abcdef", max_size=12), st.sets(st.sampled_from("abcdef"), max_size=3))
def test_every_line_is_in_one_step_in_its_order(before: str, after: str, replaced: set[str]) -> None:
    blocks = {name: number for number, name in enumerate(sorted(replaced), 1)}
    steps = align(rows(before, blocks), rows(after))
    assert [number for step in steps for number in step.left] == list(range(len(before)))
    assert [number for step in steps for number in step.right] == list(range(len(after)))
    for step in steps:
        if step.same:
            assert [before[n] for n in step.left] == [after[n] for n in step.right]
