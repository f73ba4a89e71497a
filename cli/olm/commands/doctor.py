"""``olm doctor``."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.text import Text

from olm.options import output_options
from olm.screen import print_json, table

__all__ = ["doctor"]


@click.command(short_help="List what is installed and what works here.")
@output_options
def doctor(as_json: bool, quiet: bool) -> None:
    """List what is installed, which backends and devices work here, and why the others do not."""
    import onnx_layermerge

    checks = onnx_layermerge.doctor()
    if as_json:
        print_json([asdict(check) for check in checks])
        return
    table(
        ("check", "", "detail"),
        [
            (check.name, Text("ok", "green") if check.usable else Text("no", "yellow"), check.detail)
            for check in checks
        ],
    )
