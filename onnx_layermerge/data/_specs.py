"""What a model's inputs ask of the data: names, shapes and dtypes, and the rules that decide what fits.

A *sample* is one entry along axis 0 of every input, so an input of shape (N, 3, 224, 224) takes samples
of shape (3, 224, 224). The rules, in the order in which they are applied:

1. **Shape.** Static dimensions must match. A symbolic dimension (a string) may have any size, but the same
   one wherever its name occurs, over all inputs and samples; an unknown one (None) may have any size, but
   the same one in all samples, for samples are stacked. Axis 0 binds nothing.
2. **Dtype.** Floats of any width become the input's float type, provided that no finite value overflows.
   Integers become the input's integer type, provided that every value fits. Integers and booleans are
   *refused* for a float input: pixels 0…255 given to a model that wants normalized floats are the commonest
   silent mistake, and a wrong scale ruins every fit; the caller who means it converts them himself. (A
   folder of images is no such case: ``ImageOptions`` says how its pixels become floats.) Floats for an
   integer input, strings, objects, complex numbers and records are refused.
3. **Values.** NaN and infinity are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnx_layermerge.errors import DataError

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = dict[str, Array]
Dim: TypeAlias = "int | str | None"


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    name: the input's name in the model.
    shape: one entry per axis; an int is a static dimension, a string a symbolic one, None an unknown one.
        Axis 0 is the batch axis, whatever its entry.
    dtype: the element type that the model takes.
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: np.dtype[Any]

    @property
    def sample_shape(self) -> tuple[Dim, ...]:
        """The shape without the batch axis."""
        return self.shape[1:]


def shape_text(shape: Iterable[Dim]) -> str:
    """The shape as a reader sees it: ``(N, 3, ?, ?)`` with ``?`` for an unknown dimension."""
    return "(" + ", ".join("?" if dim is None else str(dim) for dim in shape) + ")"


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether the type holds real floats, bfloat16 and the 8-bit ones (kind V in NumPy) included."""
    return dtype.kind == "f" or dtype.name.startswith(("bfloat16", "float8"))


