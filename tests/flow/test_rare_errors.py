"""Words and situations of whole runs that are seldom met."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnx_layermerge.errors import ModelError, PlanError, ProfileError, TargetError, UsageError
from onnx_layermerge.flow import _choose, _plan_file, _replay, _required, compress, verify
from onnx_layermerge.flow._effort import effort_of
from onnx_layermerge.flow._prepare import data_batch
from onnx_layermerge.flow._profiles import merge_tables
from onnx_layermerge.flow._rank import loss_bases


def test_inputs_that_count_their_samples_differently() -> None:
    network: Any = SimpleNamespace(inputs=[SimpleNamespace(shape=(1, 3)), SimpleNamespace(shape=(2, 3))])
    with pytest.raises(ModelError, match=r"count their samples differently \(first axes \[1, 2\]\); export one axis"):
        data_batch(network, {})


def test_words_that_lack_others(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name at least one table to merge from"):
        merge_tables(tmp_path / "into.json", [])
    with pytest.raises(UsageError, match="--time-cap 0 leaves no time to measure in; give seconds above 0"):
        verify("a.onnx", "b.onnx", time_cap_s=0)
    with pytest.raises(UsageError, match="--val decides between fitted plans and needs --calib beside it"):
        compress("a.onnx", tmp_path / "b.onnx", speedup=1.5, val="val.npz")


def test_a_report_of_builds_that_is_far_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.json").write_text("{}")
    monkeypatch.setattr(_required, "_MOST_BYTES", 1)
    with pytest.raises(ProfileError, match=r"b\.json is too large for a report of --build-only; check the path"):
        _required.read_builds(tmp_path / "b.json")


def test_replacements_that_leave_nothing_of_the_outputs() -> None:
    scores: Any = SimpleNamespace(by_key={"a": SimpleNamespace(divergence=SimpleNamespace(kl=float("inf")))})
    candidates: Any = [SimpleNamespace(key="a")]
    with pytest.raises(TargetError, match="no replacement keeps anything of the outputs on these samples; give more"):
        loss_bases(candidates, scores, SimpleNamespace())  # type: ignore[arg-type]


def test_plans_that_were_fast_once_and_not_when_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine: whole structures were timed above the target, none of the finished models is surely above it."""
    plan = SimpleNamespace(keys=("a",))
    slow: Any = SimpleNamespace(speedup=SimpleNamespace(low=1.1, ratio=1.2))
    loop = SimpleNamespace(best=1.6, plans=lambda *_, **__: [plan], near=lambda *_, **__: [])
    words = dict.fromkeys(("prepared", "fit_data", "validation", "progress", "metric"))
    run: Any = SimpleNamespace(loop=loop, seed=0, **words)
    monkeypatch.setattr(_choose, "rank", lambda *_, **__: [SimpleNamespace(plan=plan)])
    monkeypatch.setattr(_choose, "_much_worse", lambda *_: False)
    monkeypatch.setattr(_choose, "_trimmed", lambda *_: [])
    monkeypatch.setattr(_choose, "_finished", lambda *_: slow)
    monkeypatch.setattr(_choose, "_rejected", lambda *_, **__: SimpleNamespace(blocks=("a",)))
    with pytest.raises(TargetError, match=r"timed at up to 1\.60×, but none held 1\.5× when it was timed again"):
        _choose.choose(run, {}, 1.5, effort=effort_of("quick"))


@pytest.mark.parametrize(
    ("spoilt", "losses", "written"),
    [
        ((), {"b-": 0.9, "a": 1.0, "b": 1.1}, "b-"),
        (("b-",), {"b-": 0.9, "a": 1.0, "b": 1.1}, "a"),
        (("a-",), {"a-": 0.5, "b-": 4.0, "a": 1.0, "b": 4.1}, "a"),
        (("a-", "a"), {"a-": 0.5, "b-": 1.1, "a": 1.0, "b": 1.2}, "b-"),
    ],
    ids=["the best", "the next best", "as it was, before another that is much worse", "whatever stands in"],
)
def test_which_plan_stands_in_for_one_that_noise_spoils(
    spoilt: tuple[str, ...], losses: dict[str, float], written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``spoilt`` miss the target when they are finished; ``NAME-`` is the trimmed form of NAME."""
    items = {
        name: SimpleNamespace(
            plan=SimpleNamespace(keys=(name,), basis="kl", predicted=1.6, measured=SimpleNamespace(ratio=1.6)),
            loss=loss,
            score=None,
        )
        for name, loss in losses.items()
    }

    def finished(run: object, item: Any, speedup: float) -> Any:
        low = 1.4 if item.plan.keys[0] in spoilt else 1.5
        chosen: Any = _choose.Chosen(
            item, item.plan, item.loss, SimpleNamespace(), SimpleNamespace(low=low, ratio=low), True, ()  # type: ignore[arg-type]
        )
        return chosen

    trimmed, ranked = ([item for name, item in items.items() if ("-" in name) is kind] for kind in (True, False))
    loop = SimpleNamespace(best=1.6, plans=lambda *_, **__: [item.plan for item in ranked], near=lambda *_, **__: [])
    words = dict.fromkeys(("prepared", "fit_data", "validation", "progress", "metric"))
    run: Any = SimpleNamespace(loop=loop, seed=0, losses=dict.fromkeys(losses, 0.1), **words)
    monkeypatch.setattr(_choose, "rank", lambda *_, **__: ranked)
    monkeypatch.setattr(_choose, "_trimmed", lambda *_: sorted(trimmed, key=lambda item: item.loss))
    monkeypatch.setattr(_choose, "_finished", finished)
    chosen = _choose.choose(run, {}, 1.5, effort=effort_of("normal"))
    assert chosen.plan.keys == (written,)
    assert (written,) not in [rejected.blocks for rejected in chosen.rejected]


def test_a_plan_that_is_far_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.json").write_text("{}")
    monkeypatch.setattr(_plan_file, "_MOST_BYTES", 1)
    with pytest.raises(PlanError, match=r"p\.json is too large for a plan; check the path"):
        _plan_file._read(tmp_path / "p.json")


@pytest.mark.parametrize(
    ("processor", "words"),
    [
        ("the same", r"neither versions nor the processor \(please report it\)"),
        ("Z80", "processor is .*, was Z80; use"),
    ],
)
def test_other_bytes_than_a_lock_records(processor: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_replay, "output_digest", lambda model: "other")
    plan: Any = SimpleNamespace(
        output="recorded",
        versions=_replay.versions(),
        processor=_replay.processor() if processor == "the same" else processor,
    )
    with pytest.raises(PlanError, match=rf"gave other bytes than it records; what differs: {words}"):
        _replay.hold("p.json", plan, None)  # type: ignore[arg-type]
