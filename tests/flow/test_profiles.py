"""Tables as a user handles them: listing, comparing, joining, pruning, and planning from a table alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from onnx_layermerge import DeviceError, ProfileError, UsageError, plan, profile
from onnx_layermerge.flow import (
    _latencies,
    _plan,
    diff_tables,
    export_table,
    import_table,
    list_table,
    merge_tables,
    prune_table,
    show_table,
)
from onnx_layermerge.latency import DeviceKey, Failure, LatencyTable, Measurement, Section
from tests.flow import jobs
from tests.machine import Machine

OTHER = DeviceKey("tensorrt", "10.9", "GPU 8.9", 0, "fp16", driver="570.1")


@pytest.fixture
def filled(machine: Machine, tmp_path: Path) -> tuple[Path, Path]:
    """A model, and the table that its profile left."""
    _, path = jobs.save(jobs.residual_net, tmp_path)
    profile([path], profile=tmp_path / "t.json")
    return path, tmp_path / "t.json"


def change(path: Path, **fields: object) -> None:
    """Every measurement of a JSON table, as if another machine had made it."""
    document = json.loads(path.read_text())
    for device in document["devices"]:
        device["device"].update(fields)
    path.write_text(json.dumps(document))


def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to open a backend or to time something fails the test."""

    def refuse(*args: object, **words: object) -> object:
        raise AssertionError("something was timed")

    monkeypatch.setattr(_latencies, "fill", refuse)
    monkeypatch.setattr(_latencies, "compare", refuse)


