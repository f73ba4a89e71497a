"""Which of two entries stays, which contradict each other, which device is meant, what is pruned."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from onnx_layermerge.errors import ProfileError
from onnx_layermerge.latency import (
    Bound,
    DeviceKey,
    Entry,
    Failure,
    LatencyTable,
    Measurement,
    Pair,
    Ratio,
    Section,
    _table,
    differs,
    select,
)


def cost(seconds: float, half_s: float, n: int = 20) -> Measurement:
    low, high = max(0.0, seconds - half_s), seconds + half_s
    return Measurement(seconds, low, high, seconds, high, high, n, 0, "precise", half_s)


# From the best known to the least.
TIMED = [cost(2e-3, 1e-5), cost(1e-3, 2e-5), cost(1e-3, 1e-6, n=5)]
KNOWN = [*TIMED, Bound(3e-3, 5), Bound(2e-3, 5), Failure("no memory")]


@pytest.mark.parametrize(("better", "worse"), itertools.combinations(range(len(KNOWN)), 2))
@pytest.mark.parametrize("form", ["sqlite", "json"])
def test_the_better_known_entry_stays_whoever_comes_first(form, better, worse, tmp_path, devices) -> None:
    for first, second in ((better, worse), (worse, better)):
        with LatencyTable.open(tmp_path / f"{first}{second}.{form}") as table:
            table.put(devices[0], "k", "conv", KNOWN[first])
            counts = table.merge([Section(devices[0], (Entry("k", "conv", KNOWN[second], 5),), ())], "narrower")
            assert table.get(devices[0], "k").value == KNOWN[better]
            assert (counts.replaced, counts.kept) == ((1, 0) if second == better else (0, 1))


@pytest.mark.parametrize(("policy", "stays", "counted"), [("keep", 0, "kept"), ("replace", 5, "replaced")])
def test_the_other_policies_do_not_look_at_intervals(policy, stays, counted, tmp_path, devices) -> None:
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        table.put(devices[0], "k", "conv", KNOWN[0])
        counts = table.merge([Section(devices[0], (Entry("k", "conv", KNOWN[5], 5),), ())], policy)
        assert table.get(devices[0], "k").value == KNOWN[stays]
        assert dataclasses.asdict(counts) == {"added": 0, "replaced": 0, "kept": 0, "same": 0, counted: 1}


def test_merging_twice_changes_nothing(tmp_path, devices, ratio) -> None:
    section = Section(devices[0], (Entry("k", "conv", KNOWN[0], 5),), (Pair("a", "b", ratio, 6),))
    with LatencyTable.open(tmp_path / "t.json") as table:
        assert table.merge([section], "narrower").added == 2
        before = (tmp_path / "t.json").read_bytes()
        later = Section(devices[0], (Entry("k", "conv", KNOWN[0], 99),), section.pairs)
        assert table.merge([later], "narrower").same == 2
        wider = dataclasses.replace(ratio, low=1.0)
        assert table.merge([Section(devices[0], (), (Pair("a", "b", wider, 7),))], "narrower").kept == 1
        assert (tmp_path / "t.json").read_bytes() == before


def test_a_merge_with_a_wrong_entry_adds_nothing(tmp_path, devices) -> None:
    wrong = dataclasses.replace(KNOWN[0], wall_s=-1.0)
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        section = Section(devices[0], (Entry("a", "conv", KNOWN[0]), Entry("b", "conv", wrong)), ())
        with pytest.raises(ProfileError, match="block b"):
            table.merge([section], "keep")
        assert table.devices() == ()


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (cost(1.0, 0.1), cost(1.19, 0.1), False),
        (cost(1.0, 0.1), cost(1.21, 0.1), True),
        (cost(1.0, 0.1), Bound(1.05, 5), False),
        (cost(1.0, 0.1), Bound(1.2, 5), True),
        (Bound(1.0, 5), Bound(9.0, 5), False),
        (cost(1.0, 0.1), Failure("x"), True),
        (Failure("x"), Failure("y"), False),
    ],
)
def test_entries_differ_when_their_intervals_do_not_meet(a, b, expected) -> None:
    assert differs(Entry("k", "", a), Entry("k", "", b)) is expected
    assert differs(Entry("k", "", b), Entry("k", "", a)) is expected


def test_pairs_differ_by_their_ratio() -> None:
    def pair(low: float, high: float) -> Pair:
        return Pair("a", "b", Ratio((low + high) / 2, low, high, 1.0, 1.0, 1.0, 20, "cap"))

    assert differs(pair(1.0, 1.1), pair(1.2, 1.3)) and not differs(pair(1.0, 1.25), pair(1.2, 1.3))


def test_a_device_is_named_by_any_part_that_only_it_has(devices) -> None:
    cpu, gpu = devices
    for words in ("onnxruntime", "AVX2", cpu.text(), cpu.digest(), cpu.digest()[:4]):
        assert select(devices, words, "t.json") == cpu
    assert select(devices, "driver 570", "t.json") == gpu
    newer = dataclasses.replace(cpu, backend_version="1.32.0.1")
    with pytest.raises(ProfileError, match=r"^2 devices of t\.json match 'avx2'; .* 1\.32\.0 .* 1\.32\.0\.1 "):
        select([cpu, gpu, newer], "avx2", "t.json")
    assert select([cpu, newer], cpu.text(), "t.json") == cpu, "whole texts are never ambiguous"
    with pytest.raises(ProfileError, match="No device of t.json matches 'tpu'; name one of: .*GPU 8.9"):
        select(devices, "tpu", "t.json")
    with pytest.raises(ProfileError, match="holds no measurements"):
        select([], "tpu", "t.json")


def test_settings_are_part_of_the_key(devices) -> None:
    other = dataclasses.replace(devices[1], settings="graphs=off streams=1")
    assert other.digest() != devices[1].digest() and "graphs=off" in other.text()


@pytest.fixture(params=["t.sqlite", "t.json"])
def aged(request, tmp_path, devices, ratio, monkeypatch):
    """On each device: a measurement of second 100, a failure of second 200, one without a date, a pair of 150."""
    now = [100]
    monkeypatch.setattr(_table, "_now_s", lambda: now[0])
    with LatencyTable.open(tmp_path / request.param) as table:
        for device in devices:
            now[0] = 100
            table.put(device, "old", "conv", KNOWN[0])
            now[0] = 150
            table.put_pair(device, "a", "b", ratio)
            now[0] = 200
            table.put(device, "failed", "conv", KNOWN[5])
            table.merge([Section(device, (Entry("undated", "conv", KNOWN[0]),), ())], "keep")
        yield table


def left(table: LatencyTable) -> dict[DeviceKey, list[str]]:
    return {device: [*table.entries(device), *(p.key_a for p in table.pairs(device))] for device in table.devices()}


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        ({"before_s": 100}, set()),
        ({"before_s": 101}, {"old"}),
        ({"before_s": 1000}, {"old", "a", "failed"}),
        ({"failed": True}, {"failed"}),
        ({"failed": True, "before_s": 150}, set()),
    ],
)
def test_pruning_takes_what_meets_all_conditions(aged, devices, words, gone) -> None:
    before = left(aged)
    dry = aged.prune(**words, dry_run=True)
    assert left(aged) == before
    assert aged.prune(**words) == dry
    rest = [key for key in ("failed", "old", "undated", "a") if key not in gone]
    with LatencyTable.open(aged.path) as again:
        assert left(again) == dict.fromkeys(sorted(devices, key=DeviceKey.text), rest)
    assert aged.prune(**words) == []


def test_pruning_a_device_forgets_it_and_no_other(aged, devices) -> None:
    (gone,) = aged.prune(device=devices[0])
    assert gone.device == devices[0] and (len(gone.entries), len(gone.pairs)) == (3, 1)
    with LatencyTable.open(aged.path) as again:
        assert list(left(again)) == [devices[1]] and len(again.entries(devices[1])) == 3
