"""A disk that is full, and files that rot: one sentence, and what was there stays there."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from onnx_layermerge.errors import ProfileError
from onnx_layermerge.latency import LatencyTable

# A limit on the size of files is the nearest thing to a full disk that needs no rights: writing past it fails.
_FULL = """
import os, resource, sys
from onnx_layermerge.errors import OutputError
from onnx_layermerge.latency import DeviceKey, Failure, LatencyTable
device = DeviceKey("fake", "1", "machine", 1, "fp32")
path = sys.argv[1]
with LatencyTable.open(path) as table:
    for i in range(20):
        table.put(device, f"k{i:05}", "conv", Failure("a reason " * 50))
    size = max(os.path.getsize(os.path.join(os.path.dirname(path), name)) for name in os.listdir(os.path.dirname(path)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, resource.RLIM_INFINITY))
    done = 20
    try:
        while done < 10_000:
            table.put(device, f"k{done:05}", "conv", Failure("a reason " * 50))
            done += 1
    except OutputError as error:
        print(error)
    else:
        sys.exit("nothing failed")
    for _ in range(2):  # not only the first time
        try:
            table.put(device, "more", "conv", Failure("a reason " * 50))
        except OutputError:
            pass
    print(done, len([key for key in table.entries(device) if key.startswith("k")]) >= done)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    table.put(device, "later", "conv", Failure("there is room again"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("name", ["t.sqlite", "t.json"])
def test_a_full_disk_is_one_sentence_and_costs_nothing(name, tmp_path) -> None:
    path = tmp_path / name
    ran = subprocess.run([sys.executable, "-c", _FULL, str(path)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    sentence, counts = ran.stdout.splitlines()
    assert sentence.startswith(f"The latency table {path} cannot be written") and sentence.endswith(".")
    done, held = counts.split()
    assert int(done) >= 20 and held == "True"
    with LatencyTable.open(path) as table:
        (device,) = table.devices()
        entries = table.entries(device)
    assert {f"k{number:05}" for number in range(int(done))} <= entries.keys() and "later" in entries
    assert [item.name for item in tmp_path.iterdir()] == [name], "no temporary, no journal left"


def test_rotten_pages_are_one_sentence(tmp_path, devices, measurement) -> None:
    """Whatever bytes are overwritten, a table gives all its entries or says what to do; no traceback, no garbage."""
    path = tmp_path / "t.sqlite"
    with LatencyTable.open(path) as table:
        stored = {f"k{i}": table.put(devices[0], f"k{i}", "conv", measurement((i + 1) / 1e4)) for i in range(120)}
    whole, draw, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(40):
        at = draw.randrange(0, len(whole) - 64)
        path.write_bytes(whole[:at] + draw.randbytes(64) + whole[at + 64 :])
        try:
            with LatencyTable.open(path) as table:
                assert {key: entry.value for key, entry in table.entries(devices[0]).items()} == stored
        except ProfileError as error:
            refused += 1
            assert str(error).count("\n") == 0 and str(error).endswith(".")
    assert refused >= 10