def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the device and its backend."""

    def refuse(name: str, device: str, precision: str, engines: object) -> object:
        raise DeviceError(f"Backend {name!r} is not installed here; install it.")

    monkeypatch.setattr(_plan, "open_backend", refuse)
    no_timing(monkeypatch)


def test_a_plan_from_the_table_alone_is_the_plan_of_the_device(filled, monkeypatch) -> None:
    model, table = filled
    there = plan(model, profile=table)
    before = table.read_bytes()
    absent(monkeypatch)
    for words in ({"backend": "fake"}, {"from_table": ""}, {"from_table": "machine"}):
        here = plan(model, profile=table, **words)
        assert (here.points, here.base_ms, here.device) == (there.points, there.base_ms, there.device)
        assert (here.table_only, here.missing_blocks, here.timed_blocks) == (True, 0, 0)
        assert (here.reused_blocks, here.mismatch) == (there.reused_blocks, None)
        assert any("alone" in text for text in here.warnings) is ("backend" in words), "what was not asked for is said"
    assert table.read_bytes() == before and there.table_only is False


def test_candidates_that_the_table_lacks_are_left_out_and_counted(filled, monkeypatch) -> None:
    model, table = filled
    calib = jobs.samples(jobs.residual_net()[0])
    whole = plan(model, calib=calib, profile=table)
    document = json.loads(table.read_text())
    blocks = document["devices"][0]["blocks"]
    replacements = [key for key, block in blocks.items() if not block["label"].startswith("keep ")]
    labels = {key: blocks[key]["label"] for key in replacements}
    for key in replacements[::2]:
        del blocks[key]
    for key in replacements[1::4]:
        blocks[key] = {"label": blocks[key]["label"], "failure": "no memory"}
    table.write_text(json.dumps(document))
    absent(monkeypatch)
    part = plan(model, calib=calib, profile=table, from_table="")
    assert part.missing_blocks >= len(replacements[::2]) and part.reused_blocks == len(blocks)
    assert 0 < len(part.points) < len(whole.points)
    gone = {labels[key] for key in replacements if "seconds" not in blocks.get(key, {})}
    planned = {name for point in part.points for name in point.blocks}
    assert len(gone) > len(replacements) / 2 and planned and not planned & gone


def test_a_table_without_the_models_own_latency_is_refused(filled, monkeypatch) -> None:
    model, table = filled
    document = json.loads(table.read_text())
    document["devices"][0]["pairs"] = []
    table.write_text(json.dumps(document))
    absent(monkeypatch)
    with pytest.raises(ProfileError, match="own latency on fake 1 / machine.*run olm profile"):
        plan(model, profile=table, from_table="")
    with pytest.raises(ProfileError, match="own latency"):  # another size is another model
        plan(model, profile=filled[1], from_table="", batch=3)


def test_without_a_table_an_absent_device_is_absent(filled, monkeypatch, tmp_path) -> None:
    model, table = filled
    absent(monkeypatch)
    with pytest.raises(DeviceError, match=r"^Backend 'fake' is not installed here; install it\.$"):
        plan(model, backend="fake")
    with pytest.raises(DeviceError, match="not installed"):
        plan(model, backend="fake", profile=tmp_path / "new.json")
    with pytest.raises(DeviceError, match="not installed.*holds no such device"):
        plan(model, backend="tensorrt", profile=table)
    with pytest.raises(DeviceError, match="holds no such device"):  # the key is of a CPU
        plan(model, backend="fake", device="cuda:0", profile=table)
    with pytest.raises(ProfileError, match="There is no latency table"):
        plan(model, from_table="", profile=tmp_path / "new.json")
    assert not (tmp_path / "new.json").exists()


def test_a_table_with_several_devices_wants_a_name(filled, monkeypatch) -> None:
    model, table = filled
    with LatencyTable.open(table) as held:
        (section,) = held.sections()
        held.merge([Section(dataclasses.replace(section.device, backend_version="2"), *section[1:])], "keep")
    absent(monkeypatch)
    with pytest.raises(ProfileError, match=r"2 devices; name one: fake 1 .*; fake 2 "):
        plan(model, profile=table, from_table="")
    with pytest.raises(DeviceError, match=r"several such devices.*--from-table: fake 1 .*; fake 2 "):
        plan(model, profile=table, backend="fake")
    assert plan(model, profile=table, from_table="fake 2").device.startswith("fake 2 ")


def test_another_devices_table_is_refused_by_both_names(filled, machine) -> None:
    model, table = filled
    right = plan(model, profile=table)
    change(table, backend_version="0.9", driver="535")
    with LatencyTable.open(table) as held:
        (other,) = held.devices()
    here, before = machine.describe(), table.read_bytes()
    with pytest.raises(ProfileError) as error:
        plan(model, profile=table)
    for key in (here, other):
        assert key.text() in str(error.value) and key.digest() in str(error.value)
    assert "--allow-mismatch" in str(error.value) and table.read_bytes() == before

    built = machine.built
    allowed = plan(model, profile=table, allow_mismatch=True)
    assert machine.built == built and table.read_bytes() == before, "nothing is timed"
    assert (allowed.device, allowed.mismatch, allowed.points) == (other.text(), here.text(), right.points)
    assert any(other.text() in text and here.text() in text for text in allowed.warnings)
    with pytest.raises(UsageError, match="leave out --allow-mismatch"):
        plan(model, profile=table, from_table="", allow_mismatch=True)

    # A profile of this machine belongs into any table, and then there is no mismatch any more.
    profile([model], profile=table)
    mixed = plan(model, profile=table, allow_mismatch=True)
    assert (mixed.device, mixed.mismatch) == (here.text(), None)


def test_a_mismatch_of_many_devices_is_not_guessed(filled) -> None:
    model, table = filled
    change(table, backend_version="0.9")
    with LatencyTable.open(table) as held:
        held.put(OTHER, "k", "conv", Failure("no memory"))
    with pytest.raises(ProfileError, match="several other devices.*profiles export"):
        plan(model, profile=table, allow_mismatch=True)


def cost(ms: float, half_ms: float = 0.01) -> Measurement:
    seconds, low, high = ms / 1e3, (ms - half_ms) / 1e3, (ms + half_ms) / 1e3
    return Measurement(seconds, low, high, seconds, high, high, 20, 0, "precise", half_ms / 1e3)


def table_of(path: Path, device: DeviceKey, **costs: object) -> Path:
    with LatencyTable.open(path) as table:
        for key, value in costs.items():
            table.put(device, key, f"conv {key}", value)  # type: ignore[arg-type]
    return path


def test_listing_tells_what_is_there(filled, tmp_path, monkeypatch) -> None:
    model, table = filled
    table_of(table, OTHER, a=cost(1.0), b=Failure("no memory"))
    found = list_table(table)
    assert found.exists and found.size_bytes == table.stat().st_size
    fake, other = found.devices
    assert (other.device, other.digest, other.entries, other.failed, other.pairs) == (
        OTHER.text(), OTHER.digest(), 2, 1, 0,
    )  # fmt: skip
    # The whole network, and the plans that were timed in place.
    assert fake.entries > 5 and fake.pairs > 1 and fake.failed == 0
    assert fake.oldest is not None and fake.newest is not None and "2020" < fake.oldest <= fake.newest
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "none" / name)
    assert (list_table().exists, list_table().devices) == (False, ())
    with pytest.raises(ProfileError, match="There is no latency table"):
        list_table(tmp_path / "new.sqlite")
    assert not (tmp_path / "none").exists() and not (tmp_path / "new.sqlite").exists()


def test_showing_filters_and_sorts(tmp_path) -> None:
    path = table_of(tmp_path / "t.sqlite", OTHER, a=cost(1.0), b=Failure("no memory"), c=cost(3.0), ab=cost(2.0))
    shown = show_table(path)
    assert [line.key for line in shown.entries] == ["c", "ab", "a", "b"] and shown.held == 4
    first, last = shown.entries[0], shown.entries[-1]
    assert (first.ms, first.low_ms, first.n, first.stop_reason) == (3.0, 2.99, 20, "precise")
    assert (last.ms, last.failure) == (None, "no memory")
    assert [line.key for line in show_table(path, match="CONV A", sort="label").entries] == ["a", "ab"]
    assert [line.key for line in show_table(path, failed=True).entries] == ["b"]
    with pytest.raises(UsageError, match="--sort"):
        show_table(path, sort="colour")
    with pytest.raises(ProfileError, match="name one of"):
        show_table(path, device="cpu")


def test_a_diff_names_contradictions_and_what_is_missing(tmp_path) -> None:
    a = table_of(tmp_path / "a.sqlite", OTHER, x=cost(1.0), y=cost(2.0), z=cost(3.0), old=cost(1.0), f=cost(1.0))
    b = table_of(tmp_path / "b.json", OTHER, x=cost(1.015), y=cost(2.5), z=cost(2.9), new=cost(1.0), f=Failure("?"))
    found = diff_tables(a, b)
    assert [change.key for change in found.changed] == ["f", "y", "z"], "x moved within its interval"
    assert [change.relative for change in found.changed] == [None, pytest.approx(0.25), pytest.approx(-1 / 30)]
    assert (found.changed[1].before, found.changed[1].after) == (2.0, 2.5)
    assert found.same == 1
    assert (found.only_a, found.only_b) == (("block old conv old",), ("block new conv new",))
    assert diff_tables(a, a).changed == () and diff_tables(a, a).same == 5


def test_a_diff_of_two_devices_compares_equal_blocks(tmp_path) -> None:
    newer = dataclasses.replace(OTHER, backend_version="10.10")
    path = table_of(tmp_path / "t.sqlite", OTHER, x=cost(1.0), y=cost(2.0))
    table_of(path, newer, x=cost(0.5), y=cost(2.0))
    found = diff_tables(path, path, device=OTHER.digest(), against="10.10")
    assert [(change.key, change.relative) for change in found.changed] == [("x", pytest.approx(-0.5))]
    assert found.devices == (f"{OTHER.text()} -> {newer.text()}",)
    assert diff_tables(path, path).changed == ()


def test_merging_reports_what_became_of_every_source(tmp_path) -> None:
    a = table_of(tmp_path / "a.sqlite", OTHER, x=cost(1.0, 0.01), y=cost(2.0, 0.5))
    b = table_of(tmp_path / "b.json", OTHER, x=cost(1.1, 0.1), y=cost(2.1, 0.1), z=cost(3.0))
    done = merge_tables(tmp_path / "into.json", [a, b])
    assert [(c.added, c.replaced, c.kept, c.same) for _, c in done.sources] == [(2, 0, 0, 0), (1, 1, 1, 0)]
    with LatencyTable.open(tmp_path / "into.json") as table:
        assert [entry.seconds for entry in table.entries(OTHER).values()] == [1.0e-3, 2.1e-3, 3.0e-3]
    replaced = merge_tables(tmp_path / "into.json", [b], replace=True).sources[0][1]
    assert (replaced.replaced, replaced.same) == (1, 2)
    before = (tmp_path / "into.json").read_bytes()
    with pytest.raises(ProfileError, match="There is no latency table"):
        merge_tables(tmp_path / "into.json", [a, tmp_path / "none.json"])
    with pytest.raises(UsageError, match="into itself"):
        merge_tables(a, [b, tmp_path / "." / "a.sqlite"])
    assert (tmp_path / "into.json").read_bytes() == before


def test_a_table_travels_and_comes_back(filled, tmp_path) -> None:
    _, table = filled
    table_of(table, OTHER, a=cost(1.0))
    assert import_table(table, tmp_path / "new.sqlite").sources[0][1].kept == 0
    out = export_table(tmp_path / "all.json", tmp_path / "new.sqlite")
    assert (out.devices, out.pairs) == (2, sum(device.pairs for device in list_table(table).devices)) and out.pairs > 1
    assert (tmp_path / "all.json").read_bytes() == table.read_bytes()
    one = export_table(tmp_path / "one.json", table, device="gpu")
    assert (one.devices, one.entries, one.pairs) == (1, 1, 0)
    assert [x.device for x in list_table(tmp_path / "one.json").devices] == [OTHER.text()]
    with pytest.raises(UsageError, match="no .json file"):
        export_table(tmp_path / "one.sqlite", table)
    table_of(tmp_path / "new.sqlite", OTHER, a=cost(9.0))
    assert import_table(tmp_path / "one.json", tmp_path / "new.sqlite").sources[0][1].kept == 1
    assert import_table(tmp_path / "one.json", tmp_path / "new.sqlite", replace=True).sources[0][1].replaced == 1


def test_pruning_counts_first_and_removes_when_told(tmp_path) -> None:
    path = table_of(tmp_path / "t.sqlite", OTHER, a=cost(1.0), b=Failure("no memory"))
    with pytest.raises(UsageError, match="say what is to go"):
        prune_table(path)
    dry = prune_table(path, failed=True)
    assert (dry.removed, dry.devices[0].entries, dry.devices[0].failed) == (False, 1, 1)
    assert list_table(path).devices[0].entries == 2
    assert prune_table(path, older_than_s=3600, remove=True).devices == ()
    done = prune_table(path, failed=True, remove=True)
    assert done.devices == dry.devices and list_table(path).devices[0].entries == 1
    prune_table(path, device="gpu", remove=True)
    assert list_table(path).devices == ()


def test_what_has_no_date_is_not_old(tmp_path, monkeypatch) -> None:
    path = table_of(tmp_path / "t.json", OTHER, a=cost(1.0), b=cost(2.0))
    document = json.loads(path.read_text())
    blocks = document["devices"][0]["blocks"]
    blocks["a"]["measured"] = "2001-01-01T00:00:00Z"
    del blocks["b"]["measured"]
    path.write_text(json.dumps(document))
    found = prune_table(path, older_than_s=0, remove=True)
    assert (found.undated, found.devices[0].entries) == (1, 1)
    assert [line.key for line in show_table(path).entries] == ["b"]
