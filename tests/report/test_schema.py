"""The published schemas: generated from the code, and what the commands print keeps to them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest

from onnx_layermerge.report import schema_of

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "schemas"


def _schemas() -> dict[str, dict[str, Any]]:
    spec = importlib.util.spec_from_file_location("olm_schemas", ROOT / "benchmarks" / "schemas.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, dict[str, Any]] = module.schemas()
    return found


def test_the_committed_schemas_are_those_of_the_code() -> None:
    wanted = _schemas()
    assert sorted(path.name for path in FOLDER.glob("*.json")) == sorted(wanted)
    for name, schema in wanted.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert json.loads((FOLDER / name).read_text(encoding="utf-8")) == schema, "run benchmarks/schemas.py"


@dataclass(frozen=True)
class Inner:
    """One."""

    kind: Literal["a", "b"]
    pair: tuple[int, str]


@dataclass(frozen=True)
class Outer:
    """Many of ``Inner``."""

    inner: tuple[Inner, ...]
    ratio: float
    words: dict[str, bool]
    maybe: Inner | None = None


def test_each_kind_of_type() -> None:
    schema = schema_of(Outer, "olm.test/1", {"passed": bool})
    good: dict[str, Any] = {
        "schema": "olm.test/1",
        "inner": [{"kind": "a", "pair": [1, "x"]}],
        "ratio": None,
        "words": {"yes": True},
        "maybe": None,
        "passed": True,
    }
    jsonschema.validate(good, schema)
    for broken in (
        {"schema": "olm.test/2"},
        {"inner": [{"kind": "c", "pair": [1, "x"]}]},
        {"inner": [{"kind": "a", "pair": ["x", 1]}]},
        {"inner": [{"kind": "a"}]},
        {"ratio": "1"},
        {"words": {"yes": 1}},
        {"maybe": {"kind": "a"}},
        {"passed": None},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, **broken}, schema)
    jsonschema.validate({**good, "new": 1}, schema)


def test_a_type_without_json_is_refused() -> None:
    @dataclass(frozen=True)
    class Odd:
        """Holds what JSON has not."""

        path: Path

    with pytest.raises(TypeError, match="has no JSON schema"):
        schema_of(Odd, "olm.odd/1")
