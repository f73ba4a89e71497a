"""File → ``Network``: load, fold, check the folding on random data, lay out on a line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.graph._convs import Conv, conv_of
from onnx_layermerge.graph._load import load
from onnx_layermerge.graph._network import InputInfo, Network
from onnx_layermerge.graph._normalise import normalise
from onnx_layermerge.graph._session import Session, to_bytes

__all__ = ["bind_shapes", "network_of", "random_feeds", "read"]

# Folding a BatchNormalization moves float32 results by rounding only.
_FOLDING_TOLERANCE = 1e-4


def read(path: str | Path, *, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Network:
    """The network in ``path``; ``shapes`` bind dynamic dimensions for the equivalence check.

    Raises:
        ModelError: the file cannot be used; the message says why.
    """
    original = load(path)
    digest = hashlib.sha256(to_bytes(original)).hexdigest()
    if not any(node.op_type == "Conv" for node in original.graph.all_nodes()):
        raise ModelError(f"{path} has no Conv node; olm compresses convolutional networks.")
    model = load(path)
    steps = normalise(model)
    network = network_of(model, steps=steps, source=str(path), digest=digest)
    _check_equal(original, model, network, shapes or {})
    return network


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
    inputs = tuple(
        InputInfo(str(value.name), _dims(value), np.dtype(value.dtype.numpy() if value.dtype else np.float32))
        for value in model.graph.inputs
        if not value.is_initializer()
    )
    outputs = tuple(str(value.name) for value in model.graph.outputs)
    return Network(model, order, inputs, outputs, steps, source, digest, convs, refused)


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
            for inner in graph.all_nodes():
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
            raise UsageError(f"--shapes names input '{name}', but the model's inputs are {', '.join(known)}.")
    for name, info in known.items():
        if name in shapes:
            given = shapes[name]
            fits = len(given) == len(info.shape) and all(
                size > 0 and (not isinstance(dim, int) or dim == size)
                for size, dim in zip(given, info.shape, strict=True)
            )
            if not fits:
                raise UsageError(f"--shapes {name}:{'x'.join(map(str, given))} contradicts the model's {info.shape}.")
            bound[name] = tuple(given)
            continue
        sizes = []
        for axis, dim in enumerate(info.shape):
            size = dim if isinstance(dim, int) else batch if axis == 0 else guess
            if size is None or size <= 0:
                example = "x".join(str(d) if isinstance(d, int) else "224" for d in info.shape)
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


def _check_equal(original: ir.Model, model: ir.Model, network: Network, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Same outputs on random inputs, or a ModelError."""
    bound = bind_shapes(network.inputs, shapes, guess=224)
    feeds = random_feeds(network.inputs, bound)
    try:
        wanted = Session(to_bytes(original)).run(feeds)
    except Exception as error:  # onnxruntime raises plain RuntimeError subclasses of its own making
        raise ModelError(f"onnxruntime cannot run {network.source} ({str(error).splitlines()[0][:200]}).") from error
    got = Session(to_bytes(model)).run(feeds)
    for name, value in wanted.items():
        if not np.issubdtype(value.dtype, np.floating):
            continue
        if value.shape != got[name].shape:
            raise ModelError(f"preparing the model changed the shape of output '{name}' on random inputs.")
        if value.size == 0:
            continue
        scale = float(np.max(np.abs(value))) or 1.0
        worst = float(np.max(np.abs(value.astype(np.float64) - got[name]))) / scale
        if not worst <= _FOLDING_TOLERANCE:
            steps = ", ".join(network.steps) or "none"
            raise ModelError(f"preparing the model changed output '{name}' by {worst:.1e} (steps: {steps}).")
