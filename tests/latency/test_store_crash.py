"""kill -9 while two processes fill one table; ``benchmarks/store_crash.py`` does the same 50 times."""

from __future__ import annotations

import sys

import pytest

from benchmarks.store_crash import DEVICE, check, crash, value_of
from onnx_layermerge.latency import LatencyTable


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_killed_writers_lose_nothing_they_had_announced(tmp_path) -> None:
    found = crash(tmp_path / "t.sqlite", kills=5, entries=30, seed=3)
    assert (found.kills, found.lost, found.damaged, found.complete) == (5, 0, 0, True)
    assert found.announced >= 30 and found.unannounced <= 5 + 2, "at most the one in flight, of each writer"


def test_the_check_sees_what_is_gone_or_changed(tmp_path) -> None:
    path = tmp_path / "t.sqlite"
    with LatencyTable.open(path) as table:
        for key in ("k1", "k2"):
            table.put(DEVICE, key, "block", value_of(key))
        assert check(path, {"k1", "k2"}) == (0, 0, True)
        assert check(path, {"k1", "k3"}) == (1, 1, True)
        table.put(DEVICE, "k1", "block", value_of("k2"))
        assert check(path, {"k1"}) == (1, 1, True)
