"""Blocks are timed in a process of their own: whatever one of them does there is a fact about that one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnx_layermerge.errors import DeviceError
from onnx_layermerge.latency import Bound, Failure, LatencyTable, Measurement, _process, fill
from onnx_layermerge.latency._process import Worker
from onnx_layermerge.latency._supervisor import isolated_slopes
from onnx_layermerge.latency.backends import Reopen
from tests.latency.rough import Rough

FAST = {"cap_s": 0.02, "min_rounds": 6, "max_rounds": 8, "warm_up_s": 1e-3}


@pytest.fixture
def rough(tmp_path: Path) -> Rough:
    return Rough(str(tmp_path / "log"))


def opened(rough: Rough) -> list[int]:
    """Process ids in the order in which the backend was opened, without that of the test."""
    return [int(line.split()[1]) for line in rough.log.read_text().splitlines() if line.startswith("open")][1:]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone_within(pid: int, seconds: float) -> bool:
    stop = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < stop:
        time.sleep(0.02)
    return not alive(pid)


def test_one_process_times_all_and_each_result_comes_at_once(rough: Rough) -> None:
    stored: list[tuple[str, int]] = []

    def store(spec, value) -> None:
        stored.append((spec.key, len(rough.log.read_text().splitlines())))

    blocks = [rough.block(name) for name in ("a", "prints", "b", "unbuildable", "a")]
    results = isolated_slopes(blocks, rough.reopen, store=store, group=1, **FAST)
    assert results.keys() == {"key-a", "key-b", "key-prints", "key-unbuildable"}
    assert results["key-unbuildable"] == Failure("cannot build unbuildable")
    value = results["key-a"]
    # Process CPU time of the worker: this process slept meanwhile, so its own clock would show nearly nothing.
    assert isinstance(value, Measurement) and value.seconds == pytest.approx(2e-4, rel=0.5)
    (worker,) = opened(rough)
    assert worker != os.getpid() and gone_within(worker, 5)
    lines = [at for _, at in stored]
    assert lines == sorted(lines) and lines[0] < lines[-1], "committed one by one, not all at the end"


CRASHES = {
    "segfault": "crashed (SIGSEGV)",
    "killed": "killed by SIGKILL, as the system does when memory runs out",
    "exits": "the backend ended its process (exit code 7)",
    "aborts": "crashed (SIGABRT): free(): invalid pointer",
    "raises": "ZeroDivisionError: no such kernel",
}


def test_a_crash_is_the_failure_of_exactly_the_block_in_hand(rough: Rough) -> None:
    blocks = [rough.block(name) for name in ("a", *CRASHES, "b")]
    results = isolated_slopes(blocks, rough.reopen, **FAST)
    assert isinstance(results.pop("key-a"), Measurement) and isinstance(results.pop("key-b"), Measurement)
    assert results == {f"key-{name}": Failure(reason) for name, reason in CRASHES.items()}
    assert len(opened(rough)) == 1 + len(CRASHES), "one worker until each crash, one for the rest"


@pytest.mark.parametrize("name", ["hangs", "holds"])
def test_a_hang_is_ended_and_named(rough: Rough, name: str) -> None:
    results = isolated_slopes([rough.block(n) for n in ("a", name, "b")], rough.reopen, hang_s=1.0, **FAST)
    assert results[f"key-{name}"] == Failure("hung for 1 s")
    assert isinstance(results["key-a"], Measurement) and isinstance(results["key-b"], Measurement)
    assert all(gone_within(pid, 5) for pid in opened(rough))


def test_a_build_has_a_limit_of_its_own(rough: Rough) -> None:
    blocks = [rough.block(n) for n in ("tardy", "stuck")]
    results = isolated_slopes(blocks, rough.reopen, hang_s=0.4, build_s=2.0, group=1, **FAST)
    assert results["key-stuck"] == Failure("hung for 2 s") and isinstance(results["key-tardy"], Measurement)


def test_a_backend_brings_its_own_limit(rough: Rough, tmp_path: Path) -> None:
    rough.build_limit_s = 1.5  # type: ignore[attr-defined]
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        entries = fill(table, rough, [rough.block("stuck")], cap_s=0.02)
    assert entries["key-stuck"].value == Failure("hung for 1.5 s")


def test_a_pipe_that_ends_before_its_process_is_not_waited_for(rough: Rough, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_process, "END_S", 0.2)
    results = isolated_slopes([rough.block(n) for n in ("a", "closes", "b")], rough.reopen, **FAST)
    assert results["key-closes"] == Failure("the backend closed its pipe and did not end its process within 0.2 s")
    assert isinstance(results["key-b"], Measurement) and all(gone_within(pid, 5) for pid in opened(rough))


def test_writing_to_a_process_that_does_not_read_waits_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a pipe holds, to a process whose threads are all stopped: known as a hang, not shared as one."""
    monkeypatch.setattr(_process, "OPEN_S", 2.0)
    log = tmp_path / "log"
    worker = Worker(Reopen("tests.latency.rough:holding", (str(log),)), "slopes", {}, (2.0, 2.0))
    try:
        stop = time.monotonic() + 30
        while not log.exists() and time.monotonic() < stop:
            time.sleep(0.02)
        worker.send({"size": 8 << 20}, bytes(8 << 20))
        assert worker.receive() == {"kind": "gone", "text": "hung for 2 s"}
    finally:
        worker.close()


