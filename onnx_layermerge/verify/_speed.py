"""The measured speed-up of one model over another: interleaved A/B in one run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import onnx
import onnx_ir as ir

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import Packed, runnable_form, to_bytes
from onnx_layermerge.latency import MAX_ROUNDS, Backend, Failure, LatencyTable, Ratio, compare
from onnx_layermerge.latency.blocks import structure_of

__all__ = ["measured_speedup", "structure_key"]

Shapes = Mapping[str, tuple[int, ...]]
Progress = Callable[[int, int, str], None]


def content_key(model: bytes, shapes: Shapes) -> str:
    """Hash of the very bytes of a model."""
    bound = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
    return "sha256:" + hashlib.sha256(bound.encode() + b"\0" + model).hexdigest()[:24]


def structure_key(model: bytes, shapes: Shapes, *, learned: bool = True) -> str:
    """Hash of everything in a model that its time depends on, weights and names excluded; see ``structure_of``."""
    bound = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
    return structure_of(onnx.load_from_string(model), bound, learned=learned)


def measured_speedup(
    backend: Backend,
    original: ir.Model | bytes,
    compressed: ir.Model | bytes,
    shapes: Shapes,
    *,
    table: LatencyTable | None = None,
    cap_s: float = 20.0,
    max_rounds: int = MAX_ROUNDS,
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
        ModelError: the backend refuses one of the models, or ``compressed`` crashes or hangs it; a structure of
            ``compressed`` of which that is so is remembered, and not tried again.
        DeviceError: ``original`` crashes or hangs the backend, or the device was lost.
    """
    key_of = content_key if exact else structure_key
    (first, first_bytes), (second, second_bytes) = _forms(original), _forms(compressed)
    keys = key_of(first_bytes, shapes), key_of(second_bytes, shapes)
    if table is not None:
        known = table.get_pair(backend.describe(), *keys)
        if known is not None:
            return known, False
        refused = table.get(backend.describe(), keys[1])
        if refused is not None and isinstance(refused.value, Failure):
            raise ModelError(refused.value.reason)

    def remember(reason: str) -> None:
        if table is not None and not exact:
            table.put(backend.describe(), keys[1], "whole model", Failure(reason))

    ratio = compare(
        backend,
        first,
        second,
        shapes,
        sessions=sessions,
        cap_s=cap_s,
        max_rounds=max_rounds,
        target_half_width=target_half_width,
        seed=seed,
        progress=progress,
        refused=remember,
    )
    if table is not None:
        ratio = table.put_pair(backend.describe(), *keys, ratio)  # as every later run reads it
    return ratio, True


def _forms(model: ir.Model | bytes) -> tuple[bytes | Packed, bytes]:
    """What a backend takes, and what the keys are made of: one and the same where that is a whole message."""
    if isinstance(model, bytes):
        return model, model
    form = runnable_form(model)
    return form, form if isinstance(form, bytes) else to_bytes(model)
