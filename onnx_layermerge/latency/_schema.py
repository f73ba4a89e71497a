"""The SQLite file below the table: what is in it, how older files are brought up to date, its errors as sentences.

Step i of `MIGRATIONS` takes a file of schema i to schema i + 1; a new file is schema 0.  All steps that a file needs
run in one transaction, so that a migration happens whole or not at all.

1. device(digest, fields), block(device, key, label, value), pair(device, key_a, key_b, value), the values as JSON.
2. block and pair know when they were measured: ``at_s``, seconds since 1970 in UTC, NULL for what schema 1 held.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from onnx_layermerge.errors import OutputError, ProfileError

APPLICATION_ID = 0x6F6C6D31  # "olm1", so that another program's database is not taken for ours
BUSY_MS = 30_000
_UNWRITABLE = ("readonly", "unable to open", "disk is full", "I/O")


def _create(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("CREATE TABLE device (digest TEXT PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID")
    db.execute(
        "CREATE TABLE block (device TEXT NOT NULL REFERENCES device, key TEXT NOT NULL,"
        " label TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (device, key)) WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE pair (device TEXT NOT NULL REFERENCES device, key_a TEXT NOT NULL,"
        " key_b TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (device, key_a, key_b)) WITHOUT ROWID"
    )


def _date(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE block ADD COLUMN at_s INTEGER")
    db.execute("ALTER TABLE pair ADD COLUMN at_s INTEGER")


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [_create, _date]


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Check that the file is one of ours and whole, and bring it to the newest schema.

    Raises:
        ProfileError: another program's file, a newer schema, or damage.
        OutputError: it would have to be written and cannot be.
    """
    with translated(path):
        db.execute("PRAGMA foreign_keys = ON")
        with transaction(db, "DEFERRED"):  # one snapshot: another process may be creating it
            version = _check_identity(db, path)
        if version < len(MIGRATIONS):
            _use_wal(db)
            with transaction(db):
                # Read again: another process may have migrated while this one waited.
                for step in range(_check_identity(db, path), len(MIGRATIONS)):
                    MIGRATIONS[step](db)
                    db.execute(f"PRAGMA user_version = {step + 1}")
        # The quick check does not see keys out of order, and a search among those misses entries in silence.
        damage = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if damage == "ok" and db.execute("PRAGMA foreign_key_check").fetchone() is not None:
            damage = "entries of an unknown device"
    if damage != "ok":
        raise ProfileError(_damaged(path, damage))


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, mode: str = "IMMEDIATE") -> Iterator[None]:
    """All or nothing; the connection can be used again after an error, of the commit too (a full disk)."""
    db.execute(f"BEGIN {mode}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back on some errors
            with contextlib.suppress(sqlite3.Error):  # the first error says what happened
                db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into sentences."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text:
            raise ProfileError(f"{path} is in use by another process; wait for it to finish.") from error
        if any(words in text for words in _UNWRITABLE):
            raise OutputError(
                f"The latency table {path} cannot be written ({text}); what it held is still there: make room or name"
                " another with --profile."
            ) from error
        raise ProfileError(_damaged(path, text)) from error
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise ProfileError(_damaged(path, str(error))) from error


def _check_identity(db: sqlite3.Connection, path: Path) -> int:
    """Return the schema version; the file must be empty or one of ours."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        (objects,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if objects or version or application:
            raise ProfileError(
                f"{path} is a database of another program; name another file for the latency table."
            )
    if version > len(MIGRATIONS):
        raise ProfileError(
            f"{path} has schema {version}, this version of olm knows schemas up to"
            f" {len(MIGRATIONS)}; update olm or use another file."
        )
    return int(version)


def _use_wal(db: sqlite3.Connection) -> None:
    # Changing the journal mode does not wait for other processes as everything else does.
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _damaged(path: Path, detail: str) -> str:
    detail = detail.partition(" with text ")[0].splitlines()[0]  # what follows are the damaged bytes
    return f"{path} is not a readable latency table ({detail}); move it away and measure again."
