"""``olm profiles``: the latency tables themselves."""

# ParamType became generic in Click 8.4 and cannot be subscripted before.
# mypy: disable-error-code=type-arg

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from olm.options import all_option, output_options, profile_option
from olm.screen import ms, print_json, say, shorten, table, warn

if TYPE_CHECKING:
    from onnx_layermerge.flow import Change, DeviceSummary, EntryLine, TableContent, TableDiff, TableMerge, TablePrune

__all__ = ["profiles"]

MOST_ROWS = 30
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_TABLE = click.Path()


class Age(click.ParamType):
    """``90d``: a whole number of minutes, hours, days or weeks, in seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Seconds, or a usage error."""
        found = re.fullmatch(r"(\d{1,6})([mhdw])", str(value).strip().lower(), re.ASCII)
        if found is None:
            self.fail(f"{value!r} is no age; give a number and m, h, d or w, such as 90d.", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


@click.group(short_help="List, compare, join, move and clean up latency tables.", invoke_without_command=True)
@click.pass_context
def profiles(ctx: click.Context) -> None:
    """What `olm profile` measured: list, compare, join, move and clean up latency tables.

    A table is a .sqlite or a .json file; without `--profile` it is the one in the user's cache.  DEVICE is a part of
    the line that `olm profiles list` shows, or the start of its digest.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


@profiles.command("list", short_help="Devices of a table, and how much is known of each.")
@profile_option
@output_options
def list_(profile: str | None, as_json: bool, quiet: bool) -> None:
    """Show the devices of a table with their whole key, how much is known of each, and from when."""
    from onnx_layermerge.flow import list_table

    found = list_table(profile)
    if as_json:
        print_json(found)
    elif not found.exists:
        say(f"{found.profile}: none yet, made by the first olm profile", "bold")
    else:
        say(f"{found.profile}: {len(found.devices)} devices, {_size(found.size_bytes)}", "bold")
        _devices(found.devices)


@profiles.command(short_help="Entries of one device.")
@click.argument("device", metavar="[DEVICE]", default="")
@profile_option
@click.option("--match", default="", metavar="TEXT", help="Only entries with this in their label.")
@click.option(
    "--sort", type=click.Choice(("cost", "label", "measured")), default="cost", show_default=True,
    help="cost: the dearest first; measured: the newest first.",
)
@click.option("--failed", is_flag=True, help="Only blocks that could not be timed, with the reason.")
@all_option
@output_options
def show(
    device: str, profile: str | None, everything: bool, as_json: bool, quiet: bool, **words: Any
) -> None:  # fmt: skip
    """Show the blocks that were timed on a device: cost, 95 % interval, samples and why sampling stopped.

    On a GPU the cost with a cold second-level cache stands beside, where it was taken.

    DEVICE may be left out where the table holds only one.
    """
    from onnx_layermerge.flow import show_table

    found = show_table(profile, device=device, **words)
    if as_json:
        print_json(found)
    else:
        _show(found, everything)


@profiles.command(short_help="What two tables contradict each other about.")
@click.argument("a", metavar="A", type=_TABLE)
@click.argument("b", metavar="B", type=_TABLE)
@click.option("--device", default="", metavar="DEVICE", help="Only this device.")
@click.option("--against", default="", metavar="DEVICE", help="Compare with this device of B instead.")
@all_option
@output_options
def diff(a: str, b: str, everything: bool, as_json: bool, quiet: bool, **words: Any) -> None:
    """Show entries whose times in A and B differ by more than their 95 % intervals allow, and those only in one.

    Tables are compared device by device; with `--device` and `--against` one device with another, such as two versions
    of a backend.
    """
    from onnx_layermerge.flow import diff_tables

    found = diff_tables(a, b, **words)
    if as_json:
        print_json(found)
    else:
        _show_diff(found, everything)


@profiles.command(short_help="Bring the entries of tables into one.")
@click.argument("into", metavar="INTO", type=_TABLE)
@click.argument("sources", metavar="FROM...", type=_TABLE, nargs=-1, required=True)
@click.option("--replace", is_flag=True, help="Of two entries, keep that of FROM whatever its interval.")
@output_options
def merge(into: str, sources: tuple[str, ...], replace: bool, as_json: bool, quiet: bool) -> None:
    """Add to INTO what is in FROM.  INTO is made if it is not there.

    Of two entries for one block on one device the one with the narrower interval stays.
    """
    from onnx_layermerge.flow import merge_tables

    _merged(merge_tables(into, sources, replace=replace), as_json)


@profiles.command(short_help="Write a table as JSON, to review, ship and commit.")
@click.argument("output", metavar="OUT.json", type=_TABLE)
@profile_option
@click.option("--device", metavar="DEVICE", help="Only this device.")
@output_options
def export(output: str, profile: str | None, device: str | None, as_json: bool, quiet: bool) -> None:
    """Write a table as JSON: sorted, one entry a line, the same bytes for the same entries."""
    from onnx_layermerge.flow import export_table

    found = export_table(output, profile, device=device)
    if as_json:
        print_json(found)
    else:
        say(f"{found.output}: {found.devices} devices, {found.entries} blocks, {found.pairs} pairs of models", "bold")
        say(f"from {found.profile}")


@profiles.command("import", short_help="Add the entries of an exported table to one's own.")
@click.argument("source", metavar="FROM", type=_TABLE)
@profile_option
@click.option("--replace", is_flag=True, help="Replace entries that are there already.")
@output_options
def import_(source: str, profile: str | None, replace: bool, as_json: bool, quiet: bool) -> None:
    """Add the entries of FROM to the table; those that it has already stay as they are."""
    from onnx_layermerge.flow import import_table

    _merged(import_table(source, profile, replace=replace), as_json)


@profiles.command(short_help="Remove old or failed entries, or a device.")
@profile_option
@click.option("--older-than", "older_than_s", type=Age(), metavar="AGE", help="Measured longer ago than this, as 90d.")
@click.option("--device", metavar="DEVICE", help="Measured on this device.")
@click.option("--failed", is_flag=True, help="Blocks that could not be timed; they are tried again next time.")
@click.option("--yes", is_flag=True, help="Really remove them; without this they are only counted.")
@output_options
def prune(profile: str | None, yes: bool, as_json: bool, quiet: bool, **words: Any) -> None:
    """Count what meets all the conditions given, and with `--yes` remove it."""
    from onnx_layermerge.flow import prune_table

    found = prune_table(profile, remove=yes, **words)
    if found.undated:
        warn([f"{found.undated} entries do not say when they were measured and count as young."])
    if as_json:
        print_json(found)
    else:
        _show_pruned(found)


def _devices(devices: tuple[DeviceSummary, ...]) -> None:
    if not devices:
        return
    say()
    table(
        ("digest", "device", ">blocks", ">failed", ">pairs", "oldest", "newest"),
        [(x.digest, x.device, x.entries, x.failed, x.pairs, _day(x.oldest), _day(x.newest)) for x in devices],
    )


def _show(found: TableContent, everything: bool) -> None:
    say(f"{found.device} ({found.digest})", "bold")
    say(f"{len(found.entries)} of {found.held} blocks in {found.profile}")
    say()
    rows, more = shorten(found.entries, MOST_ROWS, everything)
    cold = any(x.cold_ms is not None for x in rows)
    table(
        ("block", ">ms", ">95 % interval", *([">ms, cold L2"] if cold else []), ">n", "stopped", "measured"),
        [
            (
                x.label,
                _cost(x),
                _interval(x),
                *(["" if x.cold_ms is None else ms(x.cold_ms)] if cold else []),
                x.n or "",
                x.failure or x.stop_reason,
                _day(x.measured),
            )
            for x in rows
        ],
    )
    if more:
        say(more, "dim")


def _show_diff(found: TableDiff, everything: bool) -> None:
    say(f"{len(found.changed)} differ by more than their intervals allow, {found.same} agree", "bold")
    for device in found.devices:
        say(f"on {device}")
    if found.changed:
        rows, more = shorten(found.changed, MOST_ROWS, everything)
        say()
        table(
            ("", "block", f">{found.a}", f">{found.b}", ">change"),
            [(x.what, x.label or x.key, _value(x, x.before), _value(x, x.after), _change(x)) for x in rows],
            title="Contradict each other (blocks in ms, pairs as speed-up)",
        )
        if more:
            say(more, "dim")
    for name, only in ((found.a, found.only_a), (found.b, found.only_b)):
        if only:
            lines, more = shorten(only, MOST_ROWS, everything)
            say()
            say(f"Only in {name}: {len(only)}", "bold")
            for line in lines:
                say(line)
            if more:
                say(more, "dim")


def _merged(found: TableMerge, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    say(found.profile, "bold")
    table(
        ("from", ">new", ">replaced", ">not taken", ">equal"),
        [(name, counts.added, counts.replaced, counts.kept, counts.same) for name, counts in found.sources],
    )


def _show_pruned(found: TablePrune) -> None:
    entries, pairs = sum(x.entries for x in found.devices), sum(x.pairs for x in found.devices)
    counted = f"{entries} blocks and {pairs} pairs of models"
    if found.removed:
        say(f"{found.profile}: {counted} removed, {_size(found.size_bytes)} left", "bold")
    else:
        say(f"{found.profile}: {counted} would be removed; --yes does it", "bold")
    _devices(found.devices)


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def _day(when: str | None) -> str:
    return "–" if when is None else when[:10]


def _cost(entry: EntryLine) -> str:
    if entry.ms is not None:
        return ms(entry.ms)
    return "failed" if entry.low_ms is None else f"> {ms(entry.low_ms)}"


def _interval(entry: EntryLine) -> str:
    if entry.ms is None or entry.low_ms is None or entry.high_ms is None:
        return ""
    return f"{ms(entry.low_ms)} to {ms(entry.high_ms)}"


def _value(change: Change, value: float | None) -> str:
    if value is None:
        return "none"
    return ms(value) if change.what == "block" else f"{value:.3f}×"


def _change(change: Change) -> str:
    return "" if change.relative is None else f"{change.relative:+.1%}"
