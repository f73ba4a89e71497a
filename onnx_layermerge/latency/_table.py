"""The table of measured latencies: written once, read by every later run.

SQLite with one transaction per measurement, so that a crash loses at most the block being timed
and several processes can fill one table. A path ending in ``.json`` is the same table in the form
that is reviewed and shipped: held in memory, and the file is replaced whole at every change.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import platformdirs

from onnx_layermerge.errors import OutputError, ProfileError
from onnx_layermerge.latency import _json_form
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency._json_form import Entry, Pair, Section
from onnx_layermerge.latency._records import decode_block, decode_device, decode_ratio, encode
from onnx_layermerge.latency._statistics import Failure, Measurement, Ratio

_APPLICATION_ID = 0x6F6C6D31  # "olm1", so that another program's database is not taken for ours
_BUSY_MS = 30_000


def _create(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    db.execute("CREATE TABLE device (digest TEXT PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID")
    db.execute(
        "CREATE TABLE block (device TEXT NOT NULL REFERENCES device, key TEXT NOT NULL,"
        " label TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (device, key)) WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE pair (device TEXT NOT NULL REFERENCES device, key_a TEXT NOT NULL,"
        " key_b TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (device, key_a, key_b)) WITHOUT ROWID"
    )


_MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [_create]
"""Step i takes a table of schema i to schema i + 1; a new file is schema 0."""


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
    def open(cls, path: Path | str | None = None) -> LatencyTable:
        """Open a table, creating it if there is none; None stands for `default_path`.

        Raises:
            ProfileError: the file is no latency table, is damaged, or of a newer version.
            OutputError: the file cannot be created.
        """
        path = default_path() if path is None else Path(path)
        if path.is_dir():
            raise ProfileError(f"{path} is a folder; name a file for the latency table.")
        as_json = path.suffix.lower() == ".json"
        if path == default_path():
            with contextlib.suppress(OSError):  # if it fails, opening says so
                path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.is_dir():
            raise OutputError(f"There is no folder {path.parent} for the latency table; create it first.")
        with _translated(path):
            # Autocommit: transactions are opened explicitly below, one per change.
            db = sqlite3.connect(
                ":memory:" if as_json else path, timeout=_BUSY_MS / 1000, isolation_level=None
            )
        table = cls(db, path, path if as_json else None)
        try:
            table._prepare()
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

    def get(self, device: DeviceKey, key: str) -> Entry | None:
        """Return the block's entry for exactly this device, or None."""
        rows = self._read("SELECT label, value FROM block WHERE device = ? AND key = ?", device.digest(), key)
        return _entry(key, *rows[0]) if rows else None

    def put(self, device: DeviceKey, key: str, label: str, value: Measurement | Failure) -> None:
        """Commit one block's measurement or failure, replacing an earlier one.

        Raises:
            ProfileError: a time is negative or not finite; the table stays as it was.
        """
        self._add([Section(device, (Entry(key, label, value),), ())], replace=True)

    def get_pair(self, device: DeviceKey, key_a: str, key_b: str) -> Ratio | None:
        """Return the measured speed-up of model `key_b` over model `key_a`, or None."""
        query = "SELECT value FROM pair WHERE device = ? AND key_a = ? AND key_b = ?"
        rows = self._read(query, device.digest(), key_a, key_b)
        return decode_ratio(_parsed(rows[0][0]), f"models {key_a} and {key_b}") if rows else None

    def put_pair(self, device: DeviceKey, key_a: str, key_b: str, value: Ratio) -> None:
        """Commit a comparison of two whole models, replacing an earlier one; errors as `put`."""
        self._add([Section(device, (), (Pair(key_a, key_b, value),))], replace=True)

    def entries(self, device: DeviceKey) -> dict[str, Entry]:
        """Return all blocks of the device by key, in the order of their keys."""
        rows = self._read(
            "SELECT key, label, value FROM block WHERE device = ? ORDER BY key", device.digest()
        )
        return {key: _entry(key, label, value) for key, label, value in rows}

    def devices(self) -> tuple[DeviceKey, ...]:
        """Return the devices that have entries, in the order of their text form."""
        rows = self._read("SELECT digest, fields FROM device")
        keys = (decode_device(_parsed(fields), f"device {digest}") for digest, fields in rows)
        return tuple(sorted(keys, key=lambda key: (key.text(), key.digest())))

    def export_json(self, path: Path | str) -> None:
        """Write all entries, sorted, to a JSON file that appears whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        _json_form.write(self._sections(), Path(path))

    def import_json(self, path: Path | str, *, replace: bool = False) -> int:
        """Add the entries of an exported file in one transaction and return how many were new.

        Entries this table has already stay as they are, unless `replace` is set.

        Raises:
            ProfileError: the file is not a table or one of its entries is wrong; nothing is added.
        """
        return self._add(_json_form.read(Path(path)), replace=replace)

    def _sections(self) -> list[Section]:
        query = "SELECT key_a, key_b, value FROM pair WHERE device = ? ORDER BY key_a, key_b"
        sections = []
        for device in self.devices():
            pairs = tuple(
                Pair(a, b, decode_ratio(_parsed(value), f"models {a} and {b}"))
                for a, b, value in self._read(query, device.digest())
            )
            sections.append(Section(device, tuple(self.entries(device).values()), pairs))
        return sections

    def _add(self, sections: list[Section], *, replace: bool) -> int:
        verb = "INSERT OR REPLACE" if replace else "INSERT OR IGNORE"
        # Encoding checks the values, so it comes before the transaction.
        devices = [(s.device.digest(), _text(s.device, "device")) for s in sections]
        blocks = [
            (s.device.digest(), e.key, e.label, _text(e.value, f"block {e.key}"))
            for s in sections
            for e in s.entries
        ]
        pairs = [
            (s.device.digest(), p.key_a, p.key_b, _text(p.value, f"models {p.key_a} and {p.key_b}"))
            for s in sections
            for p in s.pairs
        ]
        with _translated(self._path), self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO device VALUES (?, ?)", devices)
            added = db.executemany(f"{verb} INTO block VALUES (?, ?, ?, ?)", blocks).rowcount
            added += db.executemany(f"{verb} INTO pair VALUES (?, ?, ?, ?)", pairs).rowcount
        if self._json_path is not None:
            self._read_json_file()
            self.export_json(self._json_path)
            self._seen = _stamp(self._json_path)
        return added

    def _read(self, query: str, *parameters: str) -> list[tuple[Any, ...]]:
        with _translated(self._path):
            return self._db.execute(query, parameters).fetchall()

    def _read_json_file(self) -> None:
        """Take in what the JSON file has and this table lacks: all at first, later what others wrote."""
        if self._json_path is None or not self._json_path.exists():
            return
        stamp = _stamp(self._json_path)
        if stamp != self._seen:
            sections = _json_form.read(self._json_path)
            json_path, self._json_path = self._json_path, None  # reading is no reason to write
            try:
                self._add(sections, replace=False)
            finally:
                self._json_path = json_path
            self._seen = stamp

    @contextlib.contextmanager
    def _transaction(self, mode: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        self._db.execute(f"BEGIN {mode}")
        try:
            yield self._db
        except BaseException:
            if self._db.in_transaction:  # SQLite itself rolls back on some errors
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _prepare(self) -> None:
        with _translated(self._path):
            self._db.execute("PRAGMA foreign_keys = ON")
            with self._transaction("DEFERRED"):  # one snapshot: another process may be creating it
                version = self._check_identity()
            if version < len(_MIGRATIONS):
                self._use_wal()
                with self._transaction():
                    # Read again: another process may have migrated while this one waited.
                    for step in range(self._check_identity(), len(_MIGRATIONS)):
                        _MIGRATIONS[step](self._db)
                        self._db.execute(f"PRAGMA user_version = {step + 1}")
            damage = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise ProfileError(_damaged(self._path, damage))

    def _check_identity(self) -> int:
        """Return the schema version; the file must be empty or one of ours."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        if application != _APPLICATION_ID:
            (objects,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if objects or version or application:
                raise ProfileError(
                    f"{self._path} is a database of another program; name another file for the latency table."
                )
        if version > len(_MIGRATIONS):
            raise ProfileError(
                f"{self._path} has schema {version}, this version of olm knows schemas up to"
                f" {len(_MIGRATIONS)}; update olm or use another file."
            )
        return int(version)

    def _use_wal(self) -> None:
        # Changing the journal mode does not wait for other processes as everything else does.
        deadline = time.monotonic() + _BUSY_MS / 1000
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


def _entry(key: str, label: str, value: str) -> Entry:
    return Entry(key, label, decode_block(_parsed(value), f"block {key}"))


def _text(value: Measurement | Failure | Ratio | DeviceKey, name: str) -> str:
    return json.dumps(encode(value, name), sort_keys=True, separators=(",", ":"))


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None  # the decoder names the entry


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_ino} {status.st_mtime_ns} {status.st_size}"


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into sentences."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text:
            raise ProfileError(f"{path} is in use by another process; wait for it to finish.") from error
        if "readonly" in text or "unable to open" in text or "disk is full" in text or "I/O" in text:
            raise OutputError(
                f"The latency table {path} cannot be written ({text}); name another with --profile."
            ) from error
        raise ProfileError(_damaged(path, text)) from error
    except sqlite3.Error as error:
        raise ProfileError(_damaged(path, str(error))) from error


def _damaged(path: Path, detail: str) -> str:
    return f"{path} is not a readable latency table ({detail}); move it away and measure again."
