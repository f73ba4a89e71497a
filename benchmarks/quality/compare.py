"""Paired comparison of two models on the same held-out images.

McNemar, exact: of the n images that one of two models gets right and the other wrong, b fall to the first; if both
were equally good, b ~ Binomial(n, 1/2).  Two-sided p.

Bootstrap: several views of one image are not independent, so whole images (or pictures that crops come from) are drawn
with replacement, all their views together; percentile interval of the difference of means.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import binomtest

__all__ = ["DRAWS", "bits_to_hex", "bootstrap", "bootstrap_of", "hex_to_bits", "mcnemar", "spearman", "snr_db"]

DRAWS = 10_000


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided exact p for bool [N], [N]: right or wrong on the same images; 1.0 where they never differ."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def bootstrap(difference: np.ndarray, owner: np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """95 % interval of the mean of ``difference`` [N], drawing whole owners; ``owner`` [N] says whose each one is."""
    names, index = np.unique(owner, return_inverse=True)
    sums, counts = np.bincount(index, weights=difference), np.bincount(index)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for start in range(0, draws, 500):  # bounds the memory of the draws
        picked = rng.integers(len(names), size=(min(500, draws - start), len(names)))
        means[start : start + len(picked)] = sums[picked].sum(axis=1) / counts[picked].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_of(
    statistic: Callable[[np.ndarray], float], owner: np.ndarray, *, seed: int = 0, draws: int = 1000
) -> tuple[float, float]:
    """95 % interval of any statistic of sample numbers, drawing whole owners."""
    names = np.unique(owner)
    members = [np.flatnonzero(owner == name) for name in names]
    rng = np.random.default_rng(seed)
    found = [
        statistic(np.concatenate([members[k] for k in rng.integers(len(names), size=len(names))]))
        for _ in range(draws)
    ]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def spearman(wanted: np.ndarray, got: np.ndarray) -> float:
    """Rank correlation of two columns [N]; 0 where one is constant."""
    from scipy.stats import spearmanr

    if np.ptp(wanted) == 0 or np.ptp(got) == 0:
        return 0.0
    return float(spearmanr(wanted, got).statistic)


def snr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    """10 log10(spread of the original / squared error) over samples [N]; ∞ for equal columns."""
    exact = wanted.astype(np.float64)
    error = float(((got - exact) ** 2).sum())
    spread = float(((exact - exact.mean()) ** 2).sum())
    if error == 0:
        return float("inf")
    return float(10 * np.log10(spread / error)) if spread > 0 else float("-inf")


def bits_to_hex(bits: np.ndarray) -> str:
    """Booleans [N] as hexadecimal digits, first one in the highest bit; what fills the last byte is 0."""
    return np.packbits(bits.astype(bool)).tobytes().hex()


def hex_to_bits(text: str, count: int) -> np.ndarray:
    """The other way: bool [count]."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(bool)
