"""``olm profiles``: what latency tables hold, how two differ, and how they are joined, moved and cleaned up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from onnx_layermerge.errors import UsageError
from onnx_layermerge.flow._recorded import named
from onnx_layermerge.flow._table_reports import (
    Change,
    DeviceSummary,
    EntryLine,
    TableContent,
    TableDiff,
    TableExport,
    TableMerge,
    TablePrune,
    TableSummary,
)
from onnx_layermerge.latency import (
    Bound,
    DeviceKey,
    Entry,
    Failure,
    LatencyTable,
    Measurement,
    Pair,
    default_path,
    differs,
    time_text,
)

__all__ = [
    "diff_tables",
    "export_table",
    "import_table",
    "list_table",
    "merge_tables",
    "prune_table",
    "show_table",
]

Where = str | Path
SORTS = ("cost", "label", "measured")


def list_table(profile: Where | None = None) -> TableSummary:
    """Devices, counts and dates of a table; None is the user's own, which need not exist yet.

    Raises:
        ProfileError: it cannot be read, or one was named that does not exist.
    """
    if profile is None and not default_path().exists():
        return TableSummary(str(default_path()), False, 0, ())
    with LatencyTable.open(profile, create=False) as table:
        found = tuple(_summary(device, (*entries, *pairs)) for device, entries, pairs in table.sections())
        return TableSummary(str(table.path), True, table.size_bytes(), found)


def show_table(
    profile: Where | None = None, *, device: str = "", match: str = "", sort: str = "cost", failed: bool = False
) -> TableContent:
    """Entries of one device, the dearest first.

    Args:
        device: a part of its key or digest; may be left out where the table holds only one.
        match: only entries with this in their label, in any case.
        sort: "cost", "label", or "measured" (the newest first).
        failed: only failures.

    Raises:
        ProfileError: the table cannot be read, or the device is not clear.
        UsageError: unknown sort.
    """
    if sort not in SORTS:
        raise UsageError(f"--sort {sort} is unknown; choose from {', '.join(SORTS)}.")
    with LatencyTable.open(profile, create=False) as table:
        key = named(table, device)
        entries = list(table.entries(key).values())
    wanted = [
        entry
        for entry in entries
        if match.casefold() in entry.label.casefold() and (not failed or isinstance(entry.value, Failure))
    ]
    wanted.sort(key=lambda entry: entry.label)
    if sort == "cost":
        wanted.sort(key=_cost, reverse=True)
    elif sort == "measured":
        wanted.sort(key=lambda entry: entry.at_s or 0, reverse=True)
    return TableContent(str(table.path), key.text(), key.digest(), len(entries), tuple(map(_line, wanted)))


def diff_tables(a: Where, b: Where, *, device: str = "", against: str = "") -> TableDiff:
    """Compare what two tables say of the devices that both know, or of one, or of one against another.

    Args:
        device: the device in ``a``, a part of its key or digest.
        against: the device in ``b``; by default the same one.

    Raises:
        ProfileError: a table cannot be read, or a device is not clear.
    """
    with LatencyTable.open(a, create=False) as left, LatencyTable.open(b, create=False) as right:
        if device or against:
            first = named(left, device or against)
            couples = [(first, named(right, against or first.digest()))]
        else:
            every = dict.fromkeys((*left.devices(), *right.devices()))
            couples = [(key, key) for key in every]
        changed: list[Change] = []
        only_a: list[str] = []
        only_b: list[str] = []
        same = 0
        for one, other in couples:
            (before,), (after,) = left.sections([one]), right.sections([other])
            old, new = _by_key((*before.entries, *before.pairs)), _by_key((*after.entries, *after.pairs))
            both = [key for key in old if key in new]
            apart = [key for key in both if differs(old[key], new[key])]
            changed += [_change(old[key], new[key]) for key in apart]
            same += len(both) - len(apart)
            only_a += [_title(item) for key, item in old.items() if key not in new]
            only_b += [_title(item) for key, item in new.items() if key not in old]
    changed.sort(key=lambda change: (change.relative is not None, -abs(change.relative or 0.0), change.key))
    texts = tuple(one.text() if one == other else f"{one.text()} -> {other.text()}" for one, other in couples)
    return TableDiff(str(a), str(b), texts, tuple(changed), same, tuple(sorted(only_a)), tuple(sorted(only_b)))


def merge_tables(into: Where, sources: Sequence[Where], *, replace: bool = False) -> TableMerge:
    """Bring the entries of other tables into one, each source whole or not at all; they are not changed.

    Of two entries for one block on one device the better known stays (a measurement before a bound before a failure,
    then the narrower 95 % interval); with ``replace``, that of the source.

    Raises:
        ProfileError: a table cannot be read; nothing is merged then.
        OutputError: ``into`` cannot be written.
    """
    if not sources:
        raise UsageError("name at least one table to merge from.")
    for source in sources:
        if Path(source).resolve() == Path(into).resolve():
            raise UsageError(f"{source} would be merged into itself; name another table.")
    held = []
    for source in sources:  # all are read before anything is written
        with LatencyTable.open(source, create=False) as table:
            held.append((str(source), table.sections()))
    with LatencyTable.open(into) as target:
        done = [(name, target.merge(sections, "replace" if replace else "narrower")) for name, sections in held]
        return TableMerge(str(target.path), tuple(done))


def export_table(output: Where, profile: Where | None = None, *, device: str | None = None) -> TableExport:
    """Write a table, or one device of it, as JSON: sorted, one entry a line, the same bytes for the same entries.

    Raises:
        ProfileError: the table cannot be read, or the device is not clear.
        UsageError: the output is no .json file.
        OutputError: the output cannot be written.
    """
    if Path(output).suffix.lower() != ".json":
        raise UsageError(f"{output} is no .json file; give a name that ends in .json.")
    with LatencyTable.open(profile, create=False) as table:
        keys = table.devices() if device is None else (named(table, device),)
        sections = table.sections(keys)
        table.export_json(output, keys)
        entries, pairs = sum(len(x.entries) for x in sections), sum(len(x.pairs) for x in sections)
        return TableExport(str(table.path), str(output), len(keys), entries, pairs)


def import_table(source: Where, profile: Where | None = None, *, replace: bool = False) -> TableMerge:
    """Add a table's entries to one's own, in one transaction; what is there already stays, unless ``replace``.

    Raises:
        ProfileError: a table cannot be read, or an entry of the source is wrong; nothing is added then.
        OutputError: the table cannot be written.
    """
    with LatencyTable.open(source, create=False) as table:
        sections = table.sections()
    with LatencyTable.open(profile) as target:
        counts = target.merge(sections, "replace" if replace else "keep")
        return TableMerge(str(target.path), ((str(source), counts),))


def prune_table(
    profile: Where | None = None,
    *,
    older_than_s: float | None = None,
    device: str | None = None,
    failed: bool = False,
    remove: bool = False,
) -> TablePrune:
    """What meets all the conditions given; it is only removed with ``remove``.

    Raises:
        ProfileError: the table cannot be read, or the device is not clear.
        OutputError: the table cannot be written.
        UsageError: no condition.
    """
    if older_than_s is None and device is None and not failed:
        raise UsageError("say what is to go: --older-than, --device or --failed.")
    before_s = None if older_than_s is None else time.time() - older_than_s
    with LatencyTable.open(profile, create=False) as table:
        key = None if device is None else named(table, device)
        undated = 0
        if before_s is not None:
            held = table.sections(None if key is None else [key])
            undated = sum(each.at_s is None for x in held for each in x.entries)
            undated += sum(each.at_s is None for x in held for each in x.pairs)
        gone = table.prune(device=key, before_s=before_s, failed=failed, dry_run=not remove)
        lines = tuple(_summary(x.device, (*x.entries, *x.pairs)) for x in gone)
        return TablePrune(str(table.path), remove, lines, undated, table.size_bytes())


def _summary(device: DeviceKey, items: Sequence[Entry | Pair]) -> DeviceSummary:
    dates = [item.at_s for item in items if item.at_s is not None]
    entries = [item for item in items if isinstance(item, Entry)]
    return DeviceSummary(
        device=device.text(),
        digest=device.digest(),
        entries=len(entries),
        failed=sum(isinstance(entry.value, Failure) for entry in entries),
        pairs=len(items) - len(entries),
        oldest=time_text(min(dates, default=None)),
        newest=time_text(max(dates, default=None)),
    )


def _line(entry: Entry) -> EntryLine:
    value, measured = entry.value, time_text(entry.at_s)
    if isinstance(value, Failure):
        return EntryLine(entry.key, entry.label, None, None, None, None, None, value.reason, measured)
    if isinstance(value, Bound):
        low_ms = value.at_least_s * 1e3
        return EntryLine(entry.key, entry.label, None, low_ms, None, value.n, "bound", None, measured)
    ms, low_ms, high_ms = (1e3 * seconds for seconds in (value.seconds, value.low_s, value.high_s))
    cold_ms = None if value.cold_s is None else 1e3 * value.cold_s
    return EntryLine(
        entry.key, entry.label, ms, low_ms, high_ms, value.n, value.stop_reason, None, measured, cold_ms
    )


def _cost(entry: Entry) -> float:
    value = entry.value
    if isinstance(value, Measurement):
        return value.seconds
    return value.at_least_s if isinstance(value, Bound) else -1.0


def _by_key(items: Iterable[Entry | Pair]) -> dict[tuple[str, ...], Entry | Pair]:
    keyed: dict[tuple[str, ...], Entry | Pair] = {}
    for item in items:
        keyed[(item.key,) if isinstance(item, Entry) else (item.key_a, item.key_b)] = item
    return keyed


def _title(item: Entry | Pair) -> str:
    return f"block {item.key} {item.label}" if isinstance(item, Entry) else f"models {item.key_a} {item.key_b}"


def _change(old: Entry | Pair, new: Entry | Pair) -> Change:
    before, after = _number(old), _number(new)
    relative = after / before - 1 if before and after is not None else None
    if isinstance(new, Entry):
        return Change("block", new.key, new.label, before, after, relative)
    return Change("pair", f"{new.key_a} {new.key_b}", "", before, after, relative)


def _number(item: Entry | Pair) -> float | None:
    if isinstance(item, Pair):
        return item.value.ratio
    return None if item.seconds is None else item.seconds * 1e3
