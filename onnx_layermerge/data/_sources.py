"""Samples by number: what a store is, what a survey of it finds, and the store of arrays in memory or mapped.

A store gives rows of samples by number. Nothing is read from a file before it is asked for, except once at
the start, when a survey passes over the chosen samples one by one and checks their values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from onnx_layermerge.data._specs import (
    Array,
    Arrays,
    InputSpec,
    ShapeRule,
    check_dtype,
    check_names,
    check_values,
    convert,
)
from onnx_layermerge.errors import DataError

Index = npt.NDArray[np.intp]
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Survey:
    """What one pass over a store found.

    fingerprints: 32 bytes for each sample; equal ones are exact copies.
    constant: samples of one value throughout, among the ``probed`` ones that were looked at.
    """

    fingerprints: tuple[bytes, ...]
    constant: int
    probed: int


class Rows(Protocol):
    """Samples by number."""

    def __len__(self) -> int: ...
    def rows(self, indices: Index) -> Arrays: ...


@runtime_checkable
class Named(Protocol):
    """Samples that a user can find again: ``where`` has words for one, to stand inside a sentence."""

    def where(self, number: int) -> str: ...


class Store(Rows, Named, Protocol):
    """Samples of a source, which can be looked through; ``notes`` are warnings for the user."""

    notes: tuple[str, ...]

    def survey(self) -> Survey: ...


def choose(total: int, limit: int | None, seed: int) -> Index:
    """At most ``limit`` of the numbers below ``total``, ascending: a random subset that the seed decides."""
    if limit is None or limit >= total:
        return np.arange(total, dtype=np.intp)
    picked = np.random.default_rng(seed).choice(total, size=limit, replace=False)
    return np.sort(picked).astype(np.intp)


def reason(error: BaseException) -> str:
    """The error's message on one line, to stand in brackets."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def is_constant(values: Iterable[Array]) -> bool:
    """Whether each of one sample's arrays holds a single value, or an image of one colour throughout.

    Arrays of one element do not count; an image has three axes, of which the first or the last counts its channels.
    """
    counted = [array for array in values if array.size > 1]
    return bool(counted) and all(_is_flat(array) for array in counted)


def _is_flat(array: Array) -> bool:
    if bool((array == array.flat[0]).all()):
        return True
    if array.ndim != 3:
        return False
    if array.shape[0] in _CHANNELS:
        first = array[:, :1, :1]
    elif array.shape[2] in _CHANNELS:
        first = array[:1, :1, :]
    else:
        return False
    return first.size < array.size and bool((array == first).all())


def fingerprint(sample: Mapping[str, Array]) -> bytes:
    """SHA-256 over names, dtypes, shapes and bytes of one sample's arrays, which are C-contiguous."""
    digest = hashlib.sha256()
    for name, array in sample.items():
        digest.update(repr((name, array.dtype.str, array.dtype.name, array.shape)).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.digest()


def survey_samples(samples: Iterable[tuple[Arrays, str]], inputs: Sequence[InputSpec]) -> Survey:
    """Checks the values of each sample (raw arrays without batch axis, with words for where they stand)."""
    prints: list[bytes] = []
    constant = 0
    for raw, where in samples:
        sample = {spec.name: check_values(raw[spec.name], spec, where) for spec in inputs}
        prints.append(fingerprint(sample))
        constant += is_constant(sample.values())
    return Survey(tuple(prints), constant, len(prints))


class ArrayStore:
    """Samples in arrays, in memory or mapped: for each input an array and the rows of it that count."""

    def __init__(
        self,
        inputs: Sequence[InputSpec],
        columns: Mapping[str, tuple[Array, Index]],
        numbers: Index,
        where: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.notes = notes
        self._inputs = tuple(inputs)
        self._columns = dict(columns)
        self._numbers = numbers
        self._where = where

    def __len__(self) -> int:
        return len(self._numbers)

    def rows(self, indices: Index) -> Arrays:
        """The samples stacked along axis 0, always a copy."""
        out: Arrays = {}
        for spec in self._inputs:
            values, index = self._columns[spec.name]
            out[spec.name] = convert(values[index[indices]], spec)
        return out

    def where(self, number: int) -> str:
        return f"sample {self._numbers[number]}"

    def survey(self) -> Survey:
        return survey_samples(map(self._raw, range(len(self))), self._inputs)

    def _raw(self, number: int) -> tuple[Arrays, str]:
        raw = {name: np.asarray(values[index[number]]) for name, (values, index) in self._columns.items()}
        return raw, f"Sample {self._numbers[number]} of {self._where}"


def count_samples(
    shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], inputs: Sequence[InputSpec], where: str
) -> int:
    """Checks shapes and dtypes of whole arrays, batch axis first, and returns their common sample count."""
    rule = ShapeRule(inputs)
    counts: dict[str, int] = {}
    for spec in inputs:
        shape, dtype = shapes[spec.name]
        place = f"The array '{spec.name}' in {where}"
        check_dtype(dtype, spec, place)
        rule.check_batch(spec.name, shape, place)
        counts[spec.name] = shape[0]
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise DataError(f"The arrays in {where} differ in samples ({listed}): make them equal.")
    total = next(iter(counts.values()))
    if total == 0:
        raise DataError(f"{where} holds no samples: fill its arrays along axis 0.")
    return total


def from_arrays(
    arrays: Mapping[str, Any], inputs: Sequence[InputSpec], where: str, limit: int | None, seed: int
) -> ArrayStore:
    """A store over arrays in memory, which are not copied: the caller leaves them as they are."""
    notes = ignored(check_names(arrays, inputs, where), where)
    held = {spec.name: as_array(arrays[spec.name], f"The array '{spec.name}' in {where}") for spec in inputs}
    total = count_samples({name: (a.shape, a.dtype) for name, a in held.items()}, inputs, where)
    chosen = choose(total, limit, seed)
    return ArrayStore(inputs, {name: (array, chosen) for name, array in held.items()}, chosen, where, notes)


def ignored(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The note about arrays that no input wants."""
    if not names:
        return ()
    return (f"{where} also holds {', '.join(map(repr, names))}, which no input of the model takes: ignored.",)


def as_array(value: Any, where: str) -> Array:
    """The value as an array (arrays, CPU tensors, nested lists); DataError where it is none."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where} cannot be made an array ({reason(error)}): give NumPy arrays.") from error
