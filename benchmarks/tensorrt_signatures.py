"""Write what the bindings of a TensorRT offer, as the JSON against which the tests check every call.

    python benchmarks/tensorrt_signatures.py BINDINGS.whl OUT.json

The wheel of the bindings for this Python is enough (``tensorrt-cu12-bindings``, ``tensorrt-cu13-bindings``,
``tensorrt-rtx-cu13-bindings``).  They are loaded over empty libraries, made on the spot with gcc, nm and readelf, that
hold only the names which the linker asks for: nothing can be built, but every class, method and argument can be read.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

# What this package touches, and what its fake stands in for.
CLASSES = (
    *("Builder", "IBuilderConfig", "INetworkDefinition", "ITensor", "OnnxParser", "ParserError", "IHostMemory"),
    *("IOptimizationProfile", "ITimingCache", "ILogger", "Runtime", "ICudaEngine", "IExecutionContext"),
    *("EngineInspector", "IRuntimeConfig"),
)
ENUMS = (
    *("BuilderFlag", "NetworkDefinitionCreationFlag", "TensorFormat", "DataType", "ProfilingVerbosity", "ErrorCode"),
    *("LayerInformationFormat", "TensorIOMode", "ComputeCapability", "EngineValidity"),
)
PRESENT = ("IRuntimeCache",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--unpacked", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.unpacked is not None:
        write(words.unpacked, words.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(words.wheel) as wheel:
            wheel.extractall(folder)
        stand_ins = Path(folder) / "libraries"
        for library in Path(folder).glob("*_bindings/*.so"):
            stand_in(library, stand_ins)
        # The loader reads its path once, so the bindings are imported by another process.
        command = [sys.executable, __file__, str(words.wheel), str(words.out), "--unpacked", folder]
        subprocess.run(command, env={**os.environ, "LD_LIBRARY_PATH": str(stand_ins)}, check=True)


def stand_in(library: Path, folder: Path) -> None:
    """Empty libraries under the names that ``library`` needs, with the functions that it imports from them."""
    needed = re.findall(r"NEEDED.*\[(lib(?:nv|tensorrt)[^\]]*)\]", _output("readelf", "-d", str(library)))
    names = re.findall(r" U (\w+)$", _output("nm", "-D", "--undefined-only", str(library)), re.MULTILINE)
    wanted = [name for name in names if re.match(r"(create|get|init)\w*(INTERNAL|Registry|Version|Plugins)", name)]
    folder.mkdir(exist_ok=True)
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted))
    for name in needed:
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", str(folder / name), str(source)], check=True)


def write(folder: Path, out: Path) -> None:
    package = next(folder.glob("*_bindings")).name
    sys.path.insert(0, str(folder))
    module = importlib.import_module(package)
    found = {
        "version": module.__version__,
        "classes": {name: members(getattr(module, name)) for name in CLASSES if hasattr(module, name)},
        "enums": {
            name: {member: int(value) for member, value in getattr(module, name).__members__.items()}
            for name in ENUMS
            if hasattr(module, name)
        },
        "present": [name for name in PRESENT if hasattr(module, name)],
    }
    out.write_text(text_of(found), encoding="utf-8")


def text_of(found: dict[str, Any]) -> str:
    """JSON with one member a line, so that two versions can be compared by eye."""
    lines = ["{"]
    for title in ("classes", "enums"):
        lines.append(f" {json.dumps(title)}: {{")
        for last, (name, held) in _marked(found[title]):
            lines.append(f"  {json.dumps(name)}: {{")
            lines += [f"   {json.dumps(key)}: {json.dumps(value)}{end}" for end, (key, value) in _marked(held)]
            lines.append(f"  }}{last}")
        lines.append(" },")
    rest = [f" {json.dumps(key)}: {json.dumps(found[key])}" for key in ("present", "version")]
    return "\n".join([*lines, ",\n".join(rest), "}"]) + "\n"


def _marked(held: dict[str, Any]) -> list[tuple[str, tuple[str, Any]]]:
    """Sorted items, each with the comma that follows it."""
    items = sorted(held.items())
    return [("," if index < len(items) - 1 else "", item) for index, item in enumerate(items)]


def members(kind: Any) -> dict[str, Any]:
    """Method → its overloads, each a list of [argument, whether it may be left out]; property → whether it is set."""
    described: dict[str, Any] = {}
    for name in sorted(set(dir(kind)) - set(dir(object)) | {"__init__"}):
        if name.startswith("_") and name != "__init__":
            continue
        member = getattr(kind, name)
        if isinstance(member, property):
            described[name] = {"settable": member.fset is not None}
        elif callable(member):
            described[name] = [arguments(text) for text in signatures(name, member.__doc__ or "")]
    return described


def signatures(name: str, text: str) -> list[str]:
    """The lines of a pybind11 docstring that are signatures of ``name``."""
    found = re.findall(rf"^(?:\d+\. )?{re.escape(name)}\((.*)\)(?: -> .*)?$", text, re.MULTILINE)
    return [each for each in found if each != "*args, **kwargs"]  # which only heads the overloads


def arguments(text: str) -> list[list[Any]]:
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text + ","):
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    names = [part for part in parts if part and not part.startswith(("self", "*"))]
    return [[re.split(r"[:=]", part)[0].strip(), "=" in part] for part in names]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
