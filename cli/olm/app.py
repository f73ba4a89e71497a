"""The tree of commands."""

from __future__ import annotations

import click

from olm.commands.compress import compress
from olm.commands.diff import diff
from olm.commands.doctor import doctor
from olm.commands.explain import explain
from olm.commands.finetune import finetune
from olm.commands.inspect import inspect
from olm.commands.plan import plan
from olm.commands.profile import profile
from olm.commands.profiles import profiles
from olm.commands.verify import verify
from olm.errors import GuardedGroup, version
from olm.screen import print_json

__all__ = ["olm"]


def _print_version(as_json: bool) -> None:
    if not as_json:
        click.echo(f"olm {version()}")
        return
    from onnx_layermerge.flow import versions

    found = versions()
    found.pop("onnx-layermerge", None)
    print_json({"version": version(), "python": found.pop("python"), "libraries": found})


@click.group(
    cls=GuardedGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", "version_wanted", is_flag=True, help="Print the version.")
@click.option("--json", "as_json", is_flag=True, help="With --version: as JSON, with Python and the libraries.")
@click.pass_context
def olm(ctx: click.Context, version_wanted: bool, as_json: bool) -> None:
    """Make an ONNX CNN measurably faster on your device: fewer, merged convolutions with the least loss.

    \b
    A first run:
      olm inspect  in.onnx
      olm plan     in.onnx --calib images/
      olm compress in.onnx out.onnx --speedup 1.5 --calib images/
      olm verify   in.onnx out.onnx --min-speedup 1.5
    """
    if version_wanted:
        _print_version(as_json)
        ctx.exit()
    if as_json:
        raise click.UsageError("--json stands behind a command, or beside --version; put it there.")
    if ctx.invoked_subcommand is None:  # like any other missing word: help on stderr, exit code of a usage error
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


for command in (inspect, profile, plan, compress, finetune, verify, explain, diff, profiles, doctor):
    olm.add_command(command)
