"""What users may rely on, and which room may import which."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import onnx_layermerge

PACKAGE = Path(onnx_layermerge.__file__).parent
# Each room may import only those before it.
ROOMS = (
    *("errors", "graph", "merge", "candidates", "latency", "data", "fit", "importance"),
    *("plan", "rewrite", "recover", "verify", "report", "flow"),
)
PUBLIC = [
    *("Check", "DataError", "DeviceError", "Difference", "EngineOptions", "Explanation", "FinetuneReport"),
    *("FrontierPoint", "Gate", "GateError"),
    *("ImageOptions", "Inspection", "ModelError", "OlmError", "OutputError", "PlanError", "PlanReport"),
    *("ProfileError", "ProfileReport", "Report", "TargetError", "UsageError", "Verdict"),
    *("compress", "diff", "doctor", "explain", "finetune", "inspect", "plan", "profile", "verify"),
]


def test_the_public_names_are_these() -> None:
    assert onnx_layermerge.__all__ == sorted(PUBLIC)


def test_everything_public_is_documented() -> None:
    for name in onnx_layermerge.__all__:
        public = getattr(onnx_layermerge, name)
        assert inspect.isclass(public) or inspect.isfunction(public)
        assert public.__doc__ and not public.__doc__.startswith(f"{name}("), name


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "errors"])
def test_every_room_says_what_it_is_and_what_it_offers(room: str) -> None:
    module = importlib.import_module(f"onnx_layermerge.{room}")
    assert module.__doc__ and len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)
        offered = getattr(module, name)
        if inspect.isfunction(offered):
            assert offered.__doc__, f"{room}.{name}"


@pytest.mark.parametrize("command", ["compress", "inspect", "plan", "profile", "verify"])
def test_options_are_keywords(command: str) -> None:
    parameters = list(inspect.signature(getattr(onnx_layermerge, command)).parameters.values())
    plain = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert len(plain) <= 2 and all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters[len(plain) :])
    assert all(p.annotation is not inspect.Parameter.empty for p in parameters)


def imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, wherever in it."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            name = ".".join(filter(None, (base, node.module)))
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
    return found


def files() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found.append((room, path))
    return found


def test_every_room_is_known() -> None:
    assert {room for room, _ in files()} == {*ROOMS, "__init__"}


def test_imports_run_only_with_the_flow() -> None:
    for room, path in files():
        if room == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "onnx_layermerge" or len(parts) < 2 or parts[1] == room or parts[1] not in ROOMS:
                continue
            assert ROOMS.index(parts[1]) < ROOMS.index(room), f"{path.name} in {room} imports {name}"


def test_a_room_is_entered_by_its_door() -> None:
    """No reaching for another room's private modules."""
    for room, path in files():
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "onnx_layermerge" and len(parts) > 2 and parts[1] != room:
                assert not parts[2].startswith("_"), f"{path.name} in {room} imports {name}"


@pytest.mark.parametrize("room", ["merge", "plan"])
def test_algebra_and_plan_know_no_onnx(room: str) -> None:
    allowed = (f"onnx_layermerge.{room}", "onnx_layermerge.errors")
    for of, path in files():
        if of == room:
            outside = {name.split(".")[0] for name in imports(path) if not name.startswith(allowed)}
            assert not outside & {"onnx", "onnx_ir", "onnxruntime", "onnxscript", "onnx_layermerge"}, path


def test_heavy_libraries_stay_in_their_rooms() -> None:
    homes = {
        "onnxruntime": ("graph", "latency"),
        "onnxscript": ("graph",),
        "torch": ("recover",),
        "tensorrt": ("latency",),
    }
    for room, path in files():
        for name in imports(path):
            library = name.split(".")[0]
            assert room in homes.get(library, (room,)), f"{path.name} in {room} imports {name}"


def test_errors_have_exit_codes() -> None:
    codes = {
        name: getattr(onnx_layermerge, name).exit_code for name in onnx_layermerge.__all__ if name.endswith("Error")
    }
    assert codes == {
        "OlmError": 1,
        "ModelError": 1,
        "DataError": 1,
        "ProfileError": 1,
        "OutputError": 1,
        "UsageError": 2,
        "GateError": 3,
        "TargetError": 4,
        "DeviceError": 5,
        "PlanError": 6,
    }
