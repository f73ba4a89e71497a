"""Files that older versions wrote: what they held is there, in the form of this version."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from onnx_layermerge.errors import ProfileError
from onnx_layermerge.latency import DeviceKey, Failure, LatencyTable, Measurement, Pair, Ratio, _schema

DEVICE = DeviceKey("onnxruntime", "1.32.0", "CPU (family 6, avx2)", 1, "fp32", protocol=1)
# Word for word what schema 1 made, so that a change of the steps of today cannot change the past.
_SCHEMA_1 = """
PRAGMA application_id = 1869376817;
CREATE TABLE device (digest TEXT PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE block (device TEXT NOT NULL REFERENCES device, key TEXT NOT NULL, label TEXT NOT NULL,
 value TEXT NOT NULL, PRIMARY KEY (device, key)) WITHOUT ROWID;
CREATE TABLE pair (device TEXT NOT NULL REFERENCES device, key_a TEXT NOT NULL, key_b TEXT NOT NULL,
 value TEXT NOT NULL, PRIMARY KEY (device, key_a, key_b)) WITHOUT ROWID;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""
_DIGEST = "ca267fb0e066ec38"
_FIELDS = {
    "backend": "onnxruntime", "backend_version": "1.32.0", "device": "CPU (family 6, avx2)", "threads": 1,
    "precision": "fp32", "protocol": 1, "driver": "",
}  # fmt: skip
_COST = {
    "seconds": 0.005740546749994024, "low_s": 0.005639045999998871, "high_s": 0.005864045499997417,
    "wall_s": 0.005761159499797941, "p90_s": 0.005921866499996042, "p99_s": 0.006218020999988028, "n": 26,
    "outliers": 0, "stop_reason": "cap", "half_width_s": 0.00011249974999927304,
}  # fmt: skip
_RATIO = {
    "ratio": 1.5, "low": 1.48, "high": 1.52, "a_s": 3e-3, "b_s": 2e-3, "wall_ratio": 1.49, "n": 40,
    "stop_reason": "cap",
}  # fmt: skip


def old_table(path: Path) -> Path:
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(_SCHEMA_1)
    db.execute("INSERT INTO device VALUES (?, ?)", (_DIGEST, json.dumps(_FIELDS)))
    db.execute("INSERT INTO block VALUES (?, 'k1', 'conv 1', ?)", (_DIGEST, json.dumps(_COST)))
    db.execute("INSERT INTO block VALUES (?, 'k2', 'conv 2', '{\"failure\": \"no memory\"}')", (_DIGEST,))
    db.execute("INSERT INTO pair VALUES (?, 'a', 'b', ?)", (_DIGEST, json.dumps(_RATIO)))
    db.close()
    return path


def old_json(path: Path) -> Path:
    blocks = {"k1": {"label": "conv 1", **_COST}, "k2": {"label": "conv 2", "failure": "no memory"}}
    device = {"device": _FIELDS, "blocks": blocks, "pairs": [{"a": "a", "b": "b", **_RATIO}]}
    document = {"format": "onnx-layermerge latency table", "version": 1, "devices": [device]}
    path.write_text(json.dumps(document, indent=1))
    return path


@pytest.fixture(params=[old_table, old_json], ids=["sqlite", "json"])
def old(request, tmp_path: Path) -> Path:
    path: Path = request.param(tmp_path / f"t.{'json' if request.param is old_json else 'sqlite'}")
    return path


def test_digests_are_those_of_older_versions() -> None:
    """A table finds its entries by them: with another digest, all that was measured would be lost."""
    assert DEVICE.digest() == _DIGEST


def test_an_older_file_keeps_its_entries_and_takes_new_ones(old, devices, measurement) -> None:
    for _ in range(2):  # the second time it is one of this version
        with LatencyTable.open(old) as table:
            assert table.devices()[0] == DEVICE
            first, second = table.entries(DEVICE)["k1"], table.entries(DEVICE)["k2"]
            value = first.value
            assert isinstance(value, Measurement) and (value.n, value.stop_reason) == (26, "cap")
            assert value.seconds == pytest.approx(0.005740546749994024, rel=1e-6)
            assert (first.label, second.value, first.at_s) == ("conv 1", Failure("no memory"), None)
            assert table.pairs(DEVICE) == (Pair("a", "b", Ratio(1.5, 1.48, 1.52, 3e-3, 2e-3, 1.49, 40, "cap"), None),)
            table.put(devices[1], "k3", "conv 3", measurement())
            new = table.get(devices[1], "k3").at_s
            assert new is not None and new > 1_700_000_000
    if old.suffix == ".sqlite":
        db = sqlite3.connect(old)
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        db.close()


def test_a_migration_is_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    path = old_table(tmp_path / "t.sqlite")

    def half(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE block ADD COLUMN at_s INTEGER")
        db.execute("no such statement")

    with monkeypatch.context() as patch:
        patch.setattr(_schema, "MIGRATIONS", [_schema.MIGRATIONS[0], half])
        with pytest.raises(ProfileError):
            LatencyTable.open(path)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert [row[1] for row in db.execute("PRAGMA table_info(block)")] == ["device", "key", "label", "value"]
    db.close()
    with LatencyTable.open(path) as table:
        assert len(table.entries(DEVICE)) == 2


def _open_and_count(path: str, gate: object, counts: object) -> None:
    gate.wait()  # type: ignore[attr-defined]
    with LatencyTable.open(path) as table:
        counts.put(len(table.entries(DEVICE)))  # type: ignore[attr-defined]


def test_several_processes_may_migrate_one_file_at_once(tmp_path) -> None:
    path = old_table(tmp_path / "t.sqlite")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["onnx_layermerge.latency"])
    gate, counts = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_open_and_count, args=(str(path), gate, counts)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [counts.get(timeout=30) for _ in processes] == [2] * 4
    for process in processes:
        process.join()
