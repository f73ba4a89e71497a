"""One result, one file: names, what a result depends on, and writing whole files."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs import OLM, ROOT

__all__ = ["FOLDER", "code_digest", "file_of", "load_all", "outdated", "package_digest", "tree_of", "variant_of"]

FOLDER = ROOT / "benchmarks/records/quality"
# What a refit, and fitted widths, have of this package, and this folder's files that make models with other tools.
SOLVERS = tuple(f"fit/_{name}.py" for name in ("capture", "eliminate", "patches", "ridge")) + ("recover/_build.py",)
MAKERS = {"width": ("width",), "tp": ("torch_net", "torch_prune"), "onnxsim": ("build",), "refit": ("refit",)}
# Of the package, what acts in a training alone; no row of this folder has one.
TRAINING = ("recover/training/*.py", "flow/_training_*.py", "flow/_importance*.py", "flow/_finetune.py")
TRAINING += ("flow/_paper.py", "flow/_shard.py", "flow/_subject.py")
# Holds what was measured against a user's bounds; rows have none.
BOUNDS = "verify/_gate.py"
Row = dict[str, Any]


def variant_of(settings: Mapping[str, Any]) -> str:
    """What differs from the defaults, in words that can stand in a file name; empty for none."""
    return ",".join(f"{name}={value}" for name, value in sorted(settings.items()))


def file_of(network: str, speedup: float, method: str, device: str = "cpu", variant: str = "") -> Path:
    """Where the row lies."""
    parts = [network, f"{speedup:g}", method, *([] if device == "cpu" else [device]), *([variant] if variant else [])]
    return FOLDER / ("-".join(part.replace("/", "_") for part in parts) + ".json")


def load_all(folder: Path = FOLDER) -> list[Row]:
    """All rows, in the order of their names."""
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def code_digest(method: str) -> str:
    """Of the source files that the method's models are made by, as they lie there, committed or not.

    That is the package but for its trainings and bounds for what the command itself makes; of the others' models it
    only solves, where they are fitted or refitted.
    """
    package, makers = ROOT / "onnx_layermerge", ROOT / "benchmarks/quality"
    base, _, refitted = method.partition("+")
    found: set[Path] = set()
    if base in OLM:
        found.update(_whole_package())
        found.difference_update(file for pattern in TRAINING for file in package.glob(pattern))
    for name in (base.partition("-")[0], refitted):
        found.update(makers / f"{file}.py" for file in MAKERS.get(name, ()))
        if name in ("width", "refit"):
            found.update(package / file for file in SOLVERS)
    return _digest(sorted(found))


def package_digest() -> str:
    """The same of the whole package, as a row with a training depends on it."""
    return _digest(sorted(_whole_package()))


def _whole_package() -> set[Path]:
    package = ROOT / "onnx_layermerge"
    return set(package.rglob("*.py")) - {package / BOUNDS}


def _digest(files: Sequence[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def tree_of() -> str:
    """Git's name for the package's tree in HEAD, and whether the files differ from it; empty without git."""
    asked = ["git", "rev-parse", "HEAD:onnx_layermerge"], ["git", "status", "--porcelain", "--", "onnx_layermerge"]
    try:
        tree, changes = (
            subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return tree.strip()[:16] + (" with changes" if changes.strip() else "")


def outdated(row: Row | None, code: str) -> bool:
    """Whether a row has to be run: there is none, or it is of other code, or a try broke off."""
    return row is None or row["code"] != code or not (row.get("scores") or row.get("exit_code") == 4)
