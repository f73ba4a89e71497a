"""What building leaves on the disk: a timing cache, and engines for whoever wants to run them elsewhere.

Every file appears whole or not at all.  Both are disposable: they belong to one GPU and one version of the library.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from onnx_layermerge.errors import OutputError

__all__ = ["read_cache", "write_engine", "write_whole"]


def read_cache(path: str) -> bytes:
    """The bytes of a timing cache; b"" where there is none yet.

    Raises:
        OutputError: it is there and cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise OutputError(f"The timing cache {path} cannot be read ({error.strerror}); name another file.") from error


def write_engine(folder: str, name: str, engine: bytes, facts: dict[str, Any]) -> Path:
    """Write ``NAME.engine`` and ``NAME.json`` and return the former's path.

    Raises:
        OutputError: the folder cannot be written to.
    """
    path = Path(folder) / f"{name}.engine"
    write_whole(path.with_suffix(".json"), (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode())
    write_whole(path, engine)
    return path


def write_whole(path: Path, data: bytes) -> None:
    """Write beside, flush to the disk, rename; folders are made.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); name another place.") from error
