"""More effort builds more plans, and looks around the best of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from onnx_layermerge import UsageError, compress
from onnx_layermerge.flow import _rank, _weights
from onnx_layermerge.flow._effort import EFFORTS, effort_of
from onnx_layermerge.flow._loop import Plan
from onnx_layermerge.flow._rank import Ranked
from onnx_layermerge.latency import Ratio
from tests.flow import jobs
from tests.machine import Machine


def run(folder: Path, effort: str, **options: object):
    net, path = jobs.save(jobs.long_net, folder)
    words = {"speedup": 1.3, "calib": jobs.samples(net), "profile": folder / "t.json", "effort": effort} | options
    return compress(path, folder / f"{effort}.onnx", **words)  # type: ignore[arg-type]


def test_each_effort_allows_more_than_the_one_before() -> None:
    quick, normal, thorough = (EFFORTS[name] for name in ("quick", "normal", "thorough"))
    for one, more in ((quick, normal), (normal, thorough)):
        pairs = [(getattr(one, name), getattr(more, name)) for name in vars(one)]
        assert all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
    with pytest.raises(UsageError, match="quick, normal, thorough"):
        effort_of("heroic")


def test_plans_compared_and_the_loss_follow_the_effort(machine: Machine, tmp_path: Path) -> None:
    quick, thorough = (run(tmp_path, effort) for effort in ("quick", "thorough"))
    assert (quick.effort, thorough.effort) == ("quick", "thorough")
    assert len(quick.rejected) < EFFORTS["quick"].rivals < len(thorough.rejected)
    assert thorough.speedup.low >= 1.3 <= quick.speedup.low
    assert quick.validation is not None and thorough.validation is not None
    assert thorough.validation.kl <= quick.validation.kl * 1.05


def test_a_metric_ranks_what_the_search_found_too(machine: Machine, tmp_path: Path) -> None:
    report = run(tmp_path, "thorough", rivals=2, metric=lambda run: 1.0)
    asked = [plan for plan in report.rejected if plan.metric is not None]
    assert len(report.rejected) > _rank.JUDGED and len(asked) == _rank.JUDGED - 1


def test_rivals_that_are_named_count_whatever_the_effort(machine: Machine, tmp_path: Path) -> None:
    assert not run(tmp_path, "thorough", rivals=1).rejected


def test_blocks_are_tuned_where_validation_gains(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One plan, so that weights alone can differ."""

    def note(seen: set[str], stage: str, *_: object) -> None:
        seen.add(stage)

    calib = jobs.samples(jobs.long_net()[0], 128)
    written, blocks = {}, {}
    for effort, gain in (("quick", 100.0), ("normal", 0.0), ("normal", 100.0)):
        stages: set[str] = set()
        monkeypatch.setattr(_weights, "GAIN", gain)
        report = run(tmp_path, effort, rivals=1, refit_mode="off", calib=calib, progress=partial(note, stages))
        assert report.refitted == () and any(block.recipe == "width" for block in report.blocks)
        assert ("tune" in stages) == (effort == "normal")
        assert report.recovery == (("tune",) if (effort, gain) == ("normal", 100.0) else ())
        written[effort, gain], blocks[effort, gain] = weights(tmp_path / f"{effort}.onnx"), report.blocks
    assert blocks["normal", 0.0] == blocks["normal", 100.0]
    assert written["normal", 0.0] != written["normal", 100.0]


def weights(path: Path) -> list[bytes]:
    return sorted(numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load(path).graph.initializer)


def plan(number: int) -> Plan:
    return Plan((f"c{number:02}",), "kl", 1.5, Ratio(1.5, 1.5, 1.5, 1.0, 1.0, 1.0, 1, "cap"), 0.0)


def ranked(number: int, loss: float) -> Ranked:
    return Ranked(plan(number), None, loss)  # type: ignore[arg-type]


def test_the_search_moves_to_what_is_better_and_tries_nothing_twice() -> None:
    """Plans on a line, loss = distance from 7; each knows its two neighbours."""
    tried: list[int] = []

    def near(centre: Plan, known):
        here = int(centre.keys[0][1:])
        return (plan(n) for n in (here - 1, here + 1) if plan(n).keys not in known)

    def attempt(each: Plan, number: int) -> Ranked:
        tried.append(int(each.keys[0][1:]))
        assert number == len(tried) - 1
        return ranked(tried[-1], abs(tried[-1] - 7))

    found = _rank._searched([ranked(4, 3.0), ranked(11, 4.0)], near, 20, attempt)
    assert [item.loss for item in found] == sorted(item.loss for item in found)
    assert found[0].plan == plan(7)
    assert len(set(tried)) == len(tried) == len(found) - 2
    tried.clear()
    assert len(_rank._searched([ranked(4, 3.0)], near, 2, attempt)) == 3  # no more than it may
