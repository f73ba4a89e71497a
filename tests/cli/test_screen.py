"""Numbers and lists as they are shown."""

from __future__ import annotations

import math

import pytest

from olm.plot import scatter
from olm.screen import first_of, kernel, ms, shorten, table, times, warn


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01524, "0.0152"), (0.3214, "0.321"), (3.2149, "3.21"), (41.52, "41.5"), (415.2, "415"), (-3.2149, "-3.21")],
)
def test_milliseconds_have_three_digits(value: float, text: str) -> None:
    assert ms(value) == text


def test_words() -> None:
    assert times(1.526) == "1.53×"
    assert kernel((3, 5)) == "3×5"
    assert kernel(()) == "–"
    assert [first_of(names) for names in ((), ("a",), ("a", "b", "c"))] == ["", "a", "a +2"]


def test_long_lists_say_how_much_is_missing() -> None:
    assert shorten(range(5), 5, False) == (range(5), "")
    items, more = shorten(range(20), 5, False)
    assert list(items) == [0, 1, 2, 3, 4]
    assert more == "... and 15 more (--all shows them)"
    assert shorten(range(20), 5, True) == (range(20), "")


def test_a_table_keeps_odd_names_and_long_rows_whole(capsys: pytest.CaptureFixture[str]) -> None:
    name = "[bold]not markup[/] :smile: " + "x" * 300
    table(("name", ">count"), [(name, 7)], title="T")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "T"
    assert lines[2].startswith(name)
    assert lines[2].endswith("7")


def test_a_warning_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    warn(["one\n  two"])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip() == "Warning: one two"


def test_scatter_puts_points_where_they_belong() -> None:
    lines = scatter({"*": [(1.0, 1.0), (2.0, 100.0)], "o": [(1.0, 100.0)]}, x="x", y="y", width=11, height=3)
    assert lines[0].strip() == "y"
    assert lines[1] == "1e+02 |o         *"
    assert lines[2] == "      |"
    assert lines[3] == "    1 |*"
    assert lines[-1].strip().startswith("1.00")
    assert lines[-1].endswith("2.00")


def test_scatter_needs_two_points_above_zero() -> None:
    assert scatter({"*": [(1.0, 0.0), (2.0, 0.3), (3.0, math.inf)]}, x="x", y="y") == []
    assert scatter({"*": []}, x="x", y="y") == []
