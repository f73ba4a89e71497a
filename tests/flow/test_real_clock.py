"""One job on the machine at hand; everything else runs on a clock that obeys."""

from __future__ import annotations

from pathlib import Path

import onnx

from onnx_layermerge import compress
from tests import zoo
from tests.flow import jobs


def test_dropping_is_faster_on_a_real_clock_too(tmp_path: Path) -> None:
    """Large enough that what goes is seen in spite of noise: two thirds of the arithmetic may be dropped."""
    net = zoo.Net(seed=1)
    stem = net.relu(net.conv(net.input("image", ("batch", 3, 16, 16)), "stem", 16), "r")
    output = jobs.blocks(net, stem, 2, 16, 48)
    path = net.save(tmp_path / "in.onnx", output)
    report = compress(path, tmp_path / "out.onnx", speedup=1.05, method="drop", calib=jobs.samples(net, 16),
                      rivals=1, profile=tmp_path / "t.json")  # fmt: skip
    assert report.speedup.low >= 1.05 and report.device.startswith("onnxruntime")
    made = onnx.load(tmp_path / "out.onnx")
    assert zoo.run(made, jobs.samples(net, 3))[output].shape == (3, 5)
