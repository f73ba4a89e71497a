"""Every command and snippet of the README runs, on a small network in place of the user's own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def fences(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(tool: str) -> list[list[str]]:
    """The lines of all shell blocks that start with ``tool``, as words without comments."""
    lines = [shlex.split(line, comments=True) for block in fences("sh") for line in block.splitlines()]
    return [words for words in lines if words and words[0] == tool]


def residual_network(path: Path, *, width: int = 24, blocks: int = 5, size: int = 32) -> None:
    """An image classifier with random weights: a stem and residual blocks, 3×``size``×``size`` to 10 classes."""
    rng = np.random.default_rng(7)
    nodes, weights = [], []

    def conv(source: str, name: str, shape: tuple[int, ...]) -> str:
        kernel = rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"{name}.w"))
        nodes.append(helper.make_node("Conv", [source, f"{name}.w"], [name], name=name, pads=[1, 1, 1, 1]))
        return name

    def apply(op: str, inputs: list[str], name: str) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name=name))
        return name

    value = apply("Relu", [conv("image", "stem", (width, 3, 3, 3))], "stem.relu")
    for number in range(blocks):
        inner = apply("Relu", [conv(value, f"b{number}.1", (width, width, 3, 3))], f"b{number}.relu")
        value = apply("Add", [value, conv(inner, f"b{number}.2", (width, width, 3, 3))], f"b{number}.add")
        value = apply("Relu", [value], f"b{number}.out")
    value = apply("Flatten", [apply("GlobalAveragePool", [value], "pool")], "flat")
    weights.append(numpy_helper.from_array(rng.standard_normal((width, 10)).astype(np.float32), "fc"))
    nodes.append(helper.make_node("MatMul", [value, "fc"], ["logits"], name="logits"))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's model, images and arrays in it."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("desk")
    residual_network(folder / "model.onnx")
    (folder / "images").mkdir()
    rng = np.random.default_rng(1)
    samples = []
    for number in range(48):
        pixels = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((5, 5, 1))).astype(np.uint8)
        image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        samples.append(pixels[:32, :32].transpose(2, 0, 1).astype(np.float32) / 255)
    np.savez(folder / "calib.npz", image=np.stack(samples))
    return folder


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run in ``folder`` with a latency table of its own and this checkout's packages."""
    paths = [str(ROOT), str(ROOT / "cli"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(paths)}
    (folder / "cache" / "olm").mkdir(parents=True, exist_ok=True)
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_the_shell_blocks_hold_nothing_but_commands_tested_here() -> None:
    tools = {words[0] for block in fences("sh") for line in block.splitlines() if (words := shlex.split(line, True))}
    assert tools == {"make", "olm"}


def test_every_make_target_exists() -> None:
    for words in commands("make"):
        done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_olm_command_runs_in_order(desk: Path) -> None:
    listed = commands("olm")
    assert {words[1] for words in listed} >= {"inspect", "plan", "compress", "verify"}
    for words in listed:
        done = run([sys.executable, "-m", *words], desk)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    onnx.checker.check_model(str(desk / "fast.onnx"), full_check=True)


def test_the_python_snippet_runs(desk: Path) -> None:
    (snippet,) = fences("python")
    done = run([sys.executable, "-c", snippet], desk)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[0]) >= 1.3


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_local_link_leads_somewhere(link: str) -> None:
    assert link.startswith("http") or (ROOT / link).exists()
