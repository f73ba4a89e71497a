"""The page in a real browser, where there is one: nothing on its console, nothing wider than a phone, not blank."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from onnx_layermerge.report import render_html
from tests.report import made

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

# The page in frames as wide as a phone and a screen; a script outside of it writes down what it measures.
FRAMES = """<!doctype html><meta charset="utf-8"><body>{frames}<pre id="found"></pre><script>
onload = () => {{
  const found = [];
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument, width = frame.clientWidth;
    const over = [...page.querySelectorAll("main *")].filter(each => each.getBoundingClientRect().right > width + 1);
    found.push([width, page.documentElement.scrollWidth, over.length, page.querySelectorAll("svg").length].join(" "));
  }}
  document.getElementById("found").textContent = found.join("; ");
}}</script>"""


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--v=0")
    return subprocess.run(
        [str(BROWSER), *options, f"--user-data-dir={folder / 'profile'}", *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_nothing_is_wider_than_its_window(tmp_path: Path) -> None:
    page = html.escape(render_html(made.everything()))
    frames = "".join(
        f'<iframe style="border:0;width:{width}px;height:400px" srcdoc="{page}"></iframe>' for width in (360, 1200)
    )
    source = tmp_path / "frames.html"
    source.write_text(FRAMES.format(frames=frames))
    done = run("--dump-dom", "--virtual-time-budget=2000", "--window-size=1300,900", source.as_uri(), folder=tmp_path)
    found = re.search(r'<pre id="found">([^<]*)</pre>', done.stdout)
    assert found is not None, done.stderr
    for frame, width in zip(found[1].split("; "), (360, 1200), strict=True):
        inner, scrolled, over, pictures = map(int, frame.split())
        assert inner == width and scrolled <= width and over == 0 and pictures >= 4, frame
    assert "CONSOLE" not in done.stderr, done.stderr


def test_it_is_drawn(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    source, picture = tmp_path / "page.html", tmp_path / "page.png"
    source.write_text(render_html(made.everything()))
    done = run(f"--screenshot={picture}", "--window-size=900,2400", source.as_uri(), folder=tmp_path)
    assert picture.exists() and "CONSOLE" not in done.stderr, done.stderr
    pixels = np.asarray(pillow.open(picture).convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    assert len(colours) > 100 and counts.max() < 0.97 * len(pixels)
    # The two colours of the drawing: a fill of its own for what is gone, and for what came.
    for fill in ((253, 240, 226), (225, 236, 250)):
        assert counts[(colours == fill).all(axis=1)].sum() > 300, fill
