"""--report: where a run is written down, in which form, and what must not be written over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from onnx_layermerge import Report

__all__ = ["report_option", "report_targets", "write_reports"]

SUFFIXES = (".html", ".md", ".json")


def report_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--report."""
    return click.option(
        "--report", "reports", type=click.Path(), multiple=True, metavar="FILE",
        help="Write the whole report there: .html is one page that needs nothing else, .md a summary, .json the data; "
        "repeatable.",
    )(command)  # fmt: skip


def report_targets(reports: Sequence[str], input: str, output: str, others: Iterable[object]) -> list[Path]:
    """Every check of the reports' paths that can be made before minutes of work.

    ``others`` are values of options, some of which name files that the run reads or adds to, one or several.
    """
    from onnx_layermerge.graph import check_target

    places: dict[Path, str] = {}
    several = [each if isinstance(each, tuple) else (each,) for each in others]
    read = {Path(each).resolve() for each in chain.from_iterable(several) if isinstance(each, str)}
    for report in reports:
        path = Path(report)
        if path.suffix.lower() not in SUFFIXES:
            raise click.UsageError(f"--report {report} is none of {', '.join(SUFFIXES)}; name it by what it is to be.")
        resolved = path.resolve()
        if resolved == Path(output).resolve():
            raise click.UsageError(f"--report {report} is the output itself; choose another file.")
        if resolved in read:
            raise click.UsageError(f"--report {report} is a file that this run works with; choose another.")
        if resolved in places:
            raise click.UsageError(f"--report {report} is given twice; choose a file for each.")
        places[resolved] = report
        check_target(report, not_over=input)
        if Path(output).exists():
            check_target(report, not_over=output)
    return [Path(report) for report in reports]


def write_reports(targets: Iterable[Path], result: Report) -> None:
    """Each whole or not at all."""
    from onnx_layermerge.graph import write_bytes
    from onnx_layermerge.report import as_json, render_html, render_markdown

    forms: dict[str, Callable[[Report], str]] = {
        ".html": render_html,
        ".md": render_markdown,
        ".json": lambda report: as_json(report) + "\n",
    }
    for target in targets:
        write_bytes(target, forms[target.suffix.lower()](result).encode())
