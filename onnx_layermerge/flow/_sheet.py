"""One network's blocks by key: what each candidate replaces, what it puts there, how useful it may be.

Keys are hashes of built blocks, and building hundreds of them takes seconds.  They depend on the file, the shapes and
the code alone, so those of a large network are remembered in the user's cache folder, under a digest of all three;
the models themselves are built when they are timed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_layermerge.candidates import Candidate, cost_macs
from onnx_layermerge.flow._remembered import keep, place
from onnx_layermerge.graph import to_bytes
from onnx_layermerge.latency import BlockSpec
from onnx_layermerge.latency.blocks import region_block, replacement_block
from onnx_layermerge.verify import structure_key

if TYPE_CHECKING:
    from onnx_layermerge.flow._prepare import Prepared

__all__ = ["Sheet", "Use", "sheet_of"]

# Below this many candidates building the blocks anew takes less than a second.
REMEMBERED_FROM = 100
MOST_REMEMBERED = 64
# What decides how a block is built and hashed.
_CODE = ("graph/**/*.py", "merge/**/*.py", "candidates/**/*.py", "latency/blocks.py", "verify/_speed.py")


@dataclass(frozen=True)
class Use:
    """A candidate with the keys of the block it replaces and of the block with it in place; work in MACs."""

    candidate: Candidate
    old: str
    new: str
    old_macs: int
    new_macs: int


@dataclass(frozen=True)
class Sheet:
    """All uses of one network, and the blocks to time by key; ``base`` is the key of the whole network."""

    prepared: Prepared
    base: str
    uses: tuple[Use, ...]
    blocks: Mapping[str, BlockSpec]


def sheet_of(prepared: Prepared) -> Sheet:
    """The sheet of a network, with the keys from memory where it was seen before."""
    network, shapes = prepared.network, prepared.shapes
    memory = _Memory.of(prepared)
    specs: dict[str, BlockSpec] = {}
    macs: dict[tuple[int, int], int] = {}
    uses = []
    for candidate in prepared.candidates:
        region = candidate.region
        where = f"{region.start}:{region.stop}:{region.exit}"
        old = memory.block(where, functools.partial(region_block, network, region, shapes))
        new = memory.block(candidate.structure, functools.partial(replacement_block, network, candidate, shapes))
        span = (region.start, region.stop)
        if span not in macs:
            macs[span] = network.cost_macs(*span, dict(shapes))
        uses.append(Use(candidate, old.key, new.key, macs[span], cost_macs(candidate, shapes[region.entry])))
        specs.setdefault(old.key, old)
        specs.setdefault(new.key, new)
    base = memory.key("whole network", lambda: structure_key(to_bytes(network.model), prepared.bound))
    if len(uses) >= REMEMBERED_FROM:
        memory.write()
    return Sheet(prepared, base, tuple(uses), specs)


@dataclass
class _Memory:
    """Keys by what they are the keys of, for one network in one shape and one version of the code."""

    path: Path
    known: dict[str, str]
    labels: dict[str, str]
    made: dict[str, BlockSpec] = field(default_factory=dict)
    changed: bool = False

    @classmethod
    def of(cls, prepared: Prepared) -> _Memory:
        bound = sorted((name, list(shape)) for name, shape in prepared.bound.items())
        path = place("keys", prepared.network.digest, bound, code=_CODE).with_suffix(".json")
        known, labels = {}, {}
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            held = json.loads(path.read_text(encoding="utf-8"))
            pairs = {str(name): (str(key), str(label)) for name, (key, label) in held.items()}
            known = {name: key for name, (key, _) in pairs.items()}
            labels = {name: label for name, (_, label) in pairs.items()}
        return cls(path, known, labels)

    def block(self, name: str, build: Callable[[], BlockSpec]) -> BlockSpec:
        """The block, built now only if its key is not known."""
        name = hashlib.sha256(name.encode()).hexdigest()[:20]
        if name not in self.made:
            if name in self.known:
                whole = functools.cache(build)
                self.made[name] = BlockSpec(
                    self.known[name],
                    self.labels[name],
                    build=lambda copies: whole().build(copies),
                    shapes=lambda copies: whole().shapes(copies),
                )
            else:
                spec = self.made[name] = build()
                self.known[name], self.labels[name], self.changed = spec.key, spec.label, True
        return self.made[name]

    def key(self, name: str, compute: Callable[[], str]) -> str:
        if name not in self.known:
            self.known[name], self.labels[name], self.changed = compute(), name, True
        return self.known[name]

    def write(self) -> None:
        """Keep for the next run."""
        if self.changed:
            text = {name: [key, self.labels[name]] for name, key in sorted(self.known.items())}
            keep(self.path, json.dumps(text).encode(), most=MOST_REMEMBERED)
