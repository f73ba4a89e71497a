"""The table of measured latencies: written once, read by every later run.

SQLite with one transaction per measurement, so that a crash loses at most the block being timed
and several processes can fill one table. A path ending in ``.json`` is the same table in the form
that is reviewed and shipped: held in memory, and the file is replaced whole at every change.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import platformdirs

from onnx_layermerge.errors import OutputError, ProfileError
from onnx_layermerge.latency import _json_form
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency._json_form import Entry, Pair, Section
from onnx_layermerge.latency._manage import Counts, Outcome, Policy, expendable
from onnx_layermerge.latency._records import decode_block, decode_ratio, encode
from onnx_layermerge.latency._rows import device_of, entry_of, pair_of, place, remove, rows_of
from onnx_layermerge.latency._schema import BUSY_MS, prepare, transaction, translated
from onnx_layermerge.latency._statistics import Ratio, Value

_T = TypeVar("_T")


def default_path() -> Path:
    """Where the table lives when no ``--profile`` is given: the user's cache folder."""
    return platformdirs.user_cache_path("olm") / "latency.sqlite"


class LatencyTable:
    """Measured costs of blocks, and speed-ups of whole models, for any number of devices.

    Use `open`, as a context manager. All methods raise `ProfileError` when the file turns out to
    be damaged and `OutputError` when it cannot be written.
    """

    def __init__(self, db: sqlite3.Connection, path: Path, json_path: Path | None = None) -> None:
        self._db, self._path, self._json_path = db, path, json_path
        self._seen: str | None = None

    @classmethod
    def open(cls, path: Path | str | None = None, *, create: bool = True) -> LatencyTable:
        """Open a table; None stands for `default_path`. If there is none it is created, unless `create` is false.

        Raises:
            ProfileError: the file is no latency table, is damaged, or of a newer version, or there is none.
            OutputError: the file cannot be created.
        """
        named = path is not None
        path = default_path() if path is None else Path(path)
        if path.is_dir():
            raise ProfileError(f"{path} is a folder; name a file for the latency table.")
        if not create and not path.exists():
            other = "name another" if named else "name one with --profile"
            raise ProfileError(f"There is no latency table {path}; make it with olm profile or {other}.")
        as_json = path.suffix.lower() == ".json"
        if not named:
            with contextlib.suppress(OSError):  # if it fails, opening says so
                path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.is_dir():
            raise OutputError(f"There is no folder {path.parent} for the latency table; create it first.")
        with translated(path):
            # Autocommit: transactions are opened explicitly below, one per change.
            db = sqlite3.connect(
                ":memory:" if as_json else path, timeout=BUSY_MS / 1000, isolation_level=None
            )
        table = cls(db, path, path if as_json else None)
        try:
            prepare(db, path)
            table._read_json_file()
        except BaseException:
            db.close()
            raise
        return table

    def __enter__(self) -> LatencyTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything put in is already there."""
        self._db.close()

    @property
    def path(self) -> Path:
        """The file behind this table."""
        return self._path

    def size_bytes(self) -> int:
        """Bytes on the disk, with what SQLite still keeps beside the file; 0 before the first entry of a JSON file."""
        files = [self._path, *(self._path.with_name(self._path.name + end) for end in ("-wal", "-shm"))]
        return sum(file.stat().st_size for file in files if file.exists())

    def get(self, device: DeviceKey, key: str) -> Entry | None:
        """Return the block's entry for exactly this device, or None."""
        query = "SELECT key, label, value, at_s FROM block WHERE device = ? AND key = ?"
        rows = self._read(query, device.digest(), key)
        return entry_of(*rows[0]) if rows else None

    def put(self, device: DeviceKey, key: str, label: str, value: Value) -> Value:
        """Commit one block's measurement, bound or failure, replacing an earlier one, and return it as it is stored.

        Numbers are stored to seven significant digits.

        Raises:
            ProfileError: a time is negative, not finite or outside its interval; the table stays as it was.
        """
        stored = decode_block(encode(value, f"block {key}"), f"block {key}")
        self.merge([Section(device, (Entry(key, label, stored, _now_s()),), ())], "replace")
        return stored

    def get_pair(self, device: DeviceKey, key_a: str, key_b: str) -> Ratio | None:
        """Return the measured speed-up of model `key_b` over model `key_a`, or None."""
        query = "SELECT key_a, key_b, value, at_s FROM pair WHERE device = ? AND key_a = ? AND key_b = ?"
        rows = self._read(query, device.digest(), key_a, key_b)
        return pair_of(*rows[0]).value if rows else None

    def put_pair(self, device: DeviceKey, key_a: str, key_b: str, value: Ratio) -> Ratio:
        """Commit a comparison of two whole models, replacing an earlier one; value and errors as `put`."""
        name = f"models {key_a} and {key_b}"
        stored = decode_ratio(encode(value, name), name)
        self.merge([Section(device, (), (Pair(key_a, key_b, stored, _now_s()),))], "replace")
        return stored

    def entries(self, device: DeviceKey) -> dict[str, Entry]:
        """Return all blocks of the device by key, in the order of their keys."""
        query = "SELECT key, label, value, at_s FROM block WHERE device = ? ORDER BY key"
        return {row[0]: entry_of(*row) for row in self._read(query, device.digest())}

    def pairs(self, device: DeviceKey) -> tuple[Pair, ...]:
        """Return all comparisons of whole models on the device, in the order of their keys."""
        query = "SELECT key_a, key_b, value, at_s FROM pair WHERE device = ? ORDER BY key_a, key_b"
        return tuple(pair_of(*row) for row in self._read(query, device.digest()))

    def devices(self) -> tuple[DeviceKey, ...]:
        """Return the devices that have entries, in the order of their text form."""
        rows = self._read("SELECT digest, fields FROM device")
        keys = (device_of(digest, fields) for digest, fields in rows)
        return tuple(sorted(keys, key=lambda key: (key.text(), key.digest())))

    def sections(self, devices: Iterable[DeviceKey] | None = None) -> list[Section]:
        """Return all that was measured on the given devices, by default on every one."""
        chosen = self.devices() if devices is None else devices
        return [Section(device, tuple(self.entries(device).values()), self.pairs(device)) for device in chosen]

    def export_json(self, path: Path | str, devices: Sequence[DeviceKey] | None = None) -> None:
        """Write all entries (or those of some devices), sorted, to a JSON file that appears whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        _json_form.write(self.sections(devices), Path(path))

    def import_json(self, path: Path | str, *, replace: bool = False) -> int:
        """Add the entries of an exported file in one transaction and return how many were new or replaced.

        Entries this table has already stay as they are, unless `replace` is set.

        Raises:
            ProfileError: the file is not a table or one of its entries is wrong; nothing is added.
        """
        counts = self.merge(_json_form.read(Path(path)), "replace" if replace else "keep")
        return counts.added + counts.replaced

    def merge(self, sections: Sequence[Section], policy: Policy) -> Counts:
        """Add entries in one transaction; `policy` says which of two for the same block and device stays.

        Raises:
            ProfileError: an entry is wrong; nothing is added.
        """
        # Encoding checks the values, so it comes before the transaction.
        rows = [rows_of(section) for section in sections]

        def change() -> Counts:
            outcomes: list[Outcome] = []
            for digest, fields, items in rows:
                if items:
                    insert = "INSERT OR IGNORE INTO device (digest, fields) VALUES (?, ?)"
                    self._db.execute(insert, (digest, fields))
                outcomes += [place(self._db, digest, row, policy) for row in items]
            return Counts.of(outcomes)

        return self._change(change)

    def prune(
        self,
        *,
        device: DeviceKey | None = None,
        before_s: float | None = None,
        failed: bool = False,
        dry_run: bool = False,
    ) -> list[Section]:
        """Remove what meets all conditions given, in one transaction, and return it.

        Args:
            device: only what was measured there.
            before_s: only what was measured before this time, seconds since 1970; what has no date stays.
            failed: only failures.
            dry_run: return the same and remove nothing.
        """

        def change() -> list[Section]:
            gone = []
            for section in self.sections(None if device is None else [device]):
                entries = tuple(item for item in section.entries if expendable(item, before_s, failed))
                pairs = tuple(item for item in section.pairs if expendable(item, before_s, failed))
                if entries or pairs:
                    gone.append(Section(section.device, entries, pairs))
            for section in [] if dry_run else gone:
                remove(self._db, section)
            return gone

        if dry_run:
            return change()
        gone = self._change(change)
        if gone and self._json_path is None:
            with contextlib.suppress(sqlite3.Error):  # gives the room back; another process may be reading
                self._db.execute("VACUUM")
        return gone

    def _change(self, change: Callable[[], _T]) -> _T:
        """Run a change of the table: one transaction, and a JSON file follows at once."""
        if self._json_path is None:
            with translated(self._path), transaction(self._db):
                return change()
        with _json_form.alone(self._json_path):
            self._read_json_file()
            with translated(self._path), transaction(self._db):
                result = change()
            _json_form.write(self.sections(), self._json_path)
            self._seen = _stamp(self._json_path)
        return result

    def _read(self, query: str, *parameters: str) -> list[tuple[Any, ...]]:
        with translated(self._path):
            return self._db.execute(query, parameters).fetchall()

    def _read_json_file(self) -> None:
        """Take the JSON file for the whole truth: everything put in here went there, and others write it too."""
        if self._json_path is None or not self._json_path.exists():
            return
        stamp = _stamp(self._json_path)
        if stamp == self._seen:
            return
        rows = [rows_of(section) for section in _json_form.read(self._json_path)]
        with translated(self._path), transaction(self._db):
            for table in ("block", "pair", "device"):
                self._db.execute(f"DELETE FROM {table}")
            for digest, fields, items in rows:
                self._db.execute("INSERT INTO device (digest, fields) VALUES (?, ?)", (digest, fields))
                for row in items:
                    place(self._db, digest, row, "replace")
        self._seen = stamp


def _now_s() -> int:
    return int(time.time())


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_ino} {status.st_mtime_ns} {status.st_size}"
