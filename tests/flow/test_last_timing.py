"""What is written is timed by its bytes; a near miss once more, closer, and never a second time."""

from __future__ import annotations

from typing import Any

import pytest

from onnx_layermerge.flow import _last_timing
from onnx_layermerge.flow._last_timing import CLOSELY, CLOSER, as_written
from onnx_layermerge.latency import Ratio


def ratio(low: float) -> Ratio:
    return Ratio(low + 0.01, low, low + 0.02, 1.0, 1.0 / (low + 0.01), low + 0.01, 30, "cap")


@pytest.mark.parametrize(
    ("lows", "taken", "sessions"),
    [
        ([1.5], 1.5, [3]),
        ([1.499, 1.51], 1.51, [3, 9]),
        ([1.499, 1.498], 1.498, [3, 9]),
        ([1.499, 1.2], 1.2, [3, 9]),
        ([1.4], 1.4, [3]),
    ],
    ids=["enough", "a near miss that was noise", "one that was none", "the closer look stands", "far off"],
)
def test_a_near_miss_is_looked_at_once_more(
    lows: list[float], taken: float, sessions: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, object]] = []

    def measured(*_: object, table: object, sessions: int, exact: bool, **rest: Any) -> tuple[Ratio, bool]:
        assert exact
        asked.append((sessions, table))
        return ratio(lows[len(asked) - 1]), True

    monkeypatch.setattr(_last_timing, "measured_speedup", measured)
    table: Any = object()
    given: Any = (None, None, None, {})
    found, now = as_written(*given, 1.5, table=table, progress=lambda *_: None)
    assert now and found.low == taken
    assert [count for count, _ in asked] == sessions
    # The table knows what was seen first and would give it again.
    assert [known for _, known in asked] == [table, None][: len(asked)]
    assert (CLOSELY["sessions"], CLOSER["sessions"]) == (3, 9)
