"""Does a prepared model still compute what the file does?  Both are run on the same random inputs.

The distance of two outputs is max|y − y'| / max|y| over the elements that are finite in the file's own output.  It may
be at most the tolerance of the least precise type that the model computes in.  A model can amplify rounding, though:
where it answers to a change of its inputs in the last place by more than that, it cannot be held to it.  So before a
step is blamed, that answer is measured, and may stretch the tolerance, up to ``_MOST_STRETCH``.  A model whose answer
is beyond even that tells nothing about what was done to it, and is never called equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph._graphs import all_graphs, all_nodes
from onnx_layermerge.graph._pack import Packed
from onnx_layermerge.graph._quiet import quiet
from onnx_layermerge.graph._session import Session

__all__ = ["TOLERANCES", "Reference", "Uncheckable", "Unrunnable", "distance", "reference", "tolerance_of"]

Arrays = Mapping[str, np.ndarray]

TOLERANCES = {
    ir.DataType.DOUBLE: 1e-10,
    ir.DataType.FLOAT: 1e-5,
    ir.DataType.FLOAT16: 2e-3,
    ir.DataType.BFLOAT16: 2e-2,
}
"""Largest allowed distance by the type that is computed in."""

_MOST_STRETCH = 100.0
# Untrained weights may blow up what enters; smaller inputs keep it in range.
_SCALES = (1.0, 1e-2, 1e-6)
_STANDARD = ("", "ai.onnx")


class Uncheckable(Exception):
    """On this model the check cannot tell right from wrong, for the reason in the message; the model may be fine."""


class Unrunnable(Uncheckable):
    """No runtime here has an operator of the model."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What the file's own model gives: ``wanted`` on ``feeds``; ``original`` returns that model."""

    original: Callable[[], ir.Model]
    feeds: Arrays
    wanted: Mapping[str, Any]
    tolerance: float

    def check(self, model: ir.Model) -> str | None:
        """None when ``model`` computes the same, else what is different, in words.

        Raises:
            Uncheckable: the outputs differ, but no more than rounding alone can move those of the file's own model.
        """
        try:
            got = _run(model, self.feeds)
        except Exception as error:  # runtimes raise what they like; whatever it is, the model no longer works
            return f"it no longer runs ({_first_line(error)})"
        worst, where = 0.0, ""
        for name, value in self.wanted.items():
            if not isinstance(value, np.ndarray):
                continue  # sequences and maps hold what other outputs hold
            other = got.get(name)
            if not isinstance(other, np.ndarray) or other.shape != value.shape or other.dtype != value.dtype:
                return f"output '{name}' changed its shape or type"
            far = distance(value, other)
            if not far <= worst:
                worst, where = far, name
        if worst <= self.tolerance:
            return None
        rounding = self._rounding()
        if worst <= min(rounding, _MOST_STRETCH * self.tolerance):
            return None
        if worst <= rounding:
            raise Uncheckable(f"rounding alone moves its outputs by {rounding:.1e} of their largest value")
        return f"output '{where}' moved by {worst:.1e} of its largest value"

    def _rounding(self) -> float:
        """How far the outputs may move by rounding: four times as far as they do when all inputs move by one bit."""
        nudged = {
            name: np.nextafter(value, np.inf).astype(value.dtype) if value.dtype.kind == "f" else value
            for name, value in self.feeds.items()
        }
        moved = _run(self.original(), nudged)
        own = [distance(value, moved[name]) for name, value in self.wanted.items() if isinstance(value, np.ndarray)]
        return 4 * max((far for far in own if np.isfinite(far)), default=0.0)


def distance(wanted: np.ndarray, got: np.ndarray) -> float:
    """max|wanted − got| / max|wanted| where ``wanted`` is finite; inf where ``got`` is not finite there.

    0 for types that are not floating: which of two nearly equal scores comes first is not a matter of preparing.
    """
    if wanted.dtype.kind not in "fV" or wanted.size == 0:
        return 0.0
    first, second = wanted.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(first)
    if not finite.any():
        return 0.0
    first, second = first[finite], second[finite]
    if not np.isfinite(second).all():
        return float("inf")
    scale = float(np.abs(first).max()) or 1.0
    return float(np.abs(first - second).max()) / scale


