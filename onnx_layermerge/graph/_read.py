"""File → ``Network``: load, fold, check the folding on random data, lay out on a line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.graph._bfloat16 import widen
from onnx_layermerge.graph._collector import without_collector
from onnx_layermerge.graph._convs import Conv, conv_of
from onnx_layermerge.graph._equivalence import Reference, Uncheckable, reference
from onnx_layermerge.graph._graphs import all_graphs, all_nodes
from onnx_layermerge.graph._load import converted_from, load
from onnx_layermerge.graph._network import InputInfo, Network
from onnx_layermerge.graph._normalise import LISTING, Step, normalise
from onnx_layermerge.graph._observe import note_types
from onnx_layermerge.graph._pack import Packed

__all__ = ["bind_shapes", "load_runnable", "network_of", "random_feeds", "read"]

# Sizes tried for dynamic dims that nothing binds: the usual one, then what models of other families take.
_GUESSES = (224, 256, 64, 512, 32)
# Elements of an input; a guess for three dynamic dims soon means gigabytes.
_LARGEST_GUESS = 2**22
_CHUNK_BYTES = 2**20
_MOST_READ_BYTES = 2**24


def load_runnable(path: str | Path) -> ir.Model:
    """The model in ``path`` as the runtimes here can run it: what is bfloat16 in the file is float32.

    Raises:
        ModelError: as :func:`load`.
    """
    model = load(path)
    widen(model)
    return model


@without_collector()
def read(path: str | Path, *, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Network:
    """The network in ``path``; ``shapes`` bind dynamic dimensions for the equivalence check.

    What was folded is checked: on random inputs the outputs are those of the file's own model, up to rounding.  A
    model that cannot be checked is not folded either: it is read as it is, and ``steps`` is empty.  That is one with
    an operator that no runtime has here (a custom domain, a type without kernels), or one that blows up rounding
    until its outputs are arbitrary (many layers with random weights).

    Raises:
        ModelError: the file cannot be used, or preparing it changed its outputs; the message says why or where.
        UsageError: ``shapes`` contradict the model.
    """
    model = load(path)
    _require_convs(model, path)
    digest = _digest(Path(path), model)
    # From here on float32 stands for bfloat16, which has no convolution here; the way back is exact.
    widened = widen(model)
    touched: list[Step] = []
    truth: Reference | None = None
    try:
        # The model is prepared in place; in the rare case that it is wanted as it was, it is read once more.
        trials = _trials(_inputs(model), shapes or {})
        packed = None if widened is not None else _as_it_is(Path(path), model)
        truth = reference(model, str(path), trials, again=lambda: load_runnable(path), packed=packed)
        del packed
        try:
            steps = normalise(model, after=touched.append)
        except ModelError as error:
            raise _blame(truth, str(error)) from error
        if touched and (what := truth.check(model)):
            raise _blame(truth, f"preparing the model broke it: {what}; please report it.")
    except Uncheckable:
        model = load_runnable(path)
        steps = normalise(model, steps=LISTING)
    if truth is not None:
        note_types(model, truth.feeds)
    return replace(network_of(model, steps=steps, source=str(path), digest=digest), widened=widened)


def _as_it_is(path: Path, model: ir.Model) -> Packed | None:
    """The file as it is, for a runtime, unless it is large or of an old opset.

    A message made from ``model`` would say the same and takes long to make; of a large one there is no copy to spare.
    """
    if path.stat().st_size > _MOST_READ_BYTES or converted_from(model) is not None:
        return None
    return Packed(path.read_bytes(), path.absolute().parent)


def _require_convs(model: ir.Model, path: str | Path) -> None:
    found = {node.op_type for node in all_nodes(model.graph)}
    if "Conv" in found:
        return
    if "FusedConv" in found:
        advice = "its convolutions were fused by onnxruntime's optimizer; give the original export"
    elif "ConvTranspose" in found:
        advice = "its transposed convolutions (ConvTranspose) are not replaced, so keep it as it is"
    else:
        advice = "olm compresses convolutional networks, so keep this one as it is"
    raise ModelError(f"{path} has no Conv node; {advice}.")


def _blame(truth: Reference, whole: str) -> ModelError:
    """The error that names the first step behind which the model is not what it was; ``whole`` if there is none."""
    model = truth.original()

    def check(step: Step) -> None:
        try:
            what = truth.check(model)
        except Uncheckable:
            return  # a later step did more than rounding could
        if what:
            raise ModelError(f"preparing the model broke at step '{step.name}': {what}; please report it.")

    try:
        normalise(model, after=check)
    except ModelError as error:
        return ModelError(str(error))
    return ModelError(whole)


def _trials(inputs: Iterable[InputInfo], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[dict[str, np.ndarray]]:
    """Feeds to try, each other guess at the dynamic dims another one."""
    inputs = tuple(inputs)
    choices: list[dict[str, tuple[int, ...]]] = []
    for guess in _GUESSES:
        bound = bind_shapes(inputs, shapes, guess=guess)
        if bound not in choices:
            choices.append(bound)
    small = [bound for bound in choices if max(map(prod, bound.values()), default=0) <= _LARGEST_GUESS]
    for bound in small or choices[-1:]:
        yield random_feeds(inputs, bound)


def _digest(path: Path, model: ir.Model) -> str:
    """SHA-256 of the file's bytes and then of its external data files', in order of their names."""
    tensors = [value.const_value for graph in all_graphs(model.graph) for value in graph.initializers.values()]
    beside = {str(tensor.location): Path(tensor.path) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
    found = hashlib.sha256()
    for file in (path, *(beside[name] for name in sorted(beside))):
        try:
            with file.open("rb") as handle:
                while chunk := handle.read(_CHUNK_BYTES):
                    found.update(chunk)
        except OSError as error:
            raise ModelError(f"{file} cannot be read ({error.strerror}); check its permissions.") from error
    return found.hexdigest()


def _inputs(model: ir.Model) -> tuple[InputInfo, ...]:
    return tuple(
        InputInfo(str(value.name), _dims(value), np.dtype(value.dtype.numpy() if value.dtype else np.float32))
        for value in model.graph.inputs
        if not value.is_initializer()
    )


def network_of(model: ir.Model, *, steps: tuple[str, ...] = (), source: str = "", digest: str = "") -> Network:
    """Lay a normalised model out on a line and read its convolutions."""
    order = tuple(depth_first(model.graph))
    convs: dict[int, Conv] = {}
    refused: dict[int, str] = {}
    for position, node in enumerate(order):
        if node.op_type == "Conv" and node.domain in ("", "ai.onnx"):
            conv = conv_of(node)
            if isinstance(conv, str):
                refused[position] = conv
            else:
                convs[position] = conv
    outputs = tuple(str(value.name) for value in model.graph.outputs)
    return Network(model, order, _inputs(model), outputs, steps, source, digest, convs, refused)


def _dims(value: ir.Value) -> tuple[int | str | None, ...]:
    if value.shape is None:
        return ()
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def depth_first(graph: ir.Graph) -> list[ir.Node]:
    """Topological order in which the nodes of a branch are neighbours: depth-first from the outputs, inputs first."""
    done: set[ir.Node] = set()
    order: list[ir.Node] = []
    roots = [value.producer() for value in graph.outputs] + list(graph)
    for start in roots:
        stack: list[tuple[ir.Node, bool]] = [(start, False)] if start is not None else []
        while stack:
            node, ready = stack.pop()
            if node in done:
                continue
            if ready:
                done.add(node)
                order.append(node)
                continue
            stack.append((node, True))
            producers = [value.producer() for value in _read_values(node)]
            waiting = [p for p in producers if p is not None and p not in done and p.graph is graph]
            stack.extend((producer, False) for producer in reversed(waiting))
    return order


def _read_values(node: ir.Node) -> Iterable[ir.Value]:
    """Values a node needs first: its inputs, and what its nested graphs capture."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        graphs = (
            [attribute.as_graph()]
            if attribute.type == ir.AttributeType.GRAPH
            else list(attribute.as_graphs())
            if attribute.type == ir.AttributeType.GRAPHS
            else []
        )
        for graph in graphs:
            for inner in all_nodes(graph):
                yield from (value for value in inner.inputs if value is not None)


