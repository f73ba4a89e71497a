"""Draw digits with a denoiser: DDIM, 50 steps, onnxruntime.

    python examples/ddpm/sample.py ddpm.onnx [small.onnx …] --out samples.png [--count 16] [--seed 0]

writes one row of digits for each model, every column from the same noise.

One step (Song, Meng, Ermon 2021, equation 12 with σ = 0), from t to the next smaller s of the evenly spaced ones:

    x̂_0 = clip( (x_t − √(1 − ā_t) · f(x_t, t)) / √ā_t, −1, 1 )
    x_s = √ā_s · x̂_0 + √(1 − ā_s) · ε̂,   ε̂ = (x_t − √ā_t · x̂_0) / √(1 − ā_t),   and x̂_0 itself after the last.

Nothing is drawn on the way, so one noise and one model give one image.
"""

from __future__ import annotations

import argparse
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

__all__ = ["noises", "picture", "sample"]

HERE = Path(__file__).resolve().parent
SIDE = 28
Images = NDArray[np.float32]

_schedule = runpy.run_path(str(HERE / "data.py"))
ALPHA_BAR: NDArray[np.float64] = _schedule["ALPHA_BAR"]


def noises(count: int, seed: int = 0) -> Images:
    """(count, 1, 28, 28) float32 of N(0, 1): what `sample` starts from; the first ones do not depend on ``count``."""
    return np.random.default_rng(seed).standard_normal((count, 1, SIDE, SIDE), dtype=np.float32)


def sample(
    model: Path,
    start: Images,
    steps: int = 50,
    batch: int = 100,
    progress: Callable[[int], None] = lambda done: None,
) -> Images:
    """Digits (N, 1, 28, 28) float32 in [−1, 1] from noise of that shape, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    times = np.linspace(len(ALPHA_BAR) - 1, 0, steps).round().astype(np.int64)
    found = []
    for first in range(0, len(start), batch):
        x = start[first : first + batch].astype(np.float64)
        for place, t in enumerate(times):
            feeds = {"x": x.astype(np.float32), "t": np.full(len(x), t, np.int64)}
            noise = np.asarray(session.run(["eps"], feeds)[0], np.float64)
            here, there = ALPHA_BAR[t], ALPHA_BAR[times[place + 1]] if place + 1 < steps else 1.0
            clean = np.clip((x - np.sqrt(1 - here) * noise) / np.sqrt(here), -1, 1)
            noise = (x - np.sqrt(here) * clean) / np.sqrt(1 - here)
            x = np.sqrt(there) * clean + np.sqrt(1 - there) * noise
        found.append(x.astype(np.float32))
        progress(min(first + batch, len(start)))
    return np.concatenate(found)


def picture(rows: Sequence[Images], path: Path, zoom: int = 2, gap: int = 4) -> None:
    """One row of digits for each array (N, 1, 28, 28) in [−1, 1], as a grey PNG; dark on light."""
    height, width = SIDE + gap, SIDE + gap
    page = np.full((len(rows) * height + gap, max(map(len, rows)) * width + gap), 255, np.uint8)
    for number, row in enumerate(rows):
        for place, digit in enumerate(row[:, 0]):
            grey = 255 - ((digit.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
            top, left = number * height + gap, place * width + gap
            page[top : top + SIDE, left : left + SIDE] = grey
    image = Image.fromarray(page)
    image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, default=[HERE / "ddpm.onnx"], metavar="MODEL")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("samples.png"))
    options = parser.parse_args()
    start = noises(options.count, options.seed)
    picture([sample(model, start, options.steps) for model in options.models], options.out)


if __name__ == "__main__":
    main()
