"""Activations at a cut of the network, moved forward block by block so that no prefix is computed twice.

At position p the values that later nodes still read determine everything behind p.  They are kept for all samples, for
the original and for the compressed model, as long as they fit in ``BYTES``; where they do not, the last cut that did
serves on.  The first cut is the inputs, which are read from their source again and again where they are too many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil

import numpy as np
import onnx_ir as ir

from onnx_layermerge.data import Calibration
from onnx_layermerge.graph import Network
from onnx_layermerge.importance import part_runner

__all__ = ["Prefix"]

Arrays = dict[str, np.ndarray]
BYTES = 512 << 20


class _Inputs:
    """Batches of a model's inputs, at most ``images`` samples in all, read again whenever they are gone through."""

    def __init__(self, data: Calibration, batch: int, images: int) -> None:
        self._data, self._batch, self._images = data, batch, images
        self._fixed = any(spec.shape and isinstance(spec.shape[0], int) for spec in data.inputs)

    def __iter__(self) -> Iterator[Arrays]:
        seen = 0
        for feeds in self._data.batches(self._batch):
            take = min(self._images - seen, len(next(iter(feeds.values()))))
            # A model with a fixed batch size needs whole batches; then the last one may hold a few samples more.
            yield dict(feeds) if self._fixed else {k: v[:take] for k, v in feeds.items()}
            seen += take
            if seen >= self._images:
                break

    def __len__(self) -> int:
        there = len(self._data) // self._batch if self._fixed else ceil(len(self._data) / self._batch)
        return min(there, ceil(self._images / self._batch))


class Prefix:
    """Samples of both models at one cut; ``aliases`` name the values of the compressed model that were dropped."""

    def __init__(self, network: Network, data: Calibration, batch: int, images: int) -> None:
        """Up to ``images`` samples of ``data``, ``batch`` at once; inputs that do not fit in ``BYTES`` are not held.

        Raises:
            DataError: there is not even one whole batch, where the model takes no other.
        """
        self._network = network
        self._inputs = [info.name for info in network.inputs]
        inputs = _Inputs(data, batch, images)
        first = next(iter(inputs))
        fits = sum(value.nbytes for value in first.values()) * len(inputs) <= BYTES
        self.original: Sequence[Arrays] | _Inputs = list(inputs) if fits else inputs
        self.deployed = self.original

    def advance(self, model: ir.Model, position: int, aliases: Mapping[str, str]) -> None:
        """Move the cut to ``position``, in front of which every planned block of ``model`` is already replaced."""
        values = self._network.values
        read = [name for name in self._inputs if any(user >= position for user in self._network.users(values[name]))]
        live = [*read, *self._network.live_at(position)]
        one = next(iter(self.original))
        first = part_runner(self._network.model, _present(self._network.model, one), sorted(live))(one)
        if 2 * sum(value.nbytes for value in first.values()) * len(self.original) > BYTES:
            return
        met = sorted({aliases.get(name, name) for name in live})
        self.deployed = self._cut(model, self.deployed, met)
        self.original = self._cut(self._network.model, self.original, live)

    def _cut(self, model: ir.Model, batches: Sequence[Arrays] | _Inputs, names: Sequence[str]) -> list[Arrays]:
        run = part_runner(model, _present(model, next(iter(batches))), sorted(names))
        return [run(values) for values in batches]

    def runs(self, model: ir.Model, wanted: Sequence[str], met: Sequence[str]) -> Iterator[tuple[Arrays, Arrays]]:
        """For each batch, the values ``wanted`` of the original and ``met`` of ``model``."""
        original = part_runner(self._network.model, list(next(iter(self.original))), sorted(wanted))
        deployed = part_runner(model, _present(model, next(iter(self.deployed))), sorted(met))
        same = self.deployed is self.original
        for pair in ((one, one) for one in self.original) if same else zip(self.original, self.deployed, strict=True):
            yield original(pair[0]), deployed(pair[1])


def _present(model: ir.Model, values: Arrays) -> list[str]:
    """Those of the values that ``model`` still has: what only a replaced block read is gone."""
    known = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    return [name for name in values if name in known]
