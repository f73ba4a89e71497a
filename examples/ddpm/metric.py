"""How well a denoiser does its task: `--metric examples/ddpm/metric.py:loss`.

    loss = −E ‖ε − f(x_t, t)‖² / 784

over held-out digits, random timesteps and noises, the same for every model: so what two models differ by is known much
better than either figure.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["judged", "loss"]

Arrays = dict[str, NDArray[Any]]
Runner = Callable[[Arrays], Arrays]


@lru_cache(maxsize=2)
def _samples(which: str) -> tuple[Arrays, NDArray[np.float32]]:
    found: tuple[Arrays, NDArray[np.float32]] = runpy.run_path(str(Path(__file__).with_name("data.py")))[which]()
    return found


def loss(run: Runner) -> float:
    """Minus the mean squared error of the noise, on the digits that may choose between models; higher is better."""
    return -_error(run, "choosing")


def judged(run: Runner) -> float:
    """The same on other digits, by which nothing is chosen: for `olm verify`."""
    return -_error(run, "judging")


def _error(run: Runner, which: str) -> float:
    samples, noise = _samples(which)
    return float(np.square(run(samples)["eps"].astype(np.float64) - noise).mean())
