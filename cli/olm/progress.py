"""What is being done and what is left, on stderr.

On a terminal: one live display with a line for each stage, a spinning one where the end is not known.  It is drawn
twice a second only, since process CPU time is what is being measured meanwhile.  Elsewhere (a log, a pipe): a line when
a stage turns out to last, and one when it is done; short stages leave no trace.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

__all__ = ["Lines", "Live", "showing"]

Callback = Callable[[str, int, int, str], None]

REFRESH_HZ = 2
LASTING_S = 1.0
STAGES = {
    "read": "reading the model",
    "base": "timing the model",
    "time": "timing blocks",
    "score": "scoring blocks",
    "plan": "timing plans",
    "build": "building plans",
    "trim": "trimming the plan",
    "refit": "refitting",
    "tune": "tuning blocks",
    "verify": "verifying",
    "train": "training",
}


@contextmanager
def showing(quiet: bool) -> Iterator[Callback]:
    """The callback for ``progress=``; what it drew is gone after the block, whatever ends it."""
    if quiet:
        yield lambda stage, done, total, what: None
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        live = Live(Console(stderr=True, highlight=False))
        with live.display:
            yield live
    else:
        yield Lines()


class _Time(ProgressColumn):
    """Time left; for a stage that is done, or has no known end, the time it took so far."""

    def render(self, task: Task) -> Text:
        left = None if task.finished else task.time_remaining
        seconds = left if left is not None else task.finished_time or task.elapsed or 0.0
        minutes, rest = divmod(round(seconds), 60)
        clock = f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
        return Text(f"{clock} left" if left is not None else clock, justify="right")


class Live:
    """Stages as bars with the count, the time left and the thing at hand."""

    def __init__(self, console: Console) -> None:
        self.display = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(10),  # what is at hand needs the room more
            TextColumn("{task.fields[count]}", markup=False, justify="right"),
            _Time(),
            TextColumn("{task.fields[what]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            console=console,
            refresh_per_second=REFRESH_HZ,
            transient=True,
            expand=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, what: str) -> None:
        """Draw at the next refresh; ``total`` 0 means that the end is not known."""
        if stage not in self._tasks:
            self._tasks[stage] = self.display.add_task(STAGES.get(stage, stage), total=None, count="", what="")
        count = f"{done}/{total}" if total else str(done)
        self.display.update(self._tasks[stage], completed=done, total=total or None, count=count, what=what)


class Lines:
    """At most two lines for each time a stage runs."""

    def __init__(
        self,
        say: Callable[[str], None] = lambda text: click.echo(text, err=True),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._clock = say, clock
        self._since: dict[str, float] = {}
        self._said: set[str] = set()
        self._endless: set[str] = set()

    def __call__(self, stage: str, done: int, total: int, what: str) -> None:
        """Say that the stage runs once it lasted a second, and that it is done if it lasted as long."""
        now = self._clock()
        for other in self._endless - {stage}:  # they end where another begins
            self._end(other, now)
        if stage not in self._since:
            if total and done >= total:
                return
            self._since[stage] = now
        if not total:
            self._endless.add(stage)
        if total and done >= total:
            self._end(stage, now)
        elif stage not in self._said and now - self._since[stage] >= LASTING_S:
            self._said.add(stage)
            self._say(f"{STAGES.get(stage, stage)} ({what}) ...")

    def _end(self, stage: str, now: float) -> None:
        lasted = now - self._since.pop(stage)
        self._endless.discard(stage)
        self._said.discard(stage)
        if lasted >= LASTING_S:
            self._say(f"{STAGES.get(stage, stage)}: done in {lasted:.1f} s")
