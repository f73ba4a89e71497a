"""Entries of the table as rows of SQLite: how one is put there, taken away and read back.

Values and devices stand there as JSON text of the records that ``_records`` checks, on the way in and on the way out.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency._json_form import Entry, Pair, Section
from onnx_layermerge.latency._manage import Outcome, Policy, narrower
from onnx_layermerge.latency._records import decode_block, decode_device, decode_ratio, encode
from onnx_layermerge.latency._statistics import Ratio, Value

_LATEST_S = 253402300799  # 31 December 9999, the last second that a date can name


class Row(NamedTuple):
    """How one entry stands in SQLite: in ``table``, the columns ``names`` hold ``key``, ``columns`` hold ``values``."""

    item: Entry | Pair
    table: str
    names: tuple[str, ...]
    key: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[str | int | None, ...]
    read: Callable[..., Entry | Pair]


def rows_of(section: Section) -> tuple[str, str, list[Row]]:
    """The device's digest and fields, and its entries.

    Raises:
        ProfileError: one of their numbers is wrong.
    """
    return section.device.digest(), _text(section.device, "device"), [_row(item) for item in _items(section)]


def place(db: sqlite3.Connection, digest: str, row: Row, policy: Policy) -> Outcome:
    """Put a row there, unless ``policy`` or equality says that the one which is there stays; ``digest``: the device."""
    where = " AND ".join(f"{name} = ?" for name in ("device", *row.names))
    query = f"SELECT {', '.join(row.columns)} FROM {row.table} WHERE {where}"
    known = db.execute(query, (digest, *row.key)).fetchone()
    if known is not None:
        if known == row.values or (known[:-1] == row.values[:-1] and policy != "replace"):
            return "same"
        kept = policy == "keep" or (policy == "narrower" and not narrower(row.item, row.read(*row.key, *known)))
        if kept:
            return "kept"
    names = ("device", *row.names, *row.columns)
    insert = f"INSERT OR REPLACE INTO {row.table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    db.execute(insert, (digest, *row.key, *row.values))
    return "added" if known is None else "replaced"


def remove(db: sqlite3.Connection, section: Section) -> None:
    """Take the section's entries away, and its device where nothing else is known of it."""
    digest = section.device.digest()
    for row in map(_row, _items(section)):
        where = " AND ".join(f"{name} = ?" for name in ("device", *row.names))
        db.execute(f"DELETE FROM {row.table} WHERE {where}", (digest, *row.key))
    db.execute(
        "DELETE FROM device WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM block WHERE device = ?1)"
        " AND NOT EXISTS (SELECT 1 FROM pair WHERE device = ?1)",
        (digest,),
    )


def entry_of(key: str, label: str, value: str, at_s: object) -> Entry:
    """A row of ``block``; raises ProfileError where it is damaged, as the two below."""
    return Entry(key, label, decode_block(_parsed(value), f"block {key}"), _second(at_s))


def pair_of(key_a: str, key_b: str, value: str, at_s: object) -> Pair:
    """A row of ``pair``."""
    return Pair(key_a, key_b, decode_ratio(_parsed(value), f"models {key_a} and {key_b}"), _second(at_s))


def device_of(digest: str, fields: str) -> DeviceKey:
    """A row of ``device``."""
    return decode_device(_parsed(fields), f"device {digest}")


def _items(section: Section) -> tuple[Entry | Pair, ...]:
    return (*section.entries, *section.pairs)


def _row(item: Entry | Pair) -> Row:
    if isinstance(item, Entry):
        values: tuple[str | int | None, ...] = (item.label, _text(item.value, f"block {item.key}"), item.at_s)
        return Row(item, "block", ("key",), (item.key,), ("label", "value", "at_s"), values, entry_of)
    text = _text(item.value, f"models {item.key_a} and {item.key_b}")
    key = (item.key_a, item.key_b)
    return Row(item, "pair", ("key_a", "key_b"), key, ("value", "at_s"), (text, item.at_s), pair_of)


def _second(at_s: object) -> int | None:
    return at_s if isinstance(at_s, int) and 0 <= at_s <= _LATEST_S else None


def _text(value: Value | Ratio | DeviceKey, name: str) -> str:
    return json.dumps(encode(value, name), sort_keys=True, separators=(",", ":"))


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None  # the decoder names the entry
