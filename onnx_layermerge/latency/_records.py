"""Entries of the table as plain dictionaries, checked on the way in and on the way out.

A table may come from another machine or from an editor; a time that is missing, negative or not a
number must stop here, with the name of the entry, and not in the middle of planning.

Numbers are kept to seven significant digits, a thousand times finer than any interval asked for:
more would be noise in a diff.  What `encode` gives decodes to itself, so that a number is the same
in every form of the table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from onnx_layermerge.errors import ProfileError
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency._statistics import STOP_REASONS, Bound, Failure, Measurement, Ratio, Value

_T = TypeVar("_T", bound="Measurement | Bound | Ratio | DeviceKey")
_POSITIVE = {"ratio", "low", "high", "a_s", "b_s", "wall_ratio"}  # a ratio of zero divides later
_ORDERED = (("low_s", "seconds", "high_s"), ("low", "ratio", "high"))  # a number lies within its interval
_DIGITS = 7


def encode(value: Value | Ratio | DeviceKey, name: str) -> dict[str, Any]:
    """Make a JSON-ready dictionary of the value; `name` is what an error calls the entry.

    Raises:
        ProfileError: a number is missing, negative, not finite or outside its own interval.
    """
    if isinstance(value, Failure):
        failure = {"failure": value.reason}
        decode_block(failure, name)
        return failure
    checked = dataclasses.asdict(_checked(type(value), dataclasses.asdict(value), name))
    known = {key: number for key, number in checked.items() if number is not None}  # a figure that was not taken
    record = {key: _rounded(number) if isinstance(number, float) else number for key, number in known.items()}
    return {"bound": record} if isinstance(value, Bound) else record


def decode_block(record: object, name: str) -> Value:
    """Read back a block's entry.

    Raises:
        ProfileError: it is neither a complete measurement, nor a bound, nor a failure with a reason.
    """
    if isinstance(record, Mapping) and "bound" in record:
        return _checked(Bound, record["bound"], name)
    if isinstance(record, Mapping) and "failure" in record:
        reason = record["failure"]
        if _problem("failure", "str", reason) or not reason.strip():
            raise ProfileError(_message(name, "its 'failure' is not a reason in words"))
        return Failure(reason)
    return _checked(Measurement, record, name)


def decode_ratio(record: object, name: str) -> Ratio:
    """Read back the comparison of two models; raises ProfileError as `decode_block`."""
    return _checked(Ratio, record, name)


def decode_device(record: object, name: str) -> DeviceKey:
    """Read back a device key; raises ProfileError as `decode_block`."""
    return _checked(DeviceKey, record, name)


def _checked(kind: type[_T], record: object, name: str) -> _T:
    if not isinstance(record, Mapping):
        raise ProfileError(_message(name, "it is not an object with fields"))
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name not in record:
            if field.default is not dataclasses.MISSING:
                continue
            raise ProfileError(_message(name, f"{field.name!r} is missing"))
        value = record[field.name]
        problem = _problem(field.name, str(field.type), value)
        if problem:
            raise ProfileError(_message(name, f"{field.name!r} is {value!r}, {problem}"))
        values[field.name] = float(value) if str(field.type).startswith("float") and value is not None else value
    for low, middle, high in _ORDERED:
        if middle in values and not values[low] <= values[middle] <= values[high]:
            raise ProfileError(
                _message(name, f"{middle!r} is {values[middle]!r}, outside {values[low]!r} to {values[high]!r}")
            )
    return kind(**values)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def is_text(value: object) -> bool:
    """Whether a value is a text that every form of the table can hold (no halves of surrogate pairs)."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _problem(field: str, kind: str, value: object) -> str | None:
    if kind == "str":
        return None if is_text(value) else "not a text"
    if value is None and kind.endswith("| None"):
        return None
    if kind == "StopReason":
        return None if isinstance(value, str) and value in STOP_REASONS else f"not one of {', '.join(STOP_REASONS)}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
        return "not a finite number"
    if kind == "int" and not isinstance(value, int):
        return "not a whole number"
    if value < 0:
        return "negative"
    return "zero" if value == 0 and field in _POSITIVE else None


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _message(name: str, problem: str) -> str:
    return f"Latency table, {name}: {problem}; correct or remove this entry, or measure it again."
