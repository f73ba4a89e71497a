"""The latency table as a JSON file: sorted, stable, one entry a line, so that a diff can be read.

{"format": "onnx-layermerge latency table", "version": 2,
 "devices": [{"device": {...}, "blocks": {KEY: {"label": ..., "measured": ..., "seconds": ...}}, "pairs": [...]}]}

Version 1 had no ``measured`` (the time in UTC, to the second) and one field a line; it is read all the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from onnx_layermerge.errors import OutputError, ProfileError
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency._records import decode_block, decode_device, decode_ratio, encode, is_text
from onnx_layermerge.latency._statistics import Measurement, Ratio, Value

_FORMAT = "onnx-layermerge latency table"
_VERSION = 2
_READABLE = (1, 2)
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One block in the table."""

    key: str
    label: str
    value: Value
    at_s: int | None = None
    """When it was measured, seconds since 1970 in UTC; None where an older version did not say."""

    @property
    def seconds(self) -> float | None:
        """The block's cost, or None when it was not measured."""
        return self.value.seconds if isinstance(self.value, Measurement) else None


class Pair(NamedTuple):
    """A comparison of two whole models: the speed-up of b over a; ``at_s`` as in `Entry`."""

    key_a: str
    key_b: str
    value: Ratio
    at_s: int | None = None


class Section(NamedTuple):
    """All that was measured on one device."""

    device: DeviceKey
    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]


def time_text(at_s: int | None) -> str | None:
    """``2026-01-31T12:00:00Z``, or None."""
    return None if at_s is None else datetime.datetime.fromtimestamp(at_s, datetime.timezone.utc).strftime(_TIME)


def write(sections: Sequence[Section], path: Path) -> None:
    """Write the sections beside `path`, flush to disk, and rename; raises OutputError."""
    devices = [
        _lines(
            "{}",
            [
                '"device": ' + _line(encode(device, "device")),
                '"blocks": ' + _lines("{}", [_block(entry) for entry in sorted(entries, key=_key)], 3),
                '"pairs": ' + _lines("[]", [_pair(pair) for pair in sorted(pairs, key=_key)], 3),
            ],
            2,
        )
        for device, entries, pairs in sorted(sections, key=lambda s: (s.device.text(), s.device.digest()))
    ]
    fields = [f'"format": {_line(_FORMAT)}', f'"version": {_VERSION}', '"devices": ' + _lines("[]", devices, 1)]
    _replace(path, _lines("{}", fields, 0) + "\n")


def read(path: Path) -> list[Section]:
    """Read and check a whole file; raises ProfileError naming the first entry that is wrong."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_doubles)
    except OSError as error:
        raise ProfileError(
            f"The latency table {path} cannot be read: {error.strerror}; check its permissions."
        ) from error
    except _Double as error:
        raise ProfileError(f"{path} holds {error} twice; keep one of the two.") from error
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path} is not JSON ({error}); export the table again.") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ProfileError(f"{path} is not a latency table; give a file that olm exported.")
    version = document.get("version")
    if isinstance(version, bool) or version not in _READABLE:
        raise ProfileError(
            f"{path} has format version {version!r}, this version of olm reads up to {_VERSION};"
            " update olm or export the table again."
        )
    sections = [_section(x, path) for x in _typed(document.get("devices"), list, path, "devices")]
    seen: set[DeviceKey] = set()
    for section in sections:
        if section.device in seen:
            raise ProfileError(f"{path} holds the device {section.device.text()} twice; join the two.")
        seen.add(section.device)
    return sections


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes from replacing files in the folder of `path` meanwhile, where the system can.

    The folder is locked and not the file, since a rename puts another file in its place.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError:  # writing says what is wrong
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _block(entry: Entry) -> str:
    value = encode(entry.value, f"block {entry.key}")
    return f"{_line(entry.key)}: " + _line({"label": entry.label, **_measured(entry.at_s), **value})


def _pair(pair: Pair) -> str:
    value = encode(pair.value, f"models {pair.key_a} and {pair.key_b}")
    return _line({"a": pair.key_a, "b": pair.key_b, **_measured(pair.at_s), **value})


def _measured(at_s: int | None) -> dict[str, str]:
    text = time_text(at_s)
    return {} if text is None else {"measured": text}


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _lines(ends: str, lines: list[str], depth: int) -> str:
    """Brackets around one line each; ``depth`` is that of the brackets."""
    inner = "\n" + " " * (depth + 1)
    return f"{ends[0]}{inner}{f',{inner}'.join(lines)}\n{' ' * depth}{ends[1]}" if lines else ends


def _key(item: Entry | Pair) -> tuple[str, ...]:
    return (item.key,) if isinstance(item, Entry) else (item.key_a, item.key_b)


class _Double(Exception):
    """A name that stands twice in one object."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A later entry would replace the earlier one in silence: what a merge of two branches leaves behind."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Double(next(repr(name) for name in names if names.count(name) > 1))
    return made


def _section(record: object, path: Path) -> Section:
    fields = _typed(record, dict, path, "a device")
    device = decode_device(fields.get("device"), f"{path.name}, a device")
    where = f"{path.name}, {device.device}"
    entries = []
    for key, block in _typed(fields.get("blocks", {}), dict, path, "blocks").items():
        name = f"{where}, block {key}"
        if not is_text(key):
            raise ProfileError(f"{path}: {key!r} is not a key; remove this entry.")
        entries.append(Entry(key, _label(block, name), decode_block(block, name), _at_s(block, name)))
    pairs: dict[tuple[str, str], Pair] = {}
    for pair in _typed(fields.get("pairs", []), list, path, "pairs"):
        a, b = (_label(pair, f"{where}, a pair", field) for field in ("a", "b"))
        name = f"{where}, models {a} and {b}"
        if (a, b) in pairs:
            raise ProfileError(f"Latency table, {name}: they stand there twice; keep one of the two.")
        pairs[a, b] = Pair(a, b, decode_ratio(pair, name), _at_s(pair, name))
    return Section(device, tuple(entries), tuple(pairs.values()))


def _label(record: object, name: str, field: str = "label") -> str:
    value = record.get(field) if isinstance(record, dict) else None
    if not isinstance(value, str) or not is_text(value):
        raise ProfileError(f"Latency table, {name}: {field!r} is not a text; correct or remove this entry.")
    return value


def _at_s(record: dict[str, Any], name: str) -> int | None:
    text = record.get("measured")
    if text is None:
        return None
    try:
        when = datetime.datetime.strptime(text, _TIME).replace(tzinfo=datetime.timezone.utc)
    except (TypeError, ValueError):
        raise ProfileError(
            f"Latency table, {name}: 'measured' is {text!r}, not a time such as 2026-01-31T12:00:00Z; correct it."
        ) from None
    return int(when.timestamp())


def _typed(value: object, kind: type, path: Path, name: str) -> Any:
    if not isinstance(value, kind):
        raise ProfileError(f"{path}: {name!r} is not a {kind.__name__}; export the table again.")
    return value


def _replace(path: Path, text: str) -> None:
    path = path.resolve()  # a link stays a link
    if path.exists() and not path.is_file():
        raise OutputError(f"The latency table {path} cannot be written: it is no ordinary file; name another.")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise OutputError(
            f"The latency table {path} cannot be written: {error.strerror}; name another place."
        ) from error
