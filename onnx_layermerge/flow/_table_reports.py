"""What the functions behind ``olm profiles`` answer with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnx_layermerge.latency import Counts

__all__ = [
    "Change",
    "DeviceSummary",
    "EntryLine",
    "TableContent",
    "TableDiff",
    "TableExport",
    "TableMerge",
    "TablePrune",
    "TableSummary",
]


@dataclass(frozen=True)
class DeviceSummary:
    """What a table holds for one device; dates in UTC, None where no entry has one."""

    device: str
    digest: str
    entries: int
    failed: int
    pairs: int
    oldest: str | None
    newest: str | None


@dataclass(frozen=True)
class TableSummary:
    """A table and its devices; ``exists`` is false for the default table before anything was measured."""

    profile: str
    exists: bool
    size_bytes: int
    devices: tuple[DeviceSummary, ...]


@dataclass(frozen=True)
class EntryLine:
    """One block: its cost with the 95 % interval in milliseconds, or only a lower bound, or why there is none.

    ``cold_ms`` is the cost with cold caches, where the device was asked for it.
    """

    key: str
    label: str
    ms: float | None
    low_ms: float | None
    high_ms: float | None
    n: int | None
    stop_reason: str | None
    failure: str | None
    measured: str | None
    cold_ms: float | None = None


@dataclass(frozen=True)
class TableContent:
    """The entries of one device that match; ``held`` counts all of them."""

    profile: str
    device: str
    digest: str
    held: int
    entries: tuple[EntryLine, ...]


@dataclass(frozen=True)
class Change:
    """A block (``ms``) or a pair of models (a speed-up) that two tables contradict each other about."""

    what: Literal["block", "pair"]
    key: str
    label: str
    before: float | None
    after: float | None
    relative: float | None
    """after / before − 1; None where one of them is no measurement."""


@dataclass(frozen=True)
class TableDiff:
    """What two tables say of the same device, or of two devices that were named.

    ``changed`` holds what differs by more than the 95 % intervals allow; ``same`` counts the rest of what both have.
    """

    a: str
    b: str
    devices: tuple[str, ...]
    changed: tuple[Change, ...]
    same: int
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


@dataclass(frozen=True)
class TableMerge:
    """What became of the entries of each source: new, taken over what was there, not taken, equal."""

    profile: str
    sources: tuple[tuple[str, Counts], ...]


@dataclass(frozen=True)
class TableExport:
    """Where a table was written, and how much of it."""

    profile: str
    output: str
    devices: int
    entries: int
    pairs: int


@dataclass(frozen=True)
class TablePrune:
    """What was removed (``removed``) or would be; ``undated`` entries have no date and are never too old."""

    profile: str
    removed: bool
    devices: tuple[DeviceSummary, ...]
    undated: int
    size_bytes: int
