"""A user's metric: a function that gets a model as a callable and says how good it is.

    def top1(run):                                     # script.py:top1
        outputs = run({"image": images})               # dict of inputs [N, …] -> dict of outputs [N, …]
        return (outputs["logits"].argmax(1) == labels).mean()

Data and labels are the script's own.  Higher is better.  ``_built_in`` has metrics for which a file is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_layermerge.data import gather
from onnx_layermerge.errors import UsageError
from onnx_layermerge.graph import Network, Session
from onnx_layermerge.verify._built_in import built_in, is_script
from onnx_layermerge.verify._script import UserFunction, user_function

__all__ = ["Metric", "MetricValues", "Runner", "metric_of"]

Arrays = dict[str, np.ndarray]
Runner = Callable[[Mapping[str, Any]], Arrays]


@dataclass(frozen=True)
class MetricValues:
    """What the metric said of the original and of the compressed model; higher is better."""

    name: str
    original: float
    compressed: float

    @property
    def drop(self) -> float:
        """How much was lost; negative where the compressed model is better."""
        return self.original - self.compressed


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric on models with the inputs of one network; ``original`` is its value there."""

    function: UserFunction
    dtypes: Mapping[str, np.dtype]
    batch: int
    fixed: bool
    original: float

    def score(self, model: ir.Model | bytes) -> float:
        """The metric of another model with the same inputs.

        Raises:
            UsageError: it fails, or returns no finite number.
        """
        return _score(self.function, _runner(model, self.dtypes, self.batch, self.fixed))

    def values(self, compressed: float) -> MetricValues:
        """Both values, for a report."""
        return MetricValues(self.function.source, self.original, compressed)


def metric_of(source: str | Callable[[Runner], float], network: Network, batch: int) -> Metric:
    """Load ``source`` (``script.py:function``, ``NAME:FILE.npz`` or a callable) and evaluate it on the network's model.

    Models run on the CPU, ``batch`` samples at once, however many the metric hands over.

    Raises:
        UsageError: there is no such function, it fails, or it returns no finite number.
        DataError: the file of a built-in metric does not fit it, or the model.
    """
    dtypes = {info.name: np.dtype(info.dtype) for info in network.inputs}
    fixed = any(info.shape and isinstance(info.shape[0], int) for info in network.inputs)
    if isinstance(source, str) and not is_script(source):
        function = UserFunction(built_in(source, network, batch, fixed), "--metric", source)
    else:
        function = user_function(source, "--metric")
    original = _score(function, _runner(network.model, dtypes, batch, fixed))
    return Metric(function, dtypes, batch, fixed, original)


def _score(function: UserFunction, runner: Runner) -> float:
    value = function(runner)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # NumPy's numbers, and a tensor of one
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(
            f"{function.option} {function.source} returned {_said(value)}; return one number, higher is better."
        )
    if not math.isfinite(value):
        raise UsageError(f"{function.option} {function.source} returned {float(value)}; return a finite number.")
    return float(value)


def _said(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _runner(model: ir.Model | bytes, dtypes: Mapping[str, np.dtype], batch: int, fixed: bool) -> Runner:
    """The model as a callable that takes any number of samples; mistakes are ValueErrors in the user's own frame."""
    session = Session(model)

    def run(feeds: Mapping[str, Any]) -> Arrays:
        if not isinstance(feeds, Mapping):
            raise ValueError(f"the runner takes a dict of arrays by input name, not a {type(feeds).__name__}")
        missing = [name for name in session.inputs if name not in feeds]
        unknown = [str(name) for name in feeds if name not in dtypes]
        if missing or unknown:
            raise ValueError(f"the model's inputs are {', '.join(dtypes)}, but {', '.join(map(str, feeds))} were given")
        arrays = {name: _fitting(name, feeds[name], dtypes[name]) for name in session.inputs}
        sizes = {len(array) for array in arrays.values()}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError(f"the inputs hold {sorted(sizes)} samples; give all the same number, at least one")
        count = sizes.pop()
        if fixed and count % batch:
            raise ValueError(f"the model takes {batch} samples at once, and {count} is no multiple of that")
        starts = range(0, count, batch)
        batches = ({n: a[start : start + batch] for n, a in arrays.items()} for start in starts)
        parts, layout = gather(session.run, batches)
        return layout.join_in_place(parts)

    return run


def _fitting(name: str, values: Any, dtype: np.dtype) -> np.ndarray:
    """C-contiguous in the input's dtype; float64 becomes float32, but floats never become whole numbers."""
    array = np.asarray(values)
    if array.ndim == 0:
        raise ValueError(f"input {name} has no axis of samples")
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"input {name} is {dtype}, but {array.dtype} was given")
    return np.ascontiguousarray(array, dtype=dtype)
