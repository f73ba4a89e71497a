"""Samples and, for every third, one like it that no source holds: to judge plans by more than what they were fitted on.

A plan can follow a model closely on what the calibration shows and lose it just outside.  Validation images of the same
source do not see that; pictures of another source do, and where there are none, mixtures stand in for them: two samples
blended (Zhang et al. 2018, *mixup*, of which only the inputs are used: the model itself says what is right), with
another contrast and with noise, held within the range of the two.  docs/adr/0013 says what that was worth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from onnx_layermerge.data._calibration import Calibration
from onnx_layermerge.data._sources import Index
from onnx_layermerge.data._specs import Arrays, InputSpec

__all__ = ["with_mixtures"]

BLEND = (0.5, 0.9)
CONTRAST = (0.6, 1.2)
NOISE = (0.0, 0.15)
# Compressed models lie about three times as far from the original on mixtures as on samples: so both weigh alike.
FOR_EACH = 1 / 3


def with_mixtures(data: Calibration, seed: int) -> Calibration:
    """The samples, then a mixture for every third; the data themselves where no input can be mixed.

    Inputs of floats with two axes or more beside that of the batch are mixed (images, signals, volumes); all others
    (time steps, sizes, masks of whole numbers) are those of the first of the two samples.
    """
    if not any(_mixes(spec) for spec in data.inputs) or len(data) < 2:
        return data
    store = _Mixtures(data, seed)
    digest = data.digest()
    prints = [hashlib.sha256(f"{digest} {seed} {number}".encode()).digest() for number in range(len(store))]
    return Calibration(store, data.inputs, data.source, prints, np.arange(len(store), dtype=np.intp))


def _mixes(spec: InputSpec) -> bool:
    return len(spec.shape) >= 3 and np.issubdtype(spec.dtype, np.floating)


class _Mixtures:
    """A store of the samples and their mixtures; these are made anew whenever they are asked for, always the same."""

    def __init__(self, data: Calibration, seed: int) -> None:
        self._data, self._seed = data, seed
        self._names = {spec.name for spec in data.inputs if _mixes(spec)}

    def __len__(self) -> int:
        return len(self._data) + max(1, round(FOR_EACH * len(self._data)))

    def rows(self, indices: Index) -> Arrays:
        size = len(self._data)
        found = self._data.batch(indices % size)
        places = np.flatnonzero(indices >= size)
        if not places.size:
            return found
        mixtures = indices[places]
        draws = [np.random.default_rng([self._seed, int(number)]) for number in mixtures]
        # Any but the sample itself: that would be no mixture.
        steps = [1 + int(rng.integers(size - 1)) for rng in draws]
        others = self._data.batch((mixtures + steps) % size)
        for name in self._names:
            found[name][places] = self._mixed(found[name][places], others[name], draws)
        return found

    @staticmethod
    def _mixed(ones: np.ndarray, others: np.ndarray, draws: Iterable[np.random.Generator]) -> np.ndarray:
        """[n, …] of either → [n, …] in the same dtype."""
        result = np.empty_like(ones)
        for place, (one, other, rng) in enumerate(zip(ones, others, draws, strict=True)):
            low, high = min(one.min(), other.min()), max(one.max(), other.max())
            share = rng.uniform(*BLEND)
            blend = share * one.astype(np.float64) + (1 - share) * other.astype(np.float64)
            blend = blend.mean() + rng.uniform(*CONTRAST) * (blend - blend.mean())
            blend += rng.uniform(*NOISE) * blend.std() * rng.standard_normal(blend.shape)
            result[place] = np.clip(blend, low, high)
        return result
