"""The frontier on a terminal: marks where they belong, on any width, with and without colours."""

from __future__ import annotations

import io
import os
import sys

import pytest

from olm import screen
from olm.frontier import STYLES, draw_frontier

POINTS = [(1.0, 0.0), (1.2, 0.01), (1.5, 0.1), (2.0, 1.0), (50.0, 9.0)]


class Terminal(io.StringIO):
    """Standard output that says it is one."""

    def isatty(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"


def drawn(monkeypatch: pytest.MonkeyPatch, columns: int, *, colours: bool = True) -> str:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((columns, 40)))
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    draw_frontier(POINTS, [(1.1, 0.5), (1.3, 2.0)], rejected=[(1.52, 0.2)], chosen=[(1.5, 0.1)], most=3.0)
    return stream.getvalue()


def test_without_a_terminal_it_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    draw_frontier(POINTS, [], chosen=[(1.5, 0.1)], most=3.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].strip() == "expected loss (* all replacements, @ chosen)"
    assert sum(line.count("*") for line in lines[2:]) == 2 and sum(line.count("@") for line in lines[2:]) == 1
    assert "1.5×" in lines[-1] and "2×" in lines[-1] and "50" not in lines[-1]
    columns = [next(line.index(mark) for line in lines[2:] if mark in line) for mark in "@"]
    assert abs(lines[-1].index("1.5×") + 1 - columns[0]) <= 1
    assert not any("\x1b" in line for line in lines)


def test_half_the_axis_is_the_first_doubling(capsys: pytest.CaptureFixture[str]) -> None:
    draw_frontier([(1.0, 1.0), (2.0, 2.0), (1e6, 4.0)], [])
    lines = capsys.readouterr().out.splitlines()
    start, middle, end = sorted(line.index("*") for line in lines[2:] if "*" in line)
    assert abs((middle - start) - (end - middle)) <= 1


def test_it_is_as_wide_as_the_terminal_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (50, 80, 200):
        for line in drawn(monkeypatch, columns, colours=False).splitlines()[2:]:
            assert len(line) <= columns, columns


def test_colours_are_for_those_who_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[34m" in drawn(monkeypatch, 80)
    assert "\x1b[3" not in drawn(monkeypatch, 80, colours=False)


def test_too_little_is_not_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    draw_frontier([(1.0, 0.0)], [])
    assert capsys.readouterr().out == ""
    assert set(STYLES) == {"*", "o", "x", "@"} and "marked" in screen.__all__
