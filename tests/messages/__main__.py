"""``python -m tests.messages``: list the messages, update what tests produce them, write the page, check a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from tests.messages import listing
from tests.messages.page import FILE as PAGE
from tests.messages.page import page
from tests.messages.scan import scan


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command("list")
def list_them() -> None:
    """Every message: file:line, class, exit code, sentence."""
    messages = scan()
    for message in messages:
        file, first, _ = message.lines[-1]
        click.echo(f"{file}:{first}: {message.kind} ({message.exit_code}): {message.text}")
    click.echo(f"{len(messages)} messages", err=True)


@main.command("page")
def write_page() -> None:
    """Write docs/troubleshooting.md."""
    PAGE.write_text(page(scan()), encoding="utf-8")


@main.command()
@click.option("--keep", is_flag=True, help="The run was of some tests only: what they did not produce keeps its test.")
@click.argument("record", type=click.Path(exists=True, path_type=Path))
def update(record: Path, keep: bool) -> None:
    """Write tests/messages.json after a run with OLM_MESSAGES=RECORD; exit 1 if a message has no test."""
    found, missing = listing.updated(
        scan(), json.loads(record.read_text(encoding="utf-8")), listing.load(), keep=keep
    )
    listing.save(found)
    _say_missing(missing)


@main.command()
@click.argument("record", type=click.Path(exists=True, path_type=Path))
def check(record: Path) -> None:
    """Whether the tests named in tests/messages.json produced their messages in that run; exit 1 if not."""
    messages = scan()
    made = listing.made_by(messages, json.loads(record.read_text(encoding="utf-8")))
    _say_missing([key for key, test in listing.load().tests.items() if test not in made.get(key, ())])


def _say_missing(missing: list[tuple[str, str]]) -> None:
    for place, text in missing:
        click.echo(f"no test: {place}: {text}", err=True)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main(prog_name="python -m tests.messages")
