"""The latency table as a JSON file: sorted, stable, one field a line, so that a diff can be read.

{"format": "onnx-layermerge latency table", "version": 1,
 "devices": [{"device": {...}, "blocks": {KEY: {"label": ..., "seconds": ...}}, "pairs": [...]}]}
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from onnx_layermerge.errors import OutputError, ProfileError
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency._records import decode_block, decode_device, decode_ratio, encode
from onnx_layermerge.latency._statistics import Failure, Measurement, Ratio

_FORMAT = "onnx-layermerge latency table"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Entry:
    """One block in the table."""

    key: str
    label: str
    value: Measurement | Failure

    @property
    def seconds(self) -> float | None:
        """The block's cost, or None when it could not be measured."""
        return self.value.seconds if isinstance(self.value, Measurement) else None


class Pair(NamedTuple):
    """A comparison of two whole models: the speed-up of b over a."""

    key_a: str
    key_b: str
    value: Ratio


class Section(NamedTuple):
    """All that was measured on one device."""

    device: DeviceKey
    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]


def write(sections: Sequence[Section], path: Path) -> None:
    """Write the sections beside `path`, flush to disk, and rename; raises OutputError."""
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "devices": [
            {
                "device": encode(device, "device"),
                "blocks": {
                    e.key: {"label": e.label, **encode(e.value, f"block {e.key}")}
                    for e in sorted(entries, key=lambda e: e.key)
                },
                "pairs": [
                    {"a": p.key_a, "b": p.key_b, **encode(p.value, f"models {p.key_a} and {p.key_b}")}
                    for p in sorted(pairs, key=lambda p: p[:2])
                ],
            }
            for device, entries, pairs in sorted(sections, key=lambda s: (s.device.text(), s.device.digest()))
        ],
    }
    _replace(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read(path: Path) -> list[Section]:
    """Read and check a whole file; raises ProfileError naming the first entry that is wrong."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"The latency table {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path} is not JSON ({error}); export the table again.") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ProfileError(f"{path} is not a latency table; give a file that olm exported.")
    if document.get("version") != _VERSION:
        raise ProfileError(
            f"{path} has format version {document.get('version')!r}, this version of olm reads {_VERSION};"
            " update olm or export the table again."
        )
    return [_section(x, path) for x in _typed(document.get("devices"), list, path, "devices")]


def _section(record: object, path: Path) -> Section:
    fields = _typed(record, dict, path, "a device")
    device = decode_device(fields.get("device"), f"{path.name}, a device")
    where = f"{path.name}, {device.device}"
    entries = [
        Entry(key, _label(block, f"{where}, block {key}"), decode_block(block, f"{where}, block {key}"))
        for key, block in _typed(fields.get("blocks", {}), dict, path, "blocks").items()
    ]
    pairs = []
    for pair in _typed(fields.get("pairs", []), list, path, "pairs"):
        a, b = (_label(pair, f"{where}, a pair", field) for field in ("a", "b"))
        pairs.append(Pair(a, b, decode_ratio(pair, f"{where}, models {a} and {b}")))
    return Section(device, tuple(entries), tuple(pairs))


def _label(record: object, name: str, field: str = "label") -> str:
    value = record.get(field) if isinstance(record, dict) else None
    if not isinstance(value, str):
        raise ProfileError(f"Latency table, {name}: {field!r} is not a text; correct or remove this entry.")
    return value


def _typed(value: object, kind: type, path: Path, name: str) -> Any:
    if not isinstance(value, kind):
        raise ProfileError(f"{path}: {name!r} is not a {kind.__name__}; export the table again.")
    return value


def _replace(path: Path, text: str) -> None:
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
        raise OutputError(f"The latency table {path} cannot be written: {error.strerror}.") from error