def check_inputs(inputs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """The inputs as a tuple; DataError where no data could ever be given to one of them."""
    if not inputs:
        raise DataError("The model has no inputs, so there is nothing to calibrate with: leave the data out.")
    for spec in inputs:
        if not spec.shape:
            raise DataError(
                f"The model's input '{spec.name}' is a scalar without a batch axis: "
                "give a model whose inputs count samples along axis 0."
            )
        if not is_float(spec.dtype) and spec.dtype.kind not in "iub":
            raise DataError(
                f"The model's input '{spec.name}' takes {spec.dtype}, which calibration data cannot be: "
                "give a model with float, integer or boolean inputs."
            )
    return tuple(inputs)


def check_names(found: Iterable[str], inputs: Sequence[InputSpec], where: str) -> tuple[str, ...]:
    """The names found beyond the expected ones, sorted; DataError where an expected one is missing."""
    names = [str(name) for name in found]
    expected = [spec.name for spec in inputs]
    if set(expected) - set(names):
        raise DataError(
            f"{where} holds {_listed(names)}, but the model's inputs are {_listed(expected)}: "
            "name every array after the input it is for."
        )
    return tuple(sorted(set(names) - set(expected)))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "no arrays"


def check_dtype(dtype: np.dtype[Any], spec: InputSpec, where: str) -> None:
    """Rule 2 as far as the type alone decides it."""
    want = spec.dtype
    if is_float(want):
        if is_float(dtype):
            return
        advice = f"convert the array with .astype('{want}') after the scaling that the model expects"
    elif want.kind == "b":
        if dtype.kind == "b":
            return
        advice = "save it as booleans"
    else:
        if dtype.kind in "iu":
            return
        advice = "save it as integers"
    kind = {"O": "Python objects", "U": "text", "S": "text"}.get(dtype.kind, str(dtype))
    raise DataError(f"{where} holds {kind}, but the model's input '{spec.name}' takes {want}: {advice}.")


def convert(values: Array, spec: InputSpec) -> Array:
    """The values as a C-contiguous array of the input's dtype (rule 2 having been checked)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, dtype=spec.dtype, order="C")


def check_values(values: Array, spec: InputSpec, where: str) -> Array:
    """Converts one sample and applies rules 2 and 3 to its values.

    values: any shape, a dtype that ``check_dtype`` lets through. Returns the same shape in ``spec.dtype``.
    """
    converted = convert(values, spec)
    if is_float(spec.dtype):
        if not bool(np.isfinite(converted).all()):
            if bool(np.isfinite(values).all()):
                raise DataError(
                    f"{where} has values too large for {spec.dtype}, the type of the model's input "
                    f"'{spec.name}': scale the data as the model expects."
                )
            raise DataError(
                f"{where} has NaN or infinite values for the model's input '{spec.name}': remove the sample."
            )
    elif values.dtype != spec.dtype and values.size:
        # Compared as Python integers: NumPy would compare uint64 with int64 in floating point.
        low, high = int(values.min()), int(values.max())
        bounds = np.iinfo(spec.dtype)
        if low < bounds.min or high > bounds.max:
            raise DataError(
                f"{where} has values from {low} to {high}, which do not fit {spec.dtype}, the type of the "
                f"model's input '{spec.name}': give values within {bounds.min} and {bounds.max}."
            )
    return converted


class ShapeRule:
    """Rule 1, with the memory that it needs: the size that each open dimension was first seen with."""

    def __init__(self, inputs: Sequence[InputSpec]) -> None:
        self._specs = {spec.name: spec for spec in inputs}
        self._bound: dict[str | tuple[str, int], tuple[int, str]] = {}

    def check_batch(self, name: str, shape: Sequence[int], where: str) -> None:
        """Checks a whole array, whose axis 0 counts samples."""
        if not shape:
            raise DataError(f"{where} is a single number: give an array with samples along axis 0.")
        self.check(name, shape[1:], where, shape)

    def check(self, name: str, sample_shape: Sequence[int], where: str, found: Sequence[int]) -> None:
        """Checks one sample's shape (no batch axis) and binds the open dimensions.

        found: the whole shape as it stands in the source, for the message.
        """
        spec = self._specs[name]
        wanted = spec.sample_shape
        static = len(sample_shape) == len(wanted) and all(
            not isinstance(dim, int) or dim == size for dim, size in zip(wanted, sample_shape, strict=True)
        )
        if not static:
            raise DataError(
                f"{where} has shape {shape_text(found)}, but the model's input '{name}' has shape "
                f"{shape_text(spec.shape)} with samples along axis 0{_axis_hint(sample_shape, wanted)}: "
                "reshape the data to it."
            )
        for axis, (dim, size) in enumerate(zip(wanted, sample_shape, strict=True), start=1):
            if isinstance(dim, int):
                continue
            if size < 1:
                raise DataError(f"{where} has shape {shape_text(found)} and no values: give filled ones.")
            key = (name, axis) if dim is None else dim
            first, place = self._bound.setdefault(key, (size, where))
            if first != size:
                what = f"axis {axis} of input '{name}'" if dim is None else f"the dimension '{dim}'"
                raise DataError(
                    f"{where} has {size} for {what}, but {place} has {first}: give all samples the same size."
                )


def _axis_hint(sample_shape: Sequence[int], wanted: Sequence[Dim]) -> str:
    """Names the likely cause when the channel axis merely stands at the other end."""
    if len(sample_shape) == len(wanted) == 3:
        moved = (
            ("last", (sample_shape[2], sample_shape[0], sample_shape[1])),
            ("first", (sample_shape[1], sample_shape[2], sample_shape[0])),
        )
        for place, shape in moved:
            if all(not isinstance(dim, int) or dim == size for dim, size in zip(wanted, shape, strict=True)):
                return f" (the channels seem to stand {place} in the data)"
    return ""