def test_what_was_settled_before_a_crash_is_not_timed_again(rough: Rough) -> None:
    isolated_slopes([rough.block(n) for n in ("a", "b", "segfault", "c")], rough.reopen, group=2, **FAST)
    built = [line for line in rough.log.read_text().splitlines() if line.startswith("build")]
    # a's group was through when the crash came; the anchor is built once a worker, from R1 alone.
    # Whether c was built before the crash as well is a matter of the order in which the group is loaded.
    assert built.count("build a 3") == built.count("build b 3") == 1 and built.count("build c 3") in (1, 2)


def test_a_lost_device_ends_it_and_what_cannot_start_says_so(rough: Rough) -> None:
    with pytest.raises(DeviceError, match="the device was lost"):
        isolated_slopes([rough.block("a"), rough.block("lost")], rough.reopen, **FAST)
    assert all(gone_within(pid, 5) for pid in opened(rough))
    with pytest.raises(DeviceError, match=r"ended 3 times without a result \(ModuleNotFoundError"):
        isolated_slopes([rough.block("a")], Reopen("tests.no_such_module:Rough"), **FAST)


def test_a_ceiling_goes_along_and_no_block_starts_no_process(rough: Rough) -> None:
    blocks = [rough.block("a"), rough.block("slow", ceiling_s=1e-5)]
    results = isolated_slopes(blocks, rough.reopen, **FAST)
    assert isinstance(results["key-a"], Measurement)
    bound = results["key-slow"]
    assert isinstance(bound, Bound) and bound.n == 2 and 2e-5 < bound.at_least_s < 1e-3
    before = len(opened(rough))
    assert isolated_slopes([], rough.reopen) == isolated_slopes(iter([None]), rough.reopen) == {}
    assert len(opened(rough)) == before


def test_a_budget_ends_it(rough: Rough) -> None:
    blocks = [rough.block(f"b{n}") for n in range(200)]
    results = isolated_slopes(blocks, rough.reopen, budget_s=1.0, **(FAST | {"cap_s": 0.2}))
    assert len(results) < 200, "on a slow machine perhaps none, as starting the worker counts as well"


def test_an_interrupt_ends_the_worker_too(rough: Rough) -> None:
    def interrupted(spec, value) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        isolated_slopes([rough.block("a"), rough.block("b")], rough.reopen, store=interrupted, **FAST)
    (worker,) = opened(rough)
    assert gone_within(worker, 5)


@pytest.mark.parametrize("name", ["hangs", "holds"])
def test_no_worker_outlives_a_parent_that_was_killed(rough: Rough, name: str) -> None:
    """Also while a backend keeps Python's lock: a timer below Python ends it."""
    code = (
        "from tests.latency.rough import Rough; from onnx_layermerge.latency._supervisor import isolated_slopes;"
        f"r = Rough({str(rough.log)!r}); isolated_slopes([r.block({name!r})], r.reopen, hang_s=0.5, warm_up_s=1e-3)"
    )
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": root})
    try:
        stop = time.monotonic() + 30
        while f"build {name} 3" not in rough.log.read_text() and time.monotonic() < stop:
            time.sleep(0.02)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    worker = opened(rough)[-1]
    assert worker != parent.pid and gone_within(worker, 10)


def test_the_worker_imports_only_what_it_needs(rough: Rough) -> None:
    code = (
        "import sys; from tests.latency import rough as r; from onnx_layermerge.latency import _worker;"
        f"b = r.Rough({str(rough.log)!r});"
        "heavy = [m for m in ('onnx', 'onnx_ir', 'onnxscript', 'torch', 'rich', 'scipy') if m in sys.modules];"
        "print(heavy)"
    )
    start = _process._START.replace("from onnx_layermerge.latency._worker import serve\nserve()", code)
    package = str(Path(_process.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-I", "-c", start, package, *filter(None, sys.path), str(Path(__file__).parents[2])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_a_table_keeps_the_failure_and_earlier_entries(rough: Rough, tmp_path: Path) -> None:
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        first = fill(table, rough, [rough.block("a")], cap_s=0.02)
        entries = fill(table, rough, [rough.block(n) for n in ("a", "segfault", "b")], cap_s=0.02)
        assert entries["key-a"] == first["key-a"]
        assert entries["key-segfault"].value == Failure("crashed (SIGSEGV)")
        workers = len(opened(rough))
        again = fill(table, rough, [rough.block(n) for n in ("a", "segfault", "b")])
        assert again == entries and len(opened(rough)) == workers, "a block known to crash is not tried again"
