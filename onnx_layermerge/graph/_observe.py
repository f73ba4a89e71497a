"""Types and shapes that inference cannot tell, as behind an operator of another domain, noted from real runs.

A value without a type cannot be an input of a part that is cut out, so every value needs one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_layermerge.graph._quiet import quiet
from onnx_layermerge.graph._session import Session, extract
from onnx_layermerge.graph._shapes import infer_shapes

__all__ = ["note_types"]

Arrays = Mapping[str, np.ndarray]


def note_types(model: ir.Model, feeds: Arrays) -> None:
    """Give values of the main graph that have no type theirs, as ``model`` makes them on ``feeds``, and their rank.

    A size is noted where it stays the same on other values and, along every axis of the inputs that the model leaves
    open, on twice the size; it may depend on either elsewhere, and is left open.  A model that does not run stays
    without.
    """
    if not _untyped(model):
        return
    with quiet():
        infer_shapes(model, strict=False)
        # Operators that onnx does not know come first: behind them it can go on by itself.
        foreign = [value for value in _untyped(model) if _is_foreign(value.producer())]
        if foreign and _note(model, foreign, feeds):
            infer_shapes(model, strict=False)
        rest = _untyped(model)
        if rest:
            _note(model, rest, feeds)


def _untyped(model: ir.Model) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs if value.type is None and value.name]


def _is_foreign(node: ir.Node | None) -> bool:
    return node is not None and node.domain not in ("", "ai.onnx")


def _note(model: ir.Model, values: list[ir.Value], feeds: Arrays) -> bool:
    """Whether ``model`` ran, and so ``values`` are noted."""
    try:
        session = Session(extract(model, list(feeds), [str(value.name) for value in values]), once=True)
        first = session.run(feeds)
    except Exception:  # onnxruntime's exceptions share no public base class; what cannot be seen stays unknown
        return False
    try:
        second = session.run(_others(model, feeds))
    except Exception:  # as above; some models take one size only, whatever their inputs say
        second = {}
    for value in values:
        seen, again = first[str(value.name)], second.get(str(value.name))
        if not isinstance(seen, np.ndarray):
            continue  # a sequence, or an optional without a value
        value.type = ir.TensorType(ir.DataType.from_numpy(seen.dtype))
        same = again.shape if isinstance(again, np.ndarray) and again.ndim == seen.ndim else (None,) * seen.ndim
        value.shape = ir.Shape([one if one == two else None for one, two in zip(seen.shape, same, strict=True)])
    return True


def _others(model: ir.Model, feeds: Arrays) -> dict[str, np.ndarray]:
    """Feeds of other values, and of twice the size along every axis that is open."""
    given = {value.name: value for value in model.graph.inputs}
    found: dict[str, np.ndarray] = {}
    for name, array in feeds.items():
        for axis, size in enumerate(given[name].shape or ()):
            if not isinstance(size, int):
                array = np.concatenate([array, array], axis)
        found[name] = -array / 2 if array.dtype.kind == "f" else np.flip(array)
    return found
