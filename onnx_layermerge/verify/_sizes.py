"""Do both models still agree on the sizes of their outputs where an input's size is left open?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir

from onnx_layermerge.errors import OutputError
from onnx_layermerge.graph import InputInfo, Session, random_feeds

__all__ = ["check_sizes"]

Shapes = Mapping[str, tuple[int, ...]]


def check_sizes(original: ir.Model, compressed: ir.Model, inputs: Iterable[InputInfo], bound: Shapes) -> None:
    """Run both on one other size of every kind of open dimension and compare the shapes of all outputs.

    What the original itself does not run on is not asked of the other.

    Raises:
        OutputError: the compressed model fails, or answers in other shapes, where the original works.
    """
    sessions: list[Session] = []
    infos = tuple(inputs)
    for shapes in _others(infos, bound):
        if not sessions:
            sessions = [Session(original), Session(compressed)]
        feeds = random_feeds(infos, shapes)
        try:
            wanted = sessions[0].run(feeds)
        except Exception:  # onnxruntime's errors share no public base; this size is not one the model takes
            continue
        try:
            got = sessions[1].run(feeds)
        except Exception as error:
            raise OutputError(
                f"the compressed model does not run on inputs of {dict(shapes)} as the input model does"
                f" ({str(error).splitlines()[0][:150]}); please report it."
            ) from error
        for name, value in wanted.items():
            if got[name].shape != value.shape:
                raise OutputError(
                    f"output '{name}' has shape {got[name].shape} instead of {value.shape} for inputs of"
                    f" {dict(shapes)}; please report it."
                )


def _others(inputs: tuple[InputInfo, ...], bound: Shapes) -> Iterator[dict[str, tuple[int, ...]]]:
    """One more sample; and larger images, by a step that survives five halvings, dims of one name alike."""
    for first, step in ((True, 1), (False, 32)):
        shapes = {}
        for info in inputs:
            sizes = list(bound[info.name])
            for axis, dim in enumerate(info.shape):
                if not isinstance(dim, int) and (axis == 0) == first:
                    sizes[axis] += step
            shapes[info.name] = tuple(sizes)
        if shapes != {info.name: tuple(bound[info.name]) for info in inputs}:
            yield shapes
