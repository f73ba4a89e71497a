"""The measured speed-up of one model over another: interleaved A/B in one run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import onnx
import onnx_ir as ir

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import Packed, runnable_form, to_bytes
from onnx_layermerge.latency import Backend, Failure, LatencyTable, Ratio, Runnable, clock_of, interleave
from onnx_layermerge.latency.blocks import structure_of

__all__ = ["measured_speedup", "structure_key"]

Shapes = Mapping[str, tuple[int, ...]]
Progress = Callable[[int, int, str], None]


def content_key(model: bytes, shapes: Shapes) -> str:
    """Hash of the very bytes of a model."""
    bound = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
    return "sha256:" + hashlib.sha256(bound.encode() + b"\0" + model).hexdigest()[:24]


def structure_key(model: bytes, shapes: Shapes) -> str:
    """Hash of everything in a model that its time depends on, weights and names excluded."""
    bound = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
    return structure_of(onnx.load_from_string(model), bound)


def measured_speedup(
    backend: Backend,
    original: ir.Model | bytes,
    compressed: ir.Model | bytes,
    shapes: Shapes,
    *,
    table: LatencyTable | None = None,
    cap_s: float = 20.0,
    target_half_width: float = 0.01,
    seed: int = 0,
    exact: bool = False,
    sessions: int = 1,
    progress: Progress = lambda done, total, what: None,
) -> tuple[Ratio, bool]:
    """Speed-up of ``compressed`` over ``original``, and whether it was measured now (False: read from ``table``).

    The table knows models by structure, or with ``exact`` by content, weights included.  With several ``sessions``, the
    models are built anew for each, and the session whose ratio is the median speaks for all.

    Raises:
        ModelError: the backend refuses one of the models; a refused structure of ``compressed`` is remembered.
    """
    key_of = content_key if exact else structure_key
    datas = [each if isinstance(each, bytes) else to_bytes(each) for each in (original, compressed)]
    keys = key_of(datas[0], shapes), key_of(datas[1], shapes)
    if table is not None:
        known = table.get_pair(backend.describe(), *keys)
        if known is not None:
            return known, False
        refused = table.get(backend.describe(), keys[1])
        if refused is not None and isinstance(refused.value, Failure):
            raise ModelError(refused.value.reason)
    first, second = (each if isinstance(each, bytes) else runnable_form(each) for each in (original, compressed))
    found = []
    for session in range(sessions):
        # What differs between two sessions of one model (where its memory came to lie) is not seen within one.
        a = backend.build(first, shapes)
        try:
            b = _built(backend, second, shapes, None if exact else table, keys[1])
            try:
                found.append(
                    interleave(
                        a,
                        b,
                        clock=clock_of(backend),
                        cap_s=cap_s / sessions,
                        target_half_width=target_half_width,
                        seed=seed + session,
                        progress=progress,
                    )
                )
            finally:
                b.close()
        finally:
            a.close()
    ratio = sorted(found, key=lambda each: each.ratio)[len(found) // 2]
    if table is not None:
        ratio = table.put_pair(backend.describe(), *keys, ratio)  # as every later run reads it
    return ratio, True


def _built(
    backend: Backend, model: bytes | Packed, shapes: Shapes, table: LatencyTable | None, key: str
) -> Runnable:
    """The runnable; a refusal is recorded first, so that no later run tries again."""
    try:
        return backend.build(model, shapes)
    except ModelError as error:
        if table is not None:
            table.put(backend.describe(), key, "whole model", Failure(str(error)))
        raise
