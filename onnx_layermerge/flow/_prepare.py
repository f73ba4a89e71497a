"""File → what a plan chooses from: the network, bound to sizes, and its candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.candidates import METHODS, Candidate, cost_macs, enumerate_candidates
from onnx_layermerge.data import constant_outputs
from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.graph import InputInfo, Network, Refusal, Session, bind_shapes, random_feeds, read, trace_shapes
from onnx_layermerge.latency import EngineOptions

__all__ = ["Prepared", "Progress", "bind_usual", "check_speedup", "data_batch", "prepare", "quiet", "usual_shapes"]

Progress = Callable[[str, int, int, str], None]

# More arithmetic than this times the original's cannot be made up for by fewer launches on any device.
MOST_MACS = 16.0
USUAL_BATCH = 16


def quiet(stage: str, done: int, total: int, what: str) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Prepared:
    """A network with its legal candidates; ``shapes`` are the traced shapes of all values for the bound inputs."""

    network: Network
    bound: Mapping[str, tuple[int, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    batch: int
    candidates: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...]


def data_batch(network: Network, bound: Mapping[str, tuple[int, ...]]) -> int:
    """Samples to run at once: the model's own batch size where it is fixed, else 16.

    Where an output has a fixed first axis that is computed, 1 comes first, so that each sample has an output of its
    own; then 16, if the model takes as many; then that size itself, for a Reshape inside may ask for it.  ``bound``
    gives the other sizes of the inputs.

    Raises:
        ModelError: the inputs contradict each other.
    """
    fixed = {info.shape[0] for info in network.inputs if info.shape and isinstance(info.shape[0], int)}
    if len(fixed) > 1:
        raise ModelError(f"the inputs count their samples differently (first axes {sorted(fixed)}); export one axis.")
    if fixed:
        return fixed.pop()
    constant = constant_outputs(network.model)
    computed = [value for value in network.model.graph.outputs if value.shape and value.name not in constant]
    written = {value.shape[0] for value in computed if value.shape and isinstance(value.shape[0], int)}
    if not written:
        return USUAL_BATCH
    tries = [*sorted(written & {1}), USUAL_BATCH, *sorted(written)]
    session = Session(network.model, once=True)
    return next((size for size in tries if _takes(session, network, bound, size)), min(written))


def _takes(session: Session, network: Network, bound: Mapping[str, tuple[int, ...]], size: int) -> bool:
    """Whether the model runs on ``size`` samples."""
    try:
        session.run(random_feeds(network.inputs, {name: (size, *shape[1:]) for name, shape in bound.items()}))
    except Exception:  # onnxruntime's exceptions share no public base class
        return False
    return True


def prepare(
    path: str | Path,
    *,
    method: str = "olm",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    engines: EngineOptions | None = None,
    progress: Progress = quiet,
) -> Prepared:
    """Read ``path`` and list what may stand in for what.

    An input with a range of shapes in ``engines`` is bound to the usual one.

    Raises:
        ModelError: the model cannot be read.
        UsageError: unknown method, or dynamic dims without ``shapes``.
    """
    if method not in METHODS:
        raise UsageError(f"--method {method} is unknown; choose from {', '.join(METHODS)}.")
    progress("read", 0, 1, str(path))
    network = read(path, shapes=usual_shapes(shapes, engines))
    bound = bind_usual(network.inputs, shapes, batch, engines)
    traced = trace_shapes(network, bound)
    found, refusals = enumerate_candidates(network, kinds=METHODS[method])
    candidates = tuple(candidate for candidate in found if _worth_timing(network, candidate, traced))
    progress("read", 1, 1, f"{len(candidates)} candidates")
    return Prepared(network, bound, traced, data_batch(network, bound), candidates, refusals)


def usual_shapes(
    shapes: Mapping[str, tuple[int, ...]] | None, engines: EngineOptions | None
) -> dict[str, tuple[int, ...]]:
    """Shapes of inputs, as given or as the usual one of a range.

    Raises:
        UsageError: an input has both, and they differ.
    """
    usual = {} if engines is None else engines.usual()
    for name, shape in (shapes or {}).items():
        if usual.get(name, tuple(shape)) != tuple(shape):
            raise UsageError(f"--shapes gives input {name!r} a size beside the usual one of its range; give only one.")
    return {**(shapes or {}), **usual}


def bind_usual(
    inputs: Iterable[InputInfo],
    shapes: Mapping[str, tuple[int, ...]] | None,
    batch: int,
    engines: EngineOptions | None,
) -> dict[str, tuple[int, ...]]:
    """``bind_shapes`` at the usual shapes, where the ends of every range fit the model too.

    Raises:
        UsageError: as there, or a range is for a size that the model fixes.
    """
    usual, inputs = usual_shapes(shapes, engines), tuple(inputs)
    for end in (0, 2):
        ranges = {} if engines is None else engines.ranges
        bind_shapes(inputs, {**usual, **{name: tuple(given[end]) for name, given in ranges.items()}}, batch=batch)
    return bind_shapes(inputs, usual, batch=batch)


def _worth_timing(network: Network, candidate: Candidate, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    region = candidate.region
    replaced = network.cost_macs(region.start, region.stop, dict(shapes))
    return cost_macs(candidate, shapes[region.entry]) <= MOST_MACS * replaced


def check_speedup(speedup: float) -> None:
    """Raises UsageError unless the wanted speed-up is a finite number above 1."""
    if not 1.0 < speedup < float("inf"):
        raise UsageError(f"--speedup {speedup:g} makes no sense; give a number above 1, such as 1.5.")
