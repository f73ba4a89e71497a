"""Model → file: whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_layermerge.errors import OutputError
from onnx_layermerge.graph._pack import MOST_INSIDE_BYTES, initializers, proto_with, to_bytes, weight_bytes

__all__ = ["check_target", "write", "write_bytes"]

# Smaller tensors are easier to read inside the model, and runtimes need some of them to infer shapes.
_LEAST_OUTSIDE_BYTES = 1024


def check_target(path: str | Path, *, not_over: str | Path | None = None) -> Path:
    """The output path, after every check that can be made before any work is done.

    Raises:
        OutputError: its folder is missing, it is a directory, or it is the input itself or its weights.
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
    if not_over is not None and target.exists():
        folder = Path(not_over).parent
        if any((folder / name).exists() and target.samefile(folder / name) for name in _locations(Path(not_over))):
            raise OutputError(f"{target} holds the weights of the input; choose another output.")
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
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, target)
    except BaseException as error:
        Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror
            raise OutputError(f"cannot write {target} ({reason}); free some space or choose another.") from error
        raise


def write(model: ir.Model, path: str | Path) -> None:
    """Check the model (types and shapes included), then write it atomically.

    Weights of more than ``MOST_INSIDE_BYTES``, or of a model that already keeps some in other files, go to a file of
    their own beside it, ``<name>.data``, tensor by tensor: no more than one is in memory at a time.

    Raises:
        OutputError: the file cannot be written, or the model does not pass the checker.
    """
    if weight_bytes(model) > MOST_INSIDE_BYTES or _sources(model):
        _write_in_two(model, Path(path))
        return
    data = to_bytes(model)
    try:
        onnx.checker.check_model(data, full_check=True)
    except Exception as error:  # ValidationError and InferenceError have no common public base
        raise _invalid(error) from error
    write_bytes(path, data)


def _invalid(error: Exception) -> OutputError:
    return OutputError(f"the rewritten model fails the ONNX checker ({error}); please report it.")


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _sources(model: ir.Model) -> list[Path]:
    """The files from which weights are mapped."""
    tensors = (value.const_value for value in initializers(model))
    return sorted({Path(tensor.path) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)})


def _write_in_two(model: ir.Model, target: Path) -> None:
    """Both files are made and checked in a folder beside, and leave it only when they are complete."""
    try:
        beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise OutputError(f"cannot write into {target.parent} ({error.strerror}); choose another folder.") from error
    try:
        data = _data_name(target, _sources(model))
        made = beside / target.name
        _make(model, made, data)
        try:
            onnx.checker.check_model(str(made), full_check=True)
        except Exception as error:  # as above
            raise _invalid(error) from error
        for file in (beside / data, made):
            if file.exists():  # all weights may be small
                os.chmod(file, 0o666 & ~_umask())
                _flush(file)
        _move_in(beside, target, data)
    except OSError as error:
        raise OutputError(f"cannot write {target} ({error.strerror}); free some space or choose another.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _make(model: ir.Model, made: Path, data: str) -> None:
    """The model at ``made`` and its large weights in ``data`` beside it, each once, one after the other."""
    large: dict[int, ir.TensorProtocol] = {}
    for value in initializers(model):
        tensor = value.const_value
        if tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > _LEAST_OUTSIDE_BYTES:
            large.setdefault(id(tensor), tensor)
    moved = ir.external_data.convert_tensors_to_external(list(large.values()), made.parent, data) if large else []
    proto = proto_with(model, dict(zip(large, moved, strict=True)))
    made.write_bytes(proto.SerializeToString(deterministic=True))


def _flush(file: Path) -> None:
    with file.open("r+b") as stream:
        os.fsync(stream.fileno())


def _data_name(target: Path, sources: list[Path]) -> str:
    """``<name>.data``, or the next name that is free: never a file that is not this output's own."""
    own = _locations(target)
    number = 1
    while True:
        name = f"{target.name}.data" if number == 1 else f"{target.name}.{number}.data"
        place = target.parent / name
        if not os.path.lexists(place):
            return name
        mapped = any(source.exists() and source.samefile(place) for source in sources)
        if name in own and not mapped and not _read_by_others(target, name):
            return name
        number += 1


def _read_by_others(target: Path, name: str) -> bool:
    """Whether another model in the folder names the data file (a copy of an earlier output, say)."""
    others = (path for path in target.parent.glob("*.onnx") if path.name != target.name and path.is_file())
    return any(name in _locations(path) for path in others)


def _locations(target: Path) -> set[str]:
    """The data files of the model that stands at ``target`` now."""
    if not target.is_file():
        return set()
    try:
        old = onnx.load(str(target), format="protobuf", load_external_data=False)
    except Exception:  # whatever stands there is no model of ours, so no data file beside it is either
        return set()
    return {
        entry.value for tensor in old.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }


def _move_in(beside: Path, target: Path, data: str) -> None:
    """The data first, then the model that needs them; a model that stood there never meets data that are not its own.

    Two files cannot be replaced at one blow, so the old pair steps aside first and comes back if anything fails.
    """
    place = target.parent / data
    aside: list[tuple[Path, Path]] = []
    placed = False
    try:
        if os.path.lexists(place):
            for number, old in enumerate((target, place)):
                aside.append((beside / f"old.{number}", old))  # first: an interrupt in between must not lose it
                os.replace(old, beside / f"old.{number}")
        if (beside / data).exists():
            os.replace(beside / data, place)
            placed = True
        os.replace(beside / target.name, target)
    except BaseException:
        if placed:
            place.unlink(missing_ok=True)
        for kept, old in aside:
            if kept.exists():
                os.replace(kept, old)
        raise
