"""Model → file: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_layermerge.errors import OutputError
from onnx_layermerge.graph._session import to_bytes

__all__ = ["check_target", "write", "write_bytes"]


def check_target(path: str | Path, *, not_over: str | Path | None = None) -> Path:
    """The output path, after every check that can be made before any work is done.

    Raises:
        OutputError: its folder is missing, it is a directory, or it is the input itself.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target} is a directory; name the file to write.")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} does not exist; create it first.")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"the folder {target.parent} is not writable; choose another.")
    if not_over is not None and target.exists() and Path(not_over).exists() and target.samefile(not_over):
        raise OutputError(f"{target} is the input itself; choose another output.")
    return target


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write beside, fsync, rename: readers see the old file or the whole new one."""
    target = Path(path)
    try:
        handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise OutputError(f"cannot write into {target.parent} ({error.strerror}); choose another folder.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)
        os.replace(beside, target)
    except BaseException as error:
        Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror
            raise OutputError(f"cannot write {target} ({reason}); free some space or choose another.") from error
        raise


def write(model: ir.Model, path: str | Path) -> None:
    """Check the model (types and shapes included), then write it atomically.

    Raises:
        OutputError: the file cannot be written, or the model does not pass the checker.
    """
    data = to_bytes(model)
    try:
        onnx.checker.check_model(data, full_check=True)
    except Exception as error:  # ValidationError and InferenceError have no common public base
        raise OutputError(f"the rewritten model fails the ONNX checker ({error}); please report it.") from error
    write_bytes(path, data)