def tolerance_of(model: ir.Model) -> float:
    """That of the least precise floating type of any value in the model."""
    types = {value.dtype for value in model.graph.inputs}
    for graph in all_graphs(model.graph):
        types |= {value.dtype for value in graph.initializers.values()}
        types |= {value.dtype for node in graph for value in node.outputs}
    return max((TOLERANCES[each] for each in types if each in TOLERANCES), default=TOLERANCES[ir.DataType.FLOAT])


def reference(
    original: ir.Model,
    source: str,
    trials: Iterable[Arrays],
    *,
    again: Callable[[], ir.Model] | None = None,
    packed: Packed | None = None,
) -> Reference:
    """Run ``original`` on the first of ``trials`` (feeds) that it takes.

    With ``again``, which makes it anew, ``original`` is not kept and may be changed afterwards.  ``packed`` is the same
    model for a runtime, where the caller has that at hand.

    Raises:
        ModelError: it runs on none of them, or all that it gives is NaN and Inf.
        Unrunnable: an operator of it has no implementation here.
    """
    refused: Exception | None = None
    for feeds in trials:
        try:
            wanted = _run(original, feeds, packed)
        except Exception as error:  # runtimes raise what they like
            if _lacks_operator(original, error):
                raise Unrunnable(_first_line(error)) from error
            refused = refused or error
            continue
        some: Reference | None = None
        for other in _ranges(feeds):
            if other is not feeds:
                wanted = _run(original, other, packed)
            found = Reference(again or (lambda: original), other, wanted, tolerance_of(original))
            if all(_all_finite(value) for value in wanted.values()):
                return found
            floats = [value for value in wanted.values() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
            if not floats or any(np.isfinite(value).any() for value in floats):
                some = some or found
        if some is None:
            raise ModelError(
                f"{source} gives nothing but NaN and Inf on random inputs, whether around zero or positive; check its "
                "weights."
            )
        return some
    said = "" if refused is None else f" ({_first_line(refused)})"
    raise ModelError(f"onnxruntime cannot run {source}{said}; repair it, or update onnxruntime.") from refused


def _ranges(feeds: Arrays) -> Iterator[Arrays]:
    """``feeds`` around zero; smaller; positive, for a root or a logarithm at the front; and within 0…1."""
    floats = {name: value for name, value in feeds.items() if value.dtype.kind == "f" and value.size}
    yield feeds
    for scale in _SCALES[1:]:
        yield {**feeds, **{name: (value * scale).astype(value.dtype) for name, value in floats.items()}}
    yield {**feeds, **{name: np.abs(value) for name, value in floats.items()}}
    yield {**feeds, **{name: np.abs(value) / np.abs(value).max() for name, value in floats.items()}}


def _all_finite(value: Any) -> bool:
    return not isinstance(value, np.ndarray) or value.dtype.kind != "f" or bool(np.isfinite(value).all())


def _run(model: ir.Model, feeds: Arrays, packed: Packed | None = None) -> dict[str, Any]:
    """Outputs by name: onnxruntime's, or those of onnx's reference implementation for types it has no kernels for."""
    if packed is not None:
        # What is wrong is said, and what other runtimes there are is tried, below.
        with suppress(Exception):
            return dict(Session(packed, once=True).run(feeds))
    try:
        return dict(Session(model, once=True).run(feeds))
    except Exception as error:  # onnxruntime's exceptions share no public base class
        if not _lacks_kernel(error) or _custom(model):
            raise
        from onnx.reference import ReferenceEvaluator

        with quiet():
            proto = ir.to_proto(model)
        names = [value.name for value in proto.graph.output]
        if not isinstance(proto, onnx.ModelProto):
            raise
        try:
            return dict(zip(names, ReferenceEvaluator(proto).run(names, dict(feeds)), strict=True))
        except Exception:  # of an operator that it does not have either, onnxruntime says it better
            raise error from None


def _lacks_kernel(error: Exception) -> bool:
    return type(error).__name__ == "NotImplemented" or "NOT_IMPLEMENTED" in str(error)


def _custom(model: ir.Model) -> bool:
    return any(node.domain not in _STANDARD for node in all_nodes(model.graph))


def _lacks_operator(model: ir.Model, error: Exception) -> bool:
    unknown = "is not a registered function/op" in str(error) or "No Op registered for" in str(error)
    return _lacks_kernel(error) or (unknown and _custom(model))


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")[:200]
