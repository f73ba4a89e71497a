"""How many samples a step takes, and how many of them the models take at once."""

from __future__ import annotations

import os
from contextlib import suppress

import onnx_ir as ir

from onnx_layermerge.data import constant_outputs
from onnx_layermerge.errors import UsageError
from onnx_layermerge.flow._prepare import Prepared
from onnx_layermerge.graph import Session, random_feeds

__all__ = ["own_batch", "whole_batch"]


def own_batch(prepared: Prepared, student: ir.Model) -> int | None:
    """How many samples the models take at once, where that is fixed: an input says so; or an output that is computed
    does, and no other size runs, in the original as it was read or in ``student``, which keeps every Reshape."""
    network = prepared.network
    if any(info.shape and isinstance(info.shape[0], int) for info in network.inputs):
        return prepared.batch
    for model in (network.model, student):
        constant = constant_outputs(model)
        computed = [value.shape for value in model.graph.outputs if value.name not in constant]
        written = sorted({shape[0] for shape in computed if shape and isinstance(shape[0], int)})
        if not written:
            continue
        taken = _taken(model, prepared, {prepared.batch, *written})
        for own in (prepared.batch, *written):
            # One more is what a Reshape to so many rows cannot take, unless the rows happen to divide it.
            others = {1, own + 1, 2 * own + 1} - {own}
            if own in taken and _taken(model, prepared, others) != others:
                return own
    return None


def _taken(model: ir.Model, prepared: Prepared, sizes: set[int]) -> set[int]:
    """Those numbers of samples on which the model runs."""
    found: set[int] = set()
    try:
        session = Session(model, once=True)
    except Exception:  # onnxruntime's exceptions share no public base class; torch may know what it does not
        return found
    for size in sizes:
        shapes = {name: (size, *shape[1:]) for name, shape in prepared.bound.items()}
        with suppress(Exception):
            session.run(random_feeds(prepared.network.inputs, shapes))
            found.add(size)
    return found


def whole_batch(batch: int, own: int | None) -> int:
    """In every process a multiple of what the model takes at once.

    Raises:
        UsageError: there are processes that would get no sample.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if own is not None:
        return max(1, batch // (own * processes)) * own * processes
    if batch < processes:
        raise UsageError(f"--batch {batch} leaves some of the {processes} processes without a sample; give more.")
    return batch
