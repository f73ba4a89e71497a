"""Progress off a terminal: few lines, none for what is quick; on one: bars that do not fail."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from olm.progress import Lines, Live, showing


class Log:
    """``Lines`` with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.lines = Lines(self.said.append, lambda: self.now)

    def at(self, now: float, stage: str, done: int, total: int) -> None:
        self.now = now
        self.lines(stage, done, total, f"step {done}")


def test_quick_stages_leave_no_trace() -> None:
    log = Log()
    log.at(0.0, "read", 0, 2)
    log.at(0.5, "read", 1, 2)
    log.at(0.9, "read", 2, 2)
    log.at(0.9, "verify", 1, 1)
    assert log.said == []


def test_a_lasting_stage_says_so_once_and_when_it_is_done() -> None:
    log = Log()
    for second in range(10):
        log.at(second, "time", second, 10)
    assert log.said == ["timing blocks (step 1) ..."]
    log.at(10, "time", 10, 10)
    log.at(11, "time", 10, 10)
    assert log.said[1:] == ["timing blocks: done in 10.0 s"]


def test_a_stage_without_an_end_ends_where_the_next_begins() -> None:
    log = Log()
    for second in range(3):
        log.at(second, "plan", second, 0)
    log.at(5, "build", 0, 4)
    assert log.said == ["timing plans (step 1) ...", "timing plans: done in 5.0 s"]


def test_a_stage_within_another_does_not_end_it() -> None:
    log = Log()
    log.at(0, "build", 0, 2)
    log.at(2, "build", 0, 2)
    log.at(3, "refit", 0, 1)
    log.at(3.5, "refit", 1, 1)
    log.at(4, "build", 2, 2)
    assert log.said == ["building plans (step 0) ...", "building plans: done in 4.0 s"]


def test_a_stage_that_runs_again_is_told_again() -> None:
    log = Log()
    for start in (0, 10):
        log.at(start, "time", 0, 2)
        log.at(start + 2, "time", 2, 2)
    assert log.said == ["timing blocks: done in 2.0 s"] * 2


def test_an_unknown_stage_keeps_its_name() -> None:
    log = Log()
    log.at(0, "ponder", 0, 1)
    log.at(2, "ponder", 1, 1)
    assert log.said == ["ponder: done in 2.0 s"]


def test_live_shows_stage_count_and_thing() -> None:
    shown = io.StringIO()
    live = Live(Console(file=shown, force_terminal=True, width=160, _environ={}))
    with live.display:
        live("time", 3, 10, "fit 3x3 [/odd] name")
        live("plan", 2, 0, "no end known")
        live.display.refresh()
    for text in ("timing blocks", "3/10", "[/odd]", "timing plans", "no end known"):
        assert text in shown.getvalue()


def test_live_tells_the_time_left_only_where_there_is_an_end() -> None:
    shown = io.StringIO()
    live = Live(Console(file=shown, force_terminal=True, width=160, _environ={}))
    live.display.get_time = iter(range(0, 10_000, 10)).__next__  # each look at the clock is ten seconds later
    for done in range(4):
        live("time", done, 10, "x")
        live("plan", done, 0, "x")
    lines = {stage: next(line for line in _rows(live, 160) if stage in line) for stage in ("blocks", "plans")}
    assert " left" in lines["blocks"]
    assert " left" not in lines["plans"] and ":" in lines["plans"]


def _rows(live: Live, width: int) -> list[str]:
    console = Console(width=width, _environ={})
    with console.capture() as captured:
        console.print(live.display.get_renderable())
    return captured.get().splitlines()


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with showing(quiet=True) as progress:
        progress("read", 0, 1, "x")
    assert capsys.readouterr() == ("", "")
