"""The commands and snippets of the how-to and reference pages, run on a device whose clock obeys, page by page.

The README's run in tests/test_readme.py, the tutorial's, on the real clock, in test_tutorial.py, those of docs/ci.md in
tests/pipeline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from olm.app import olm
from tests import zoo
from tests.docs.snippets import ROOT, SHELL, blocks, lines, words
from tests.machine import install

PAGES = ("calibration", "explain", "index", "judging", "new-device", "pictures", "plan-file", "report", "verify")
# Lines that cannot be run here, and why.
SKIPPED = {
    "olm profile a.onnx --backend tensorrt --device cuda:0 --precision fp16 --timing-cache gpu.cache": "needs a GPU",
    "olm verify in.onnx out.onnx --metric psnr:pairs.npz#image --max-drop 0.2": "its model gives images; the metric "
    "runs in tests/verify/test_built_in.py",
}
SIDE, IMAGES = 224, 24


def network(path: Path) -> None:
    """Two residual blocks on a small grid behind 224 × 224 pixels."""
    net = zoo.Net(seed=4)
    image = net.input("image", ("N", 3, SIDE, SIDE))
    value = net.relu(net.conv(image, "stem", 6, stride=16), "start")
    for number in (1, 2):
        inner = net.relu(net.conv(value, f"/layer{number}/conv1", 16), f"inner{number}")
        branch = net.conv(inner, f"/layer{number}/conv2", 6)
        net.weights[f"/layer{number}/conv2.w"] *= np.float32(0.3)
        value = net.relu(net.add(branch, value, f"sum{number}"), f"end{number}")
    net.save(path, net.classifier(value, "logits"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages speak of: models, two folders of images, a script, labelled samples."""
    image = pytest.importorskip("PIL.Image")
    folder, draw = tmp_path_factory.mktemp("pages"), np.random.default_rng(0)
    for name in ("model", "in", "a", "b"):
        network(folder / f"{name}.onnx")
    for kind in ("images", "other"):
        (folder / kind).mkdir()
        for number in range(IMAGES):
            coarse = image.fromarray(draw.integers(0, 256, (7, 7, 3), np.uint8))
            coarse.resize((256, 256)).save(folder / kind / f"{number}.png")
    np.savez(
        folder / "labelled.npz",
        image=draw.standard_normal((IMAGES, 3, SIDE, SIDE), np.float32),
        labels=draw.integers(0, 5, IMAGES),
        label=draw.integers(0, 5, IMAGES),  # the page's own script calls them so
    )
    np.savez(folder / "calib.npz", image=draw.random((IMAGES, 3, SIDE, SIDE), np.float32))
    (folder / "script.py").write_text(snippets("calibration")[0])
    return folder


def snippets(page: str) -> list[str]:
    return [block.text for block in blocks(ROOT / "docs" / f"{page}.md") if block.language == "python"]


def run_snippets(page: str, desk: Path) -> dict[str, Any]:
    """The Python of a page as one script in the desk's folder; the names that it defines."""
    names: dict[str, Any] = {"__file__": str(desk / "page.py"), "__name__": "page"}
    for text in snippets(page):
        exec(compile(text, f"{page}.md", "exec"), names)
    return names


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_in_order(page: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.chdir(desk)
    monkeypatch.setenv("XDG_CACHE_HOME", str(desk / "cache"))
    found = [
        line
        for block in blocks(ROOT / "docs" / f"{page}.md")
        if block.language in SHELL
        for line in lines(block)
        if line.startswith("olm ") and line not in SKIPPED
    ]
    ran = 0
    for output in ("fast.onnx", "out.onnx"):  # what an earlier page left there
        if not (desk / output).exists():
            command = ["compress", "in.onnx", output, "--speedup", "1.3", "--calib", "images/", "--preset", "imagenet"]
            assert CliRunner().invoke(olm, [*command, "--effort", "quick", "-q"]).exit_code == 0
    for line in found:
        result = CliRunner().invoke(olm, words(line)[1:])
        # A bound that a random network misses is a verdict, not a fault of the command.
        allowed = (0, 3) if "olm verify" in line else (0,)
        assert result.exit_code in allowed, f"{line}\n{result.output}\n{result.exception}"
        ran += 1
    assert ran == len(found) > 0
    names = run_snippets(page, desk)
    if page == "calibration":
        assert names["report"].speedup.low >= 1.3
    if page == "report":
        assert (desk / "again.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    if page == "judging":
        session = onnxruntime.InferenceSession(str(desk / "model.onnx"))
        share = names["top1"](lambda feeds: {"logits": session.run(["logits"], feeds)[0]})
        assert 0 <= share <= 1


def test_the_loss_of_the_page_on_fine_tuning(desk: Path) -> None:
    torch = pytest.importorskip("torch")
    boxes = torch.tensor([1.0, 4.0])
    loss = run_snippets("finetuning", desk)["loss"]({"boxes": boxes}, {"boxes": boxes + 2}, None)
    assert float(loss) == 2.0


def test_what_is_skipped_is_there() -> None:
    text = "".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in PAGES)
    assert all(line in text for line in SKIPPED)


def test_the_network_is_what_the_pages_assume(desk: Path) -> None:
    model = onnx.load(desk / "model.onnx")
    assert any(node.name == "/layer1/conv2" for node in model.graph.node)
