"""The JSON form of a table, as a reviewer sees it, and what a hand or a merge may have done to it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from onnx_layermerge.errors import OutputError, ProfileError
from onnx_layermerge.latency import Bound, Failure, LatencyTable, _table

SHIPPED = sorted((Path(__file__).parents[2] / "profiles").glob("*.json"))


@pytest.fixture
def exported(tmp_path, devices, measurement, ratio, monkeypatch) -> Path:
    monkeypatch.setattr(_table, "_now_s", lambda: 1_800_000_000)
    with LatencyTable.open(tmp_path / "t.json") as table:
        for number in range(3):
            table.put(devices[0], f"k{number}", f"conv {number} µ", measurement((number + 1) / 7000))
        table.put(devices[0], "k3", "conv 3", Failure("no memory"))
        table.put(devices[0], "k4", "conv 4", Bound(0.123456789, 5))
        table.put_pair(devices[0], "a", "b", ratio)
        table.put(devices[1], "k1", "conv 1", measurement(3e-5))
    return tmp_path / "t.json"


def test_an_entry_is_a_line_and_a_new_one_changes_no_other(exported, devices, measurement) -> None:
    before = exported.read_text().splitlines()
    assert sum('"label"' in line for line in before) == 6 == sum('": {"label"' in line for line in before)
    with LatencyTable.open(exported) as table:
        table.put(devices[0], "k11", "conv 11", measurement(1e-3))
        table.put(devices[0], "k2", "conv 2 µ", measurement(1e-3))
    after = exported.read_text().splitlines()
    assert len(after) == len(before) + 1
    changed = [line for line in before if line not in after]
    assert len(changed) == 1 and '"k2"' in changed[0]


def test_numbers_and_dates_are_for_people(exported) -> None:
    document = json.loads(exported.read_text())
    assert document["version"] == 2
    block = document["devices"][0]["blocks"]["k0"]
    assert (block["seconds"], block["measured"]) == (0.0001428571, "2027-01-15T08:00:00Z")
    numbers = [value for value in block.values() if isinstance(value, float)]
    assert len(numbers) == 7 and all(len(f"{value:.15g}".replace(".", "").lstrip("0")) <= 12 for value in numbers)
    assert document["devices"][0]["blocks"]["k4"]["bound"] == {"at_least_s": 0.1234568, "n": 5}


@pytest.mark.parametrize("form", ["sqlite", "json"])
def test_a_round_trip_gives_the_same_bytes(form, exported, tmp_path) -> None:
    with LatencyTable.open(tmp_path / f"other.{form}") as table:
        assert table.import_json(exported) == 7
        table.export_json(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == exported.read_bytes()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_tables_are_as_they_would_be_exported(path, tmp_path) -> None:
    """Whoever edits one by hand, or with an older version, sees it here and not in the next diff."""
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        assert table.import_json(path) > 0
        table.export_json(tmp_path / "t.json")
    assert (tmp_path / "t.json").read_bytes() == path.read_bytes()


def test_there_are_shipped_tables() -> None:
    assert SHIPPED


def _line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))


@pytest.mark.parametrize(
    ("start", "words"),
    [('"k1":', "'k1' twice"), ('{"a": "a"', "models a and b.*twice"), ('"device":', "'device' twice")],
)
def test_what_stands_there_twice_is_named(exported, tmp_path, start, words) -> None:
    text = exported.read_text()
    line = _line_of(text, start)
    exported.write_text(text.replace(line, line.rstrip(",") + ",\n" + line, 1))
    _assert_refused(exported, tmp_path, words)


def test_a_device_that_stands_there_twice_is_named(exported, tmp_path) -> None:
    document = json.loads(exported.read_text())
    document["devices"].append(document["devices"][0])
    exported.write_text(json.dumps(document))
    _assert_refused(exported, tmp_path, r"device onnxruntime 1\.32\.0 .* twice")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"seconds": 0.0001428571', '"seconds": NaN', "k0.*'seconds' is nan, not a finite number"),
        ('"seconds": 0.0001428571', '"seconds": -0.1', "k0.*'seconds' is -0.1, negative"),
        ('"seconds": 0.0001428571, ', "", "k0.*'seconds' is missing"),
        ('"seconds": 0.0001428571', '"seconds": 1.0', "k0.*'seconds' is 1.0, outside"),
        ('"seconds": 0.0001428571', '"seconds": ' + "9" * 400, "k0.*not a finite number"),
        ('"seconds": 0.0001428571', '"seconds": 1e999', "k0.*not a finite number"),
        ('"stop_reason": "precise"', '"stop_reason": ["precise"]', "stop_reason.*not one of"),
        ("2027-01-15T08:00:00Z", "yesterday", "'measured' is 'yesterday'"),
        ('"measured": "2027-01-15T08:00:00Z"', '"measured": 3', "'measured' is 3"),
        ("conv 0", "\\ud800", "'label' is not a text"),
        ('"k0"', '"\\ud800"', "is not a key"),
        ("no memory", " ", "'failure' is not a reason"),
        ('"at_least_s": 0.1234568', '"at_least_s": -1', "'at_least_s' is -1, negative"),
        ('"ratio": 1.5', '"ratio": 0.0', "models a and b.*'ratio'"),
    ],
)
def test_a_wrong_entry_is_named(exported, tmp_path, old, new, words) -> None:
    text = exported.read_text()
    assert old in text
    exported.write_text(text.replace(old, new, 1))
    _assert_refused(exported, tmp_path, words)


def _assert_refused(path: Path, folder: Path, words: str) -> None:
    """It cannot be imported, used or lost: neither another table nor the file itself is changed."""
    before = path.read_bytes()
    with LatencyTable.open(folder / "mine.sqlite") as table:
        with pytest.raises(ProfileError, match=words) as error:
            table.import_json(path)
        assert table.devices() == () and str(error.value).endswith(".")
        str(error.value).encode()
    with pytest.raises(ProfileError, match=words):
        LatencyTable.open(path)
    assert path.read_bytes() == before


def test_two_writers_of_one_json_file_lose_nothing(tmp_path, devices, measurement) -> None:
    path, errors = tmp_path / "t.json", []

    def work(name: str) -> None:
        try:
            with LatencyTable.open(path) as table:
                for number in range(15):
                    table.put(devices[0], f"{name}{number}", "conv", measurement())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with LatencyTable.open(path) as table:
        assert len(table.entries(devices[0])) == 45


def test_an_export_never_replaces_a_device_file_or_a_link(tmp_path, exported, devices) -> None:
    if os.path.exists("/dev/full"):
        with LatencyTable.open(exported) as table, pytest.raises(OutputError, match="no ordinary file"):
            table.export_json("/dev/full")
        assert not Path("/dev/full").is_file()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "target.json")
    with LatencyTable.open(exported) as table:
        table.export_json(link)
    assert link.is_symlink() and (tmp_path / "target.json").read_bytes() == exported.read_bytes()
