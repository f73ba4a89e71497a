"""Whole models against one another, in a process of their own: a crash there is a fact about one of the two."""

from __future__ import annotations

import gc
import json
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_layermerge.errors import DeviceError, ModelError, OutputError
from onnx_layermerge.graph import Packed, Session, load, pack
from onnx_layermerge.latency import LatencyTable, Ratio, _compare, compare, fill, open_backend
from onnx_layermerge.latency._compare import release
from onnx_layermerge.latency._parcel import pick_up, put_down
from onnx_layermerge.latency.backends import Reopen
from tests import zoo
from tests.latency.rough import Rough
from tests.latency.test_worker import alive, gone_within, opened, rough

__all__ = ["rough"]

SHAPES = {"x": (3, 3)}
FAST = {"cap_s": 0.05}


def pair(rough: Rough, first: str, second: str | None, **words: object) -> Ratio:
    models = f"{first} 3".encode(), None if second is None else f"{second} 3".encode()
    return compare(rough, *models, SHAPES, **(FAST | words))  # type: ignore[arg-type]


def test_one_process_times_pair_after_pair_on_its_own_clock(rough: Rough) -> None:
    seen: list[tuple[int, int, str]] = []
    ratio = pair(rough, "a", "half", sessions=3, progress=lambda *step: seen.append(step))
    # Process CPU time of the worker: this process slept meanwhile, so its own clock would show nearly nothing.
    assert ratio.ratio == pytest.approx(2, rel=0.3) and ratio.a_s == pytest.approx(6e-4, rel=0.5)
    assert seen and all(total == 400 for _, total, _ in seen)
    alone = pair(rough, "a", None)
    assert alone.ratio == pytest.approx(1, rel=0.3)
    (worker,) = opened(rough)
    assert worker != os.getpid() and alive(worker)
    built = [line for line in rough.log.read_text().splitlines() if line.startswith("build")]
    assert built == ["build a 3", "build half 3"] * 3 + ["build a 3"] * 2


ENDS = {
    "bursts": "rough cannot build the {} model: crashed (SIGABRT)",
    "greedy": "rough cannot build the {} model: MemoryError",
    "stuck": "rough cannot build the {} model: hung for 1 s",
    "raises": "rough cannot build the {} model: ZeroDivisionError: no such kernel",
    "killed": "rough cannot run the {} model: killed by SIGKILL, as the system does when memory runs out",
    "holds": "rough cannot run the {} model: hung for 1 s",
}


@pytest.mark.parametrize("name", ENDS)
def test_what_the_second_does_to_the_process_refuses_it_and_no_other(rough: Rough, name: str) -> None:
    refused: list[str] = []
    with pytest.raises(ModelError) as caught:
        pair(rough, "a", name, hang_s=1.0, build_s=1.0, refused=refused.append)
    assert refused == [str(caught.value)] == [ENDS[name].format("compressed") + "; try another --backend."]
    assert pair(rough, "a", "half").ratio > 1
    first, second = opened(rough)
    assert gone_within(first, 5) and alive(second)


@pytest.mark.parametrize("second", ["half", None])
@pytest.mark.parametrize("name", ["bursts", "greedy", "stuck", "killed"])
def test_what_the_first_does_is_no_fact_about_the_second(rough: Rough, name: str, second: str | None) -> None:
    refused: list[str] = []
    with pytest.raises(DeviceError) as caught:
        pair(rough, name, second, hang_s=1.0, build_s=1.0, refused=refused.append)
    said = ENDS[name].format("original") if second else ENDS[name].format("").replace("the  model", "the model")
    assert str(caught.value).startswith(said) and "another --backend" in str(caught.value)
    assert not refused and gone_within(opened(rough)[-1], 5)


def test_the_backends_own_limit_counts_and_the_option_is_named(rough: Rough) -> None:
    rough.build_limit_s = 1.0  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match="hung for 1 s; give it longer with --build-limit"):
        pair(rough, "stuck", None)


def test_a_refusal_in_words_ends_no_process(rough: Rough) -> None:
    refused: list[str] = []
    for first, second in (("a", "unbuildable"), ("unbuildable", "a"), ("unbuildable", None)):
        with pytest.raises(ModelError, match="^cannot build unbuildable$"):
            pair(rough, first, second, refused=refused.append)
    for first, second in (("a", "trips"), ("trips", "a")):
        with pytest.raises(ModelError, match="^cannot run trips$"):
            pair(rough, first, second, refused=refused.append)
    assert refused == ["cannot build unbuildable"], "neither a run that failed nor the first model is a refusal"
    assert pair(rough, "a", "half").ratio > 1 and len(opened(rough)) == 1


