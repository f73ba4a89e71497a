"""Bytes on disk → a checked ``onnx_ir.Model``, or one sentence that says why not."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_layermerge.errors import ModelError

__all__ = ["load"]


def load(path: str | Path) -> ir.Model:
    """Read and check an ONNX file; weights in external files are read into memory.

    Raises:
        ModelError: missing, a directory, empty, truncated, not ONNX, or not valid ONNX.
    """
    file = Path(path)
    if file.is_dir():
        raise ModelError(f"{file} is a directory; name the .onnx file inside it.")
    if not file.exists():
        raise ModelError(f"{file} does not exist; check the path of the model.")
    if file.stat().st_size == 0:
        raise ModelError(f"{file} is empty; export the model again.")
    try:
        onnx.checker.check_model(str(file))
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{file} is not a valid ONNX model ({_first_line(error)}); export it again.") from error
    except Exception as error:  # protobuf's DecodeError and its relatives share no public base class
        raise ModelError(f"{file} cannot be read as ONNX ({_first_line(error)}); is it complete?") from error
    try:
        model = ir.load(file)
    except Exception as error:  # external data outside the folder, unknown tensor types, broken references
        raise ModelError(f"{file} cannot be read ({_first_line(error)}); export it again.") from error
    try:
        # Parts of the model are run on their own, so weights kept in other files have to come along.
        ir.external_data.load_to_model(model)
    except Exception as error:  # missing or truncated files, paths outside the folder
        raise ModelError(
            f"the weights of {file} cannot be read ({_first_line(error)}); copy them beside it."
        ) from error
    if not len(model.graph):
        raise ModelError(f"{file} holds no nodes; is it complete?")
    return model


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")[:200]
