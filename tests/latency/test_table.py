from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from onnx_layermerge.errors import OutputError, ProfileError
from onnx_layermerge.latency import Failure, LatencyTable, _schema, _table, default_path


@pytest.fixture(params=["t.sqlite", "t.json"])
def path(request, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def test_what_is_put_is_there_after_reopening(path, devices, measurement, ratio) -> None:
    first, second = devices
    with LatencyTable.open(path) as table:
        assert (table.get(first, "k"), table.get_pair(first, "a", "b"), table.devices()) == (None, None, ())
        stored = table.put(first, "k2", "conv 2", measurement(1 / 3))
        table.put(first, "k1", "conv 1", Failure("does not build"))
        table.put(second, "k1", "conv 1", measurement(3e-5))
        table.put_pair(first, "a", "b", ratio)
    with LatencyTable.open(path) as table:
        assert table.get(first, "k2").value == stored
        assert (stored.seconds, stored.n) == (0.3333333, 20), "seven digits, whatever the form"
        assert table.get(first, "k1").value == Failure("does not build")
        assert list(table.entries(first)) == ["k1", "k2"]
        assert table.devices() == tuple(devices)
        assert table.get_pair(first, "a", "b") == ratio
        assert table.get_pair(first, "b", "a") is None
        assert table.get_pair(second, "a", "b") is None


def test_a_key_of_another_protocol_or_cpu_is_another_entry(path, devices, measurement) -> None:
    with LatencyTable.open(path) as table:
        table.put(devices[0], "k", "conv", measurement())
        for change in ({"protocol": 99}, {"device": "CPU (family 6, avx512)"}, {"threads": 2}):
            assert table.get(dataclasses.replace(devices[0], **change), "k") is None


def test_a_second_put_replaces(path, devices, measurement) -> None:
    with LatencyTable.open(path) as table:
        table.put(devices[0], "k", "conv", Failure("no memory"))
        table.put(devices[0], "k", "conv", measurement(2e-3))
        assert table.get(devices[0], "k").seconds == 2e-3


@pytest.mark.parametrize(
    ("field", "bad"), [*(("p99_s", x) for x in (math.nan, math.inf, -1e-9, 10**400)), ("low_s", 2.0), ("high_s", 0.0)]
)
def test_impossible_times_never_enter(path, devices, measurement, field, bad) -> None:
    with LatencyTable.open(path) as table:
        stored = table.put(devices[0], "k", "conv", measurement())
        with pytest.raises(ProfileError, match=f"block k: '({field}|seconds)'"):
            table.put(devices[0], "k", "conv", dataclasses.replace(measurement(), **{field: bad}))
        assert table.get(devices[0], "k").value == stored


def test_export_is_stable_and_import_restores_all(tmp_path, devices, measurement, ratio, monkeypatch) -> None:
    monkeypatch.setattr(_table, "_now_s", lambda: 1_800_000_000)
    exports = []
    for turn in (1, -1):
        with LatencyTable.open(tmp_path / f"{turn}.sqlite") as table:
            for i in range(5)[::turn]:
                table.put(devices[i % 2], f"k{i}", f"conv {i} µ", measurement((i + 1) * 1e-3 / 3))
            table.put_pair(devices[1], "a", "b", ratio)
            table.export_json(tmp_path / f"{turn}.json")
        exports.append((tmp_path / f"{turn}.json").read_bytes())
    assert exports[0] == exports[1], "independent of the order of measuring"
    with LatencyTable.open(tmp_path / "new.sqlite") as table:
        assert table.import_json(tmp_path / "1.json") == 6
        assert table.import_json(tmp_path / "1.json") == 0
        table.export_json(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == exports[0]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [], "no temporary left"


def test_import_keeps_earlier_entries_unless_told_otherwise(tmp_path, devices, measurement) -> None:
    with LatencyTable.open(tmp_path / "theirs.json") as theirs:
        theirs.put(devices[0], "k", "conv", measurement(9e-3))
        theirs.put(devices[0], "new", "conv", measurement(9e-3))
    with LatencyTable.open(tmp_path / "ours.sqlite") as table:
        table.put(devices[0], "k", "conv", measurement(1e-3))
        assert table.import_json(tmp_path / "theirs.json") == 1
        assert table.get(devices[0], "k").seconds == 1e-3
        table.import_json(tmp_path / "theirs.json", replace=True)
        assert table.get(devices[0], "k").seconds == 9e-3


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("seconds", math.nan, "not a finite number"),
        ("seconds", -1.0, "negative"),
        ("wall_s", "fast", "not a finite number"),
        ("n", 2.5, "not a whole number"),
        ("n", True, "not a finite number"),
        ("stop_reason", "tired", "not one of"),
        ("p90_s", None, "missing"),
        ("label", None, "not a text"),
    ],
)
def test_a_wrong_entry_is_named_and_nothing_is_imported(
    tmp_path, devices, measurement, field, value, words
) -> None:
    source, target = tmp_path / "in.json", tmp_path / "t.sqlite"
    with LatencyTable.open(source) as table:
        table.put(devices[0], "a-good", "conv", measurement())
        table.put(devices[0], "b-bad", "conv", measurement())
    document = json.loads(source.read_text())
    block = document["devices"][0]["blocks"]["b-bad"]
    block.pop(field) if value is None else block.__setitem__(field, value)
    source.write_text(json.dumps(document))
    with LatencyTable.open(target) as table:
        table.put(devices[0], "mine", "conv", measurement())
        with pytest.raises(ProfileError, match=f"b-bad.*{field}.*{words}"):
            table.import_json(source)
        assert list(table.entries(devices[0])) == ["mine"]
    with pytest.raises(ProfileError, match="b-bad"):
        LatencyTable.open(source)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a latency table"),
        ('{"format": "onnx-layermerge latency table", "version": 3}', "update olm"),
        ('{"format": "onnx-layermerge latency table", "version": true}', "update olm"),
        ('{"format": "onnx-layermerge latency table", "version": [1]}', "update olm"),
        ('{"format": "onnx-layermerge latency table", "version": 1}', "'devices' is not a list"),
        ('{"format": "onnx-layermerge latency table", "version": 2, "version": 2}', "'version' twice"),
        ('{"format": "onnx-layermerge latency table", "version": 1, "devices": [3]}', "'a device'"),
        ('{"format": "onnx-layermerge latency table", "version": 1, "devices": [{}]}', "not an object"),
    ],
)
def test_other_json_is_refused_and_left_alone(tmp_path, text, words) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match=words):
        LatencyTable.open(path)
    assert path.read_text() == text


