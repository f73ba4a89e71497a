"""JSON Schema of what the commands print with ``--json``, read off the dataclasses that they print.

What is not finite is null in JSON, so a float may be null.  Fields may come, so that readers must not refuse those they
do not know; what is there keeps its name and type under one number of the schema.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["schema_of"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {str: "string", int: "integer", bool: "boolean", float: ["number", "null"], object: None}


def schema_of(kind: type, name: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The schema called ``name`` ("olm.verify/1") of a dataclass; ``more``: types or schemas of fields printed beside.

    Raises:
        TypeError: a field's type has no JSON.
    """
    held: dict[str, Any] = {}
    body = _object(kind, held)
    more = {"schema": {"const": name}, **(more or {})}
    for field, each in more.items():
        body["properties"][field] = each if isinstance(each, dict) else _schema(each, held)
    body["required"] = list(body["properties"])
    return {"$schema": DIALECT, "title": name, **body, "$defs": dict(sorted(held.items()))}


def _object(kind: type, held: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return {
        "description": " ".join((kind.__doc__ or "").replace("``", "`").split()),
        "type": "object",
        "properties": {name: _schema(hints[name], held) for name in names},
        "required": list(names),
    }


def _schema(kind: Any, held: dict[str, Any]) -> dict[str, Any]:
    """The schema of one type; dataclasses go to ``held`` and are named."""
    if kind in _PLAIN:
        plain = _PLAIN[kind]
        return {} if plain is None else {"type": plain}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if kind.__name__ not in held:
            held[kind.__name__] = {}  # before its fields, which may name it
            held[kind.__name__] = _object(kind, held)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is tuple and (len(inner) == 1 or inner[1:] == (...,)):
        return {"type": "array", "items": _schema(inner[0], held)}
    if origin is tuple:
        return {"type": "array", "prefixItems": [_schema(each, held) for each in inner], "minItems": len(inner)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(inner[1], held)}
    if origin in (Union, types.UnionType):
        some = [_schema(each, held) for each in inner if each is not type(None)]
        return {"anyOf": [*some, {"type": "null"}]} if type(None) in inner else {"anyOf": some}
    raise TypeError(f"{kind} has no JSON schema")
