"""A tiny residual network, samples for it, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper, parser

from olm.app import olm

Run = Callable[..., Result]

_TEXT = """
<ir_version: 8, opset_import: ["": 17]>
tiny (float[N, 3, 8, 8] x) => (float[N, 5] y) {
    c0 = Conv<pads = [1, 1, 1, 1]>(x, w0)
    r0 = Relu(c0)
    c1 = Conv<pads = [1, 1, 1, 1]>(r0, w1)
    r1 = Relu(c1)
    c2 = Conv<pads = [1, 1, 1, 1]>(r1, w2)
    s2 = Add(c2, r0)
    r2 = Relu(s2)
    c3 = Conv<pads = [1, 1, 1, 1]>(r2, w3)
    r3 = Relu(c3)
    c4 = Conv<pads = [1, 1, 1, 1]>(r3, w4)
    s4 = Add(c4, r2)
    r4 = Relu(s4)
    p = GlobalAveragePool(r4)
    f = Flatten(p)
    y = Gemm<transB = 1>(f, head)
}
"""


def _tiny() -> onnx.ModelProto:
    """Five 3×3 convolutions of 8 channels, two residual blocks, five classes."""
    model = parser.parse_model(_TEXT)
    generator = np.random.default_rng(0)
    shapes = {"w0": (8, 3, 3, 3), "head": (5, 8)} | {f"w{i}": (8, 8, 3, 3) for i in range(1, 5)}
    for name, shape in shapes.items():
        values = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    for node in model.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="session")
def tiny_bytes() -> bytes:
    return _tiny().SerializeToString()


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((40, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_bytes: bytes, samples: np.ndarray) -> Path:
    """A folder that is not looked at: the model, its data, and the latency table that all tests fill."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "tiny.onnx").write_bytes(tiny_bytes)
    np.savez(folder / "calib.npz", x=samples)
    return folder


@pytest.fixture(scope="session")
def timings(store: Path) -> list[str]:
    """The words that keep the user's own table out of it."""
    return ["--profile", str(store / "latency.sqlite")]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever a test forgets to say, the user's cache is not touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("LOCALAPPDATA", str(tmp_path_factory.mktemp("appdata")))
        yield


@pytest.fixture(scope="session")
def run() -> Run:
    """The command line in this process."""

    def call(*words: object) -> Result:
        return CliRunner().invoke(olm, [str(word) for word in words], prog_name="olm")

    return call


@pytest.fixture
def model(tmp_path: Path, tiny_bytes: bytes) -> Path:
    """The network alone in a folder of its own."""
    path = tmp_path / "in.onnx"
    path.write_bytes(tiny_bytes)
    return path