def test_a_lost_device_and_a_process_that_cannot_start_say_so(rough: Rough) -> None:
    with pytest.raises(DeviceError, match="the device was lost"):
        pair(rough, "a", "lost")
    assert gone_within(opened(rough)[-1], 5)
    rough.reopen = Reopen("tests.no_such_module:Rough")
    with pytest.raises(DeviceError, match=r"ended 3 times without a result \(ModuleNotFoundError"):
        pair(rough, "a", "half")


def test_a_process_that_somebody_ended_meanwhile_is_replaced(rough: Rough) -> None:
    pair(rough, "a", "half")
    os.kill(opened(rough)[-1], signal.SIGKILL)
    assert pair(rough, "a", "half").ratio > 1
    assert len(opened(rough)) == 2


def test_an_interrupt_ends_the_process_at_once_and_leaves_no_file(
    rough: Rough, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "space").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "space"))

    def interrupted(done: int, total: int, what: str) -> None:
        assert not list((tmp_path / "space").rglob("*.onnx")), "they go as soon as they were taken"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pair(rough, "a", "half", progress=interrupted)
    assert gone_within(opened(rough)[-1], 5) and not list((tmp_path / "space").iterdir())


def test_the_process_ends_with_its_backend_and_before_blocks_are_timed(rough: Rough, tmp_path: Path) -> None:
    pair(rough, "a", "half")
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        fill(table, rough, [rough.block("a")], cap_s=0.02)
        first, second = opened(rough)
        assert gone_within(first, 5)
        pair(rough, "a", "half")
        fill(table, rough, [rough.block("a")], cap_s=0.02)
    assert gone_within(second, 5) and alive(opened(rough)[-1]), "nothing was missing, so nothing was in the way"
    last, log = opened(rough)[-1], rough.log
    again = Rough(str(log))
    del rough
    # pytest holds the fixture's value, so what is collected is another backend with a process of its own.
    pair(again, "a", "half")
    mine = opened(again)[-1]
    del again
    gc.collect()
    assert gone_within(mine, 5) and alive(last) and len(_compare._IDLE) >= 1


def test_no_room_for_the_models_is_said(rough: Rough, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(model: object, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_compare, "put_down", full)
    with pytest.raises(OutputError, match="No space left on device.*TMPDIR"):
        pair(rough, "a", "half")
    assert gone_within(opened(rough)[-1], 5)


def outside(folder: Path) -> tuple[bytes, Packed, Packed]:
    """A model in one message; with its weights in a file; and with a weight in memory beside that file."""
    net, output = zoo.plain()
    proto = net.proto(output)
    path = folder / "m.onnx"
    onnx.save(net.proto(output), path, save_as_external_data=True, location="m.bin", size_threshold=0)
    mapped, mixed = load(path), load(path)
    value = mixed.graph.initializers["c2.w"]
    assert value.const_value is not None
    value.const_value = ir.Tensor(np.array(value.const_value.numpy()), name="c2.w")
    return proto.SerializeToString(), pack(mapped, most_inside=0), pack(mixed, most_inside=0)


def test_weights_that_no_message_holds_arrive_without_their_files(tmp_path: Path) -> None:
    whole, mapped, mixed = outside(tmp_path)
    assert mapped.folder == mixed.folder == tmp_path and not mapped.weights and list(mixed.weights) == ["c2.w"]
    x = {"x": np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)}
    wanted = Session(whole).run(x)
    space = tmp_path / "space"
    space.mkdir()
    for number, model in enumerate((whole, mapped, mixed)):
        taken = pick_up(json.loads(json.dumps(put_down(model, space / f"{number}.onnx"))))
        for path in space.iterdir():
            path.unlink()
        for _ in range(2):  # a second session takes it once more
            found = taken()
            assert isinstance(found, bytes) == isinstance(model, bytes)
            np.testing.assert_array_equal(Session(found).run(x)["c3"], wanted["c3"])


def test_a_model_over_the_limit_of_a_message_is_timed(tmp_path: Path) -> None:
    whole, mapped, mixed = outside(tmp_path)
    backend = open_backend()
    for first, second in ((whole, mapped), (mapped, mixed), (mixed, None)):
        ratio = compare(backend, first, second, {"x": (1, 4, 8, 8)}, cap_s=0.1)
        assert 0.2 < ratio.ratio < 5 and ratio.n >= 6
    assert len(_compare._IDLE) >= 1
    release(backend)
