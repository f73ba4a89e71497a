"""A report back from its JSON, so that pages can be made from it later and elsewhere."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from onnx_layermerge.errors import DataError
from onnx_layermerge.report._report import SCHEMA, Report

__all__ = ["decoded", "from_json"]

T = TypeVar("T")


def from_json(text: str) -> Report:
    """The report that :func:`as_json` wrote; a number that was not finite comes back as NaN.

    Raises:
        DataError: the text is no such report.
    """
    try:
        found = decoded(Report, json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"this is no report of olm compress ({error}); give the file that --report wrote.") from error
    if found.schema != SCHEMA:
        raise DataError(f"this report is of the form {found.schema}, not {SCHEMA}; read it with the olm that wrote it.")
    return found


def decoded(kind: type[T], value: Any) -> T:
    """A dataclass from what ``as_json`` made of it; fields that it has not are passed over.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the value is something else.
    """
    found: T = _made(kind, value)
    return found


def _made(kind: Any, value: Any) -> Any:
    """``value`` as the type ``kind``."""
    if kind in (str, int, bool):
        if not isinstance(value, kind):
            raise TypeError(f"{value!r:.40} is no {kind.__name__}")
        return value
    if kind is float:
        return math.nan if value is None else float(value)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        missing = dataclasses.MISSING
        found = {}
        for field in dataclasses.fields(kind):
            if field.name in value:
                found[field.name] = _made(hints[field.name], value[field.name])
            elif field.default is missing:
                raise KeyError(field.name)
        return kind(**found)  # type: ignore[operator]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        return tuple(_made(inner[0], each) for each in value)
    if origin is dict:
        return {str(key): _made(inner[1], each) for key, each in value.items()}
    if origin in (Union, types.UnionType):
        return None if value is None else _made(next(each for each in inner if each is not type(None)), value)
    return value  # a literal
