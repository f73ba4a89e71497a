"""Activations at a cut of the network, moved forward block by block so that no prefix is computed twice.

At position p the values that later nodes still read determine everything behind p.  They are kept for all samples, for
the original and for the compressed model, as long as they fit in ``BYTES``; where they do not, the last cut that did
serves on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnx_layermerge.graph import Network
from onnx_layermerge.importance import part_runner

__all__ = ["Prefix"]

Arrays = dict[str, np.ndarray]
BYTES = 512 << 20


class Prefix:
    """Samples of both models at one cut; ``aliases`` name the values of the compressed model that were dropped."""

    def __init__(self, network: Network, batches: Iterable[Mapping[str, np.ndarray]], images: int) -> None:
        self._network = network
        self._inputs = [info.name for info in network.inputs]
        fixed = any(info.shape and isinstance(info.shape[0], int) for info in network.inputs)
        self.original: list[Arrays] = []
        seen = 0
        for feeds in batches:
            take = min(images - seen, len(next(iter(feeds.values()))))
            # A model with a fixed batch size needs whole batches; then the last one may hold a few samples more.
            self.original.append(dict(feeds) if fixed else {k: v[:take] for k, v in feeds.items()})
            seen += take
            if seen >= images:
                break
        self.deployed = self.original

    def advance(self, model: ir.Model, position: int, aliases: Mapping[str, str]) -> None:
        """Move the cut to ``position``, in front of which every planned block of ``model`` is already replaced."""
        values = self._network.values
        read = [name for name in self._inputs if any(user >= position for user in self._network.users(values[name]))]
        live = [*read, *self._network.live_at(position)]
        first = self._cut(self._network.model, self.original[:1], live)[0]
        if 2 * sum(value.nbytes for value in first.values()) * len(self.original) > BYTES:
            return
        met = sorted({aliases.get(name, name) for name in live})
        self.deployed = self._cut(model, self.deployed, met)
        self.original = self._cut(self._network.model, self.original, live)

    def _cut(self, model: ir.Model, batches: Sequence[Arrays], names: Sequence[str]) -> list[Arrays]:
        run = part_runner(model, _present(model, batches[0]), sorted(names))
        return [run(values) for values in batches]

    def runs(self, model: ir.Model, wanted: Sequence[str], met: Sequence[str]) -> Iterator[tuple[Arrays, Arrays]]:
        """For each batch, the values ``wanted`` of the original and ``met`` of ``model``."""
        original = part_runner(self._network.model, list(self.original[0]), sorted(wanted))
        deployed = part_runner(model, _present(model, self.deployed[0]), sorted(met))
        for one, other in zip(self.original, self.deployed, strict=True):
            yield original(one), deployed(other)


def _present(model: ir.Model, values: Arrays) -> list[str]:
    """Those of the values that ``model`` still has: what only a replaced block read is gone."""
    known = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    return [name for name in values if name in known]
