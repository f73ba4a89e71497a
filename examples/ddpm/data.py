"""The digits of examples/mnist as a denoiser sees them: grey values in [−1, 1], mixed with noise.

The schedule is the cosine one of 1,000 steps (Nichol and Dhariwal 2021, equation 17):

    x_t = √ā_t · x_0 + √(1 − ā_t) · ε,   ε ~ N(0, I)                       (Ho et al. 2020, equation 4)
    ā_t = f(t + 1) / f(0),   f(u) = cos²( (u/T + s) / (1 + s) · π/2 ),   s = 0.008,   t = 0 … T − 1

t = 0 is the least noise. In no step ā falls by more than a factor of 1,000, as the authors have it.

The split is that of examples/mnist/data.py: the 1,000 digits that it holds out are seen by no training and no
calibration here either. Half of them may choose between models (metric.py), the other half only judges.

As calibration data: `olm compress ddpm.onnx small.onnx --calib examples/ddpm/data.py:calibration`.
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALPHA_BAR", "SEED", "STEPS", "calibration", "choosing", "images", "judging", "noised", "samples"]

HERE = Path(__file__).resolve().parent
SEED = 30
STEPS = 1000
# Each image with so many timesteps and noises: the loss of one sample says little.
DRAWS_CHOOSING, DRAWS_JUDGING = 2, 4

Images = NDArray[np.float32]
Samples = dict[str, NDArray[Any]]


def _alpha_bar(offset: float = 0.008) -> NDArray[np.float64]:
    f = np.cos((np.arange(STEPS + 1) / STEPS + offset) / (1 + offset) * np.pi / 2) ** 2
    return np.cumprod(np.maximum(f[1:] / f[:-1], 1e-3))


# [STEPS] float64, falling from nearly 1 to nearly 0.
ALPHA_BAR = _alpha_bar()


def noised(clean: Images, t: NDArray[np.int64], noise: Images) -> Images:
    """x_t (N, 1, 28, 28) float32 of images and noise of that shape, with one timestep each: t (N,) in 0 … STEPS − 1."""
    alpha_bar = ALPHA_BAR[t][:, None, None, None]
    return (np.sqrt(alpha_bar) * clean + np.sqrt(1 - alpha_bar) * noise).astype(np.float32)


@lru_cache(maxsize=1)
def images() -> tuple[Images, Images]:
    """(train, held out): (4000, 1, 28, 28) and (1000, 1, 28, 28) float32 in [−1, 1]; the latter in a shuffled order.

    Raises FileNotFoundError, saying what to install, when the images are not there.
    """
    # By its path: a plain `import data` would find this very file.
    train_x, _, test_x, _ = runpy.run_path(str(HERE.parent / "mnist" / "data.py"))["load"]()
    order = np.random.default_rng(SEED).permutation(len(test_x))  # the table is sorted by digit
    return train_x * 2 - 1, test_x[order] * 2 - 1


def samples(clean: Images, seed: int) -> tuple[Samples, Images]:
    """Each image once, in a shuffled order, with a random timestep and noise; and that noise.

    Returns ({"x": (N, 1, 28, 28) float32, "t": (N,) int64}, (N, 1, 28, 28) float32). Timesteps are spread evenly:
    one in each N-th part of the schedule, so that few samples cover all of it.
    """
    rng = np.random.default_rng(seed)
    n = len(clean)
    t = ((rng.permutation(n) + rng.random(n)) * STEPS / n).astype(np.int64)
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    return {"x": noised(clean[rng.permutation(n)], t, noise), "t": t}, noise


def calibration() -> Iterator[Samples]:
    """Yield {"x": (1, 1, 28, 28) float32, "t": (1,) int64} for each of the 4,000 train images."""
    found, _ = samples(images()[0], SEED + 1)
    for k in range(len(found["t"])):
        yield {name: values[k : k + 1] for name, values in found.items()}


def choosing() -> tuple[Samples, Images]:
    """`samples` of 500 held-out images, each twice, always the same: by these a metric may choose between models."""
    return samples(np.concatenate([images()[1][:500]] * DRAWS_CHOOSING), SEED + 2)


def judging() -> tuple[Samples, Images]:
    """`samples` of the 500 other held-out images, each four times: nothing is chosen by these."""
    return samples(np.concatenate([images()[1][500:]] * DRAWS_JUDGING), SEED + 3)