def test_files_that_are_no_table_are_refused_and_left_alone(tmp_path, devices, measurement) -> None:
    text = tmp_path / "notes.sqlite"
    text.write_text("this is not a database at all, however long it may be. " * 100)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE users (name)")
    for path, words in ((text, "move it away"), (other, "another program"), (tmp_path, "is a folder")):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(ProfileError, match=words):
            LatencyTable.open(path)
        assert not path.is_file() or path.read_bytes() == before
    with pytest.raises(OutputError, match="create it first"):
        LatencyTable.open(tmp_path / "none" / "t.sqlite")


def test_a_truncated_table_is_one_sentence(tmp_path, devices, measurement) -> None:
    path = tmp_path / "t.sqlite"
    with LatencyTable.open(path) as table:
        for i in range(200):
            table.put(devices[0], f"k{i}", "conv", measurement())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ProfileError, match=r"move it away and measure again\.$"):
        LatencyTable.open(path)


def test_a_newer_schema_is_refused(tmp_path) -> None:
    path = tmp_path / "t.sqlite"
    LatencyTable.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(ProfileError, match=r"schema 7.*update olm"):
        LatencyTable.open(path)


def test_a_failed_migration_changes_nothing(tmp_path, monkeypatch) -> None:
    path = tmp_path / "t.sqlite"
    LatencyTable.open(path).close()

    def half(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE half (x)")
        db.execute("no such statement")

    with monkeypatch.context() as patch:
        patch.setattr(_schema, "MIGRATIONS", [*_schema.MIGRATIONS, half])
        with pytest.raises(ProfileError):
            LatencyTable.open(path)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)
    LatencyTable.open(path).close()


def test_many_connections_write_at_once(tmp_path, devices, measurement) -> None:
    path = tmp_path / "t.sqlite"
    errors: list[Exception] = []
    gate = threading.Barrier(4)

    def work(name: str) -> None:
        try:
            gate.wait()
            with LatencyTable.open(path) as table:  # all four create it
                for i in range(25):
                    table.put(devices[0], f"{name}{i}", "conv", measurement())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with LatencyTable.open(path) as table:
        assert len(table.entries(devices[0])) == 100


def test_json_takes_in_what_another_table_wrote_meanwhile(tmp_path, devices, measurement) -> None:
    path = tmp_path / "t.json"
    with LatencyTable.open(path) as one, LatencyTable.open(path) as two:
        one.put(devices[0], "a", "conv", measurement())
        two.put(devices[0], "b", "conv", measurement())
    with LatencyTable.open(path) as table:
        assert list(table.entries(devices[0])) == ["a", "b"]


_WRITER = """
import sys
from onnx_layermerge.latency import DeviceKey, Failure, LatencyTable
table = LatencyTable.open(sys.argv[1])
device = DeviceKey("fake", "1", "machine", 1, "fp32")
for i in range(10_000):
    table.put(device, f"k{i:05}", "conv", Failure("a reason " * 50))
    print(i, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_writer_loses_nothing_committed(path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 40:
                break
        os.kill(writer.pid, signal.SIGKILL)
        committed = [*range(41), *(int(line) for line in writer.stdout.read().split())]
    with LatencyTable.open(path) as table:
        (device,) = table.devices()
        entries = table.entries(device)
        assert len(entries) in (len(committed), len(committed) + 1), "one may be in but not announced"
        assert all(f"k{i:05}" in entries for i in committed)
        table.put(device, "next", "conv", Failure("still writable"))


def test_default_path_is_in_the_users_cache(tmp_path, monkeypatch, devices, measurement) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "deep" / name)
    with LatencyTable.open() as table:
        assert table.path == default_path() == tmp_path / "deep" / "olm" / "latency.sqlite"
        table.put(devices[0], "k", "conv", measurement())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_profile_can_be_read(path, devices, measurement) -> None:
    with LatencyTable.open(path) as table:
        table.put(devices[0], "k", "conv", measurement())
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        if path.suffix == ".json":
            with LatencyTable.open(path) as table:
                assert table.get(devices[0], "k").seconds == 1.5e-3
                with pytest.raises(OutputError, match="cannot be written"):
                    table.put(devices[0], "k2", "conv", measurement())
        else:  # even readers of a write-ahead log write beside it
            with pytest.raises(OutputError, match="cannot be written"):
                LatencyTable.open(path)
    finally:
        path.parent.chmod(0o755)
