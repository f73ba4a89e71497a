"""Where a fine-tuning may write: over nothing that it reads, and over no training that could be gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx_layermerge.errors import UsageError
from onnx_layermerge.graph import check_target
from onnx_layermerge.recover.training import check_checkpoint

__all__ = ["training_files"]


def training_files(
    output: str | Path,
    checkpoint: str | Path | None,
    resume: bool,
    models: tuple[str | Path, ...],
    sources: Mapping[str, object],
) -> tuple[Path, Path | None]:
    """The paths of output and checkpoint, after every check that can be made before any work.

    ``sources`` are the values of options that may name files which are read, by option: paths, ``script.py:function``,
    or anything else, which is no file.

    Raises:
        OutputError: one of them cannot be written, or is one of ``models`` or its weights.
        UsageError: one of them is a source or the other; or a training is kept there and ``resume`` is not given.
        DataError: there is a file at ``checkpoint`` that is none.
    """
    if checkpoint is None and resume:
        raise UsageError("--resume goes on from a checkpoint; name it with --checkpoint.")
    target = _target(output, "the output", models, sources)
    if checkpoint is None:
        return target, None
    kept = _target(checkpoint, "--checkpoint", models, sources)
    if kept.resolve() == target.resolve():
        raise UsageError(f"--checkpoint {kept} is the output itself; choose another file.")
    if kept.exists():
        check_checkpoint(kept)
        if not resume:
            raise UsageError(f"--checkpoint {kept} keeps a training already; add --resume or choose another file.")
    return target, kept


def _target(path: str | Path, what: str, models: tuple[str | Path, ...], sources: Mapping[str, object]) -> Path:
    target = Path(path)
    for model in models:
        target = check_target(path, not_over=model)
    for option, source in sources.items():
        read = _file_of(source)
        if read is not None and _overwrites(target, read):
            raise UsageError(f"{what} {target} is what {option} reads; choose another file.")
    return target


def _file_of(source: object) -> Path | None:
    if not isinstance(source, (str, Path)):
        return None
    script, colon, _ = str(source).rpartition(":")
    return Path(script) if colon and script.endswith(".py") else Path(source)


def _overwrites(target: Path, read: Path) -> bool:
    """Whether ``target`` is the file, or a sample in the folder."""
    if target.exists() and read.exists() and target.samefile(read):
        return True
    if read.is_dir():
        # A model beside the pictures is no sample.
        return target.exists() and target.suffix.lower() != ".onnx" and read.resolve() in target.resolve().parents
    return target.resolve() == read.resolve()
