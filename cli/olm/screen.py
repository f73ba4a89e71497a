"""Results as a person reads them: tables and numbers on stdout, warnings on stderr, JSON for programs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from onnx_layermerge.latency import Ratio

__all__ = [
    "WIDTH",
    "first_of",
    "fitted",
    "interval",
    "kernel",
    "marked",
    "ms",
    "plain",
    "print_json",
    "say",
    "shorten",
    "table",
    "times",
    "warn",
]

T = TypeVar("T")
# Where nobody watches, a row must not be broken: the reader is a file or a program.
_UNBROKEN = 10_000
# No table that has to fit is wider, and none of its columns is cut below the least.
WIDTH, LEAST, GAP = 100, 10, 2


def _print(what: Text | Table, *, soft_wrap: bool = False) -> None:
    watched = sys.stdout.isatty()
    console = Console(markup=False, highlight=False, emoji=False, width=None if watched else _UNBROKEN)
    if watched:
        console.print(what, soft_wrap=soft_wrap)
        return
    with console.capture() as captured:
        console.print(what, soft_wrap=soft_wrap)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def say(text: str = "", style: str = "") -> None:
    """One line of a result."""
    _print(Text(text, style=style), soft_wrap=True)


def marked(line: str, styles: Mapping[str, str]) -> None:
    """One line of a plot behind its bar, each of whose marks has a style."""
    axis, bar, cells = line.partition("|")
    text = Text(axis + bar)
    for cell in cells:
        text.append(cell, style=styles.get(cell, ""))
    _print(text, soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """A table on stdout; a column whose name starts with ``>`` is aligned right."""
    if title:
        say(title, "bold")
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(
            Text(column.lstrip(">")), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    _print(made)


def fitted(
    columns: Sequence[str], rows: Sequence[Sequence[object]], names: str, everything: bool = False, *, title: str = ""
) -> None:  # fmt: skip
    """A table no wider than the screen, or than ``WIDTH``: the widest cells give way; ``everything`` leaves them whole.

    Of the column ``names`` the ends are kept, which tell more, of the others the beginnings.
    """
    cells = [[plain(str(cell)) for cell in row] for row in rows]
    most = min(WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else WIDTH
    widths = [max([len(name.lstrip(">")), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    while not everything and sum(widths) + GAP * (len(widths) - 1) > most and max(widths) > LEAST:
        widths[widths.index(max(widths))] -= 1
    if not everything:
        cells = [
            [_cut(cell, width, end=name == names) for cell, width, name in zip(row, widths, columns, strict=True)]
            for row in cells
        ]
    table(columns, cells, title=title)


def _cut(text: str, width: int, *, end: bool) -> str:
    if len(text) <= width:
        return text
    return f"…{text[1 - width :]}" if end else f"{text[: width - 1]}…"


def plain(text: str) -> str:
    """A name in a file may hold anything; a terminal should not act on it."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def print_json(value: Any) -> None:
    """The result, whole, and nothing else on stdout."""
    from onnx_layermerge.report import as_json

    click.echo(as_json(value))


def warn(warnings: Iterable[str]) -> None:
    """Each on a line of its own, in yellow, on stderr."""
    for text in warnings:
        click.secho(f"Warning: {' '.join(text.split())}", fg="yellow", err=True)


def shorten(items: Sequence[T], limit: int, everything: bool) -> tuple[Sequence[T], str]:
    """The items to show, and the sentence about those that are not shown (or "")."""
    if everything or len(items) <= limit:
        return items, ""
    return items[:limit], f"... and {len(items) - limit} more (--all shows them)"


def ms(milliseconds: float) -> str:
    """Three digits that matter: 0.0152, 3.21, 415."""
    size = abs(milliseconds)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{milliseconds:.{digits}f}"


def times(speedup: float) -> str:
    """1.52×."""
    return f"{speedup:.2f}×"


def interval(ratio: Ratio) -> str:
    """The speed-up with its interval and what it comes from."""
    return (
        f"{ratio.ratio:.3f}× (95 % interval {ratio.low:.3f} to {ratio.high:.3f}), "
        f"{ms(ratio.a_s * 1e3)} ms -> {ms(ratio.b_s * 1e3)} ms"
    )


def first_of(names: Sequence[str]) -> str:
    """The first name, and how many more there are: ``conv1 +2``."""
    return f"{names[0]} +{len(names) - 1}" if len(names) > 1 else "".join(names)


def kernel(size: Sequence[int]) -> str:
    """3×3; nothing for a block that was dropped."""
    return "×".join(map(str, size)) or "–"
