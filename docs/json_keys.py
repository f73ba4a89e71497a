"""What ``--json`` prints, as tables of keys: read from the dataclasses that the commands return (see ``hooks.py``)."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# Command → the function of ``onnx_layermerge.flow`` whose result it prints.
RESULTS = {
    "olm inspect": "inspect",
    "olm plan": "plan",
    "olm finetune": "finetune",
    "olm explain": "explain",
    "olm diff": "diff",
    "olm profile": "profile",
    "olm profile (without a model)": "overview",
    "olm profile --build-only": "build_only",
    "olm profiles list": "list_table",
    "olm profiles show": "show_table",
    "olm profiles diff": "diff_tables",
    "olm profiles merge": "merge_tables",
    "olm profiles import": "import_table",
    "olm profiles export": "export_table",
    "olm profiles prune": "prune_table",
    "olm doctor": "doctor",
}
# These are described by a schema instead.
WITH_SCHEMA = ("olm compress", "olm verify")


def json_pages() -> Iterator[str]:
    """A heading, the words of the class, and a table of keys for each command."""
    from onnx_layermerge import flow

    for command, name in RESULTS.items():
        kind = get_type_hints(getattr(flow, name))["return"]
        many = get_origin(kind) is tuple
        kind = get_args(kind)[0] if many else kind
        yield f"## {command}\n"
        yield f"{'A list of objects. ' if many else ''}{_words(kind)}\n"
        yield "| key | |\n| --- | --- |"
        for key, says in keys(kind):
            yield f"| `{key}` | {says} |"
        yield ""


def keys(kind: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Every key below ``kind`` in the order of the JSON, such as ``blocks[].name``, with its type in words."""
    hints = get_type_hints(kind)
    for name in sorted(field.name for field in dataclasses.fields(kind)):
        yield before + name, _type(hints[name])
        suffix, inner = _inside(hints[name])
        if inner is not None:
            yield from keys(inner, f"{before}{name}{suffix}.")


def _inside(kind: Any) -> tuple[str, Any]:
    """What goes behind a key whose values are, or hold, objects; and their class (None: there are none)."""
    if dataclasses.is_dataclass(kind):
        return "", kind
    origin, inner = get_origin(kind), [each for each in get_args(kind) if each not in (type(None), ...)]
    for each in inner:
        suffix, found = _inside(each)
        if found is not None:
            mark = "" if origin in (Union, types.UnionType) else ".*" if _is_dict(origin) else "[]"
            return mark + suffix, found
    return "", None


def _is_dict(origin: Any) -> bool:
    return isinstance(origin, type) and hasattr(origin, "keys")


def _type(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(each) for each in inner)
    if origin is Literal:
        return ", ".join(f'"{each}"' for each in inner)
    if _is_dict(origin):
        return f"object by name: {_type(inner[1])}"
    if origin is not None:
        return f"list: {_type(inner[0])}" if ... in inner or len(inner) == 1 else f"list of {len(inner)}"
    if dataclasses.is_dataclass(kind):
        return "object"
    return {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}.get(
        kind, "any value"
    )


def _words(kind: Any) -> str:
    return " ".join((inspect.getdoc(kind) or "").split())