def bind_shapes(
    inputs: Iterable[InputInfo], shapes: Mapping[str, tuple[int, ...]], *, batch: int = 1, guess: int | None = None
) -> dict[str, tuple[int, ...]]:
    """A static shape for every input: ``shapes`` first, then the model's own dims, a dynamic batch axis = ``batch``.

    ``guess`` fills other dynamic dims when given (for checks that any size serves).

    Raises:
        UsageError: a dynamic dim has no value, or a given shape contradicts the model.
    """
    bound = {}
    known = {info.name: info for info in inputs}
    for name in shapes:
        if name not in known:
            raise UsageError(f"--shapes names input '{name}', but the model's inputs are {', '.join(known)}; name one.")
    for name, info in known.items():
        if name in shapes:
            given = shapes[name]
            fits = len(given) == len(info.shape) and all(
                size > 0 and (not isinstance(dim, int) or dim == size)
                for size, dim in zip(given, info.shape, strict=True)
            )
            if not fits:
                raise UsageError(
                    f"--shapes {name}:{'x'.join(map(str, given))} contradicts the model's {info.shape}; fit it."
                )
            bound[name] = tuple(given)
            continue
        sizes = []
        for axis, dim in enumerate(info.shape):
            size = dim if isinstance(dim, int) else batch if axis == 0 else guess
            if size is None or size <= 0:
                usual = (batch, *[_GUESSES[0]] * len(info.shape))
                example = "x".join(
                    str(given if isinstance(given, int) else other)
                    for given, other in zip(info.shape, usual, strict=False)
                )
                raise UsageError(f"input '{name}' has dynamic dims {info.shape}; give --shapes {name}:{example}.")
            sizes.append(size)
        bound[name] = tuple(sizes)
    return bound


def random_feeds(
    inputs: Iterable[InputInfo], shapes: Mapping[str, tuple[int, ...]], seed: int = 0
) -> dict[str, np.ndarray]:
    """Non-zero random inputs of the bound ``shapes`` in the model's dtypes."""
    generator = np.random.default_rng(seed)
    feeds = {}
    for info in inputs:
        shape = shapes[info.name]
        if np.issubdtype(info.dtype, np.floating):
            feeds[info.name] = generator.standard_normal(shape).astype(info.dtype)
        else:
            feeds[info.name] = generator.integers(0, 2, shape).astype(info.dtype)
    return feeds
