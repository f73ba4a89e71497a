"""What is left of a latency table whose writers are killed: everything they had said was in it.

    python benchmarks/store_crash.py [--kills 50] [--seed 0] [--form sqlite|json] [--out FILE]

Two processes fill one table at once, each through `LatencyTable.put` with a sleep of a few milliseconds in place of the
timing, and say on a pipe what `put` has returned for.  One of them, drawn by chance, gets SIGKILL after a random time
(while it starts and creates the table as well as between and within its writes); the other goes on, and a new one takes
the place of the dead and resumes where it stopped.  After every kill the table is opened anew: every entry that was
announced must be there with its value, and SQLite's integrity_check must pass.  After the last one both run to the end:
all entries must be there.  POSIX only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sqlite3
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from onnx_layermerge.latency import DeviceKey, LatencyTable, Measurement

DEVICE = DeviceKey("none", "0", "a sleep in place of a clock", 1, "fp32")
# Every third block is in the lists of both writers, as where two models share a structure.
SHARED = 3


@dataclass(frozen=True)
class Outcome:
    """What happened in one run, and what it must show: ``lost`` and ``damaged`` are 0, ``complete`` is true."""

    form: str
    kills: int
    before_first_entry: int
    announced: int
    unannounced: int
    lost: int
    damaged: int
    complete: bool
    entries: int
    seconds: float


def value_of(key: str) -> Measurement:
    """The one value that a key ever has."""
    seconds = (1 + int(key[1:])) / 1e6
    return Measurement(seconds, seconds, seconds, seconds, seconds, seconds, 20, 0, "precise", 0.0)


def keys_of(writer: int, entries: int) -> list[str]:
    """Blocks of a writer, in its order."""
    return [f"k{number:06}" for number in range(entries) if number % SHARED == 0 or number % 2 == writer]


def write(path: str, writer: int, entries: int, seed: int, announce: Connection) -> None:
    """Put what the table lacks, as a resumed profile does, and announce each key once it is in."""
    draw = random.Random(seed)
    with LatencyTable.open(path) as table:
        for key in keys_of(writer, entries):
            if table.get(DEVICE, key) is None:
                time.sleep(draw.uniform(0, 0.004))
                table.put(DEVICE, key, f"block {key} " + "of a long name " * draw.randrange(40), value_of(key))
                announce.send(key)


def crash(path: Path, kills: int, entries: int, seed: int = 0) -> Outcome:
    """Fill ``path`` from two lists, which grow with every kill, until ``kills`` writers were killed and both end."""
    draw = random.Random(seed)
    # Children that start in milliseconds, from a process that has no threads and no open table.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["onnx_layermerge.latency"])
    start = time.perf_counter()
    announced: set[str] = set()
    killed = early = unannounced = lost = damaged = 0
    writers: dict[int, tuple[Any, Connection, set[str]]] = {}

    def begin(writer: int) -> None:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=write, args=(str(path), writer, entries, draw.getrandbits(32), there))
        process.start()
        there.close()
        writers[writer] = process, here, set()

    def hear(writer: int) -> None:
        _, pipe, said = writers[writer]
        try:
            while pipe.poll():
                said.add(pipe.recv())
        except (EOFError, OSError):  # the last message of the dead may be cut short
            pass
        announced.update(said)

    def end(writer: int) -> None:
        process, pipe, _ = writers.pop(writer)
        process.join()
        process.close()
        pipe.close()

    for writer in (0, 1):
        begin(writer)
    while killed < kills:
        # The first kills come early, when the file is being made; later ones at any time.
        time.sleep(draw.uniform(0.0, 0.06 if killed < kills // 5 else 0.25))
        victim = draw.randrange(2)
        process = writers[victim][0]
        hear(0)
        hear(1)
        if process.is_alive():
            process.kill()
            killed += 1
            process.join()
            hear(victim)
            early += not writers[victim][2]
        end(victim)
        lost_now, extra, whole = check(path, announced)
        lost, unannounced, damaged = lost + lost_now, max(unannounced, extra), damaged + (not whole)
        entries += 12  # there is always something left to write
        begin(victim)
    complete = True
    for turn in range(2):  # once more, since the lists grew while the first of these writers ran
        for writer in (0, 1):
            process = writers[writer][0]
            while process.is_alive():
                hear(writer)
                process.join(0.02)
            hear(writer)
            complete &= process.exitcode == 0
            end(writer)
            if turn == 0:
                begin(writer)
    lost_now, _, whole = check(path, announced)
    with LatencyTable.open(path) as table:
        held = set(table.entries(DEVICE))
    complete &= held == {*keys_of(0, entries), *keys_of(1, entries)}
    return Outcome(
        form=path.suffix[1:],
        kills=killed,
        before_first_entry=early,
        announced=len(announced),
        unannounced=unannounced,
        lost=lost + lost_now,
        damaged=damaged + (not whole),
        complete=complete,
        entries=len(held),
        seconds=round(time.perf_counter() - start, 1),
    )


def check(path: Path, announced: set[str]) -> tuple[int, int, bool]:
    """Announced entries that are gone or changed, entries that nobody announced, and whether the file is whole."""
    if not path.exists():
        return len(announced), 0, True
    with LatencyTable.open(path) as table:
        entries = table.entries(DEVICE)
        lost = sum(key not in entries or entries[key].value != value_of(key) for key in announced)
    whole = True
    if path.suffix != ".json":
        db = sqlite3.connect(path)
        whole = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.close()
    return lost, len(entries.keys() - announced), whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="how many writers are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments, the victims and the sleeps")
    parser.add_argument("--form", choices=("sqlite", "json"), default="sqlite", help="of the table")
    parser.add_argument("--out", type=Path, help="write the outcome there as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = crash(Path(folder) / f"table.{options.form}", options.kills, 60, options.seed)
        left = [name for name in os.listdir(folder) if name.startswith(".")]
    text = json.dumps(asdict(outcome) | {"temporary_files_left": len(left)}, indent=1)
    sys.stdout.write(text + "\n")
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0 if outcome.lost == outcome.damaged == 0 and outcome.complete else 1


if __name__ == "__main__":
    sys.exit(main())
