"""What follows from a file, data and this code alone is kept in the user's cache folder, and not worked out again.

A place is named by a digest of everything that what lies there depends on, so nothing there is ever out of date, and
deleting the folder loses nothing but time.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onnx_layermerge.latency import default_path

__all__ = ["keep", "place"]

_LIBRARIES = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy", "scipy", "pillow")


def place(folder: str, *parts: object, code: tuple[str, ...]) -> Path:
    """A path without suffix for what depends on ``parts`` (as JSON), the files of this package that match ``code``,
    and the libraries."""
    words = json.dumps([*parts, _digest(code)])
    return default_path().parent / folder / hashlib.sha256(words.encode()).hexdigest()[:32]


def keep(path: Path, data: bytes, *, most: int) -> None:
    """Write ``data``, whole or not at all, and leave the ``most`` newest files in its folder.

    That it cannot be kept is no fault.
    """
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_bytes(data)
        beside.replace(path)
        held = sorted(path.parent.glob(f"*{path.suffix}"), key=lambda file: file.stat().st_mtime)
        for file in held[:-most]:
            file.unlink()


@functools.cache
def _digest(code: tuple[str, ...]) -> str:
    found = hashlib.sha256()
    package = Path(__file__).parents[1]
    for file in sorted({file for pattern in code for file in package.glob(pattern)}):
        found.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    for library in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found.update(f"{library} {version(library)}".encode())
    return found.hexdigest()
