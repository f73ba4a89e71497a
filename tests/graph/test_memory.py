"""How much memory reading takes whose weights are inside the file; ``test_external`` has those beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from tests import zoo

_PEAK = """
import resource, sys
import onnxruntime, onnxscript.optimizer
from onnx_layermerge.graph import read
unit = 2**20 if sys.platform == "darwin" else 2**10
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
network = read(sys.argv[1])
assert network.steps
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no count of the most memory that was held")
def test_the_peak_is_a_small_multiple_of_the_file(tmp_path: Path) -> None:
    """The message and the bytes it is parsed from are there together, later the weights and the runtime's own copy."""
    net = zoo.Net()
    value = net.input(shape=(1, 1024, 1, 1))
    net.channels[value] = 1024
    for number in range(8):  # 32 MiB
        value = net.batch_norm(net.conv(value, f"c{number}", 1024, 1), f"b{number}")
    onnx.save(net.proto(value), tmp_path / "m.onnx")
    done = subprocess.run([sys.executable, "-c", _PEAK, str(tmp_path / "m.onnx")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 3.2 * 32
