"""Samples that a program yields: Python objects, and functions in a script of the user's.

What may be given, or returned by the function:
1. a dict of arrays, axis 0 counting samples (all of them at once);
2. an object with ``get_next()``, which returns such a dict or, at the end, None (onnxruntime's
   ``CalibrationDataReader``);
3. anything that iterates over such dicts, with one or more samples each (as polygraphy's data loader script;
   its default function name, ``load_data``, counts here too).

A stream (2, 3) is drawn to its end or to the limit, whichever is first, and held in memory.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from onnx_layermerge.data._memory import check_fits
from onnx_layermerge.data._sources import ArrayStore, as_array, from_arrays, ignored
from onnx_layermerge.data._specs import Array, InputSpec, ShapeRule, check_dtype, check_names
from onnx_layermerge.errors import DataError

DEFAULT_FUNCTION = "load_data"
STREAM_BYTES_MAX = 8 << 30  # a stream without an end is stopped here, before the machine starts to swap
_MODULE = "_onnx_layermerge_calibration_script"


def from_object(
    source: object, inputs: Sequence[InputSpec], where: str, limit: int | None, seed: int
) -> ArrayStore:
    """A store over one of the three kinds in the module's docstring; DataError for anything else."""
    if isinstance(source, Mapping):
        return from_arrays(source, inputs, where, limit, seed)
    get_next = getattr(source, "get_next", None)
    if callable(get_next):
        return _draw(_reader(get_next), inputs, where, limit)
    if isinstance(source, Iterable):
        return _draw(source, inputs, where, limit)
    raise DataError(
        f"{where} is of type {type(source).__name__}, which gives no samples: give a dict of arrays, "
        "an iterable of such dicts, or an object with get_next()."
    )


def _reader(get_next: Any) -> Iterator[object]:
    while (item := get_next()) is not None:
        yield item


def _draw(stream: Iterable[object], inputs: Sequence[InputSpec], where: str, limit: int | None) -> ArrayStore:
    """The first ``limit`` samples of the stream, copied, for a stream may fill the same buffer again."""
    rule = ShapeRule(inputs)
    parts: dict[str, list[Array]] = {spec.name: [] for spec in inputs}
    notes: tuple[str, ...] = ()
    total = held = 0
    for turn, item in enumerate(stream):
        place = f"Item {turn} of {where}"
        if not isinstance(item, Mapping):
            raise DataError(
                f"{place} is of type {type(item).__name__}, not a dict: "
                "yield dicts from the inputs' names to arrays with the batch axis."
            )
        extra = check_names(item, inputs, place)
        notes = notes or ignored(extra, where)
        counts = set()
        left = None if limit is None else limit - total
        for spec in inputs:
            array = as_array(item[spec.name], f"'{spec.name}' in {place}")
            check_dtype(array.dtype, spec, f"'{spec.name}' in {place}")
            rule.check_batch(spec.name, array.shape, f"'{spec.name}' in {place}")
            counts.add(array.shape[0])
            parts[spec.name].append(np.array(array[:left], order="C"))
            held += parts[spec.name][-1].nbytes
        if len(counts) > 1:
            raise DataError(f"The arrays of {place} differ in samples: give all of them the same number.")
        total += min(counts.pop(), limit - total if limit is not None else sys.maxsize)
        if total == limit:
            break
        if held > STREAM_BYTES_MAX:
            raise DataError(
                f"{where} gave more than {STREAM_BYTES_MAX >> 20} MiB and no end ({total} samples so far): "
                "set a limit on the number of samples."
            )
        check_fits(held, f"What {where} gave so far ({total} samples)")
    if total == 0:
        raise DataError(f"{where} gave no samples: yield at least one dict of filled arrays.")
    every = np.arange(total, dtype=np.intp)
    columns = {name: (_joined(arrays), every) for name, arrays in parts.items()}
    return ArrayStore(inputs, columns, every, where, notes)


def _joined(arrays: list[Array]) -> Array:
    """The parts in one array; the list is emptied so that the parts can go."""
    whole = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    arrays.clear()
    return whole


def is_script(source: str) -> bool:
    """Whether the text means ``script.py`` or ``script.py:function``."""
    path, _, function = source.rpartition(":")
    return source.endswith(".py") or (path.endswith(".py") and "/" not in function)


def from_script(source: str, inputs: Sequence[InputSpec], limit: int | None, seed: int) -> ArrayStore:
    """A store over what ``script.py:function`` gives; the function is called without arguments.

    The script's folder is on ``sys.path`` until the samples are drawn, and no longer. DataError, with the
    line of the script, for whatever goes wrong inside it.
    """
    name, function = (source, "") if source.endswith(".py") else source.rsplit(":", 1)
    function = function or DEFAULT_FUNCTION
    path = Path(name)
    if not path.is_file():
        raise DataError(f"There is no script {path}: give the path of a file as script.py:function.")
    with _on_path(path.resolve().parent):
        module = _load(path)
        entry = getattr(module, function, None)
        if not callable(entry):
            raise DataError(
                f"{path} has no function '{function}': define it, or name another one as {path}:function."
            )
        with _script_errors(path):
            made = entry()
        if not isinstance(made, Mapping):
            made = _guarded(made, path)
        return from_object(made, inputs, f"{path}:{function}", limit, seed)


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """The folder first on ``sys.path``; without compiled files left beside the user's script."""
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.dont_write_bytecode = kept
        sys.modules.pop(_MODULE, None)
        if str(folder) in sys.path:  # the script may have removed it itself
            sys.path.remove(str(folder))


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_MODULE, path.resolve())
    if spec is None or spec.loader is None:
        raise DataError(f"{path} cannot be loaded as a Python script: give a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # dataclasses in the script look their module up
    with _script_errors(path):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _script_errors(path: Path) -> Iterator[None]:
    """Turns whatever the user's code raises into one sentence with the line in the script."""
    try:
        yield
    except (Exception, SystemExit) as error:
        # Innermost frame of the script itself; a syntax error has no frame but knows its line.
        script = str(path.resolve())
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == script]
        line = lines[-1] if lines else error.lineno if isinstance(error, SyntaxError) else None
        at = f", line {line}" if line is not None else ""
        text = " ".join(str(getattr(error, "msg", None) or error).split()) or "no message"
        raise DataError(
            f"The calibration script failed at {path}{at} ({type(error).__name__}: {text}): correct it."
        ) from error


def _guarded(made: object, path: Path) -> object:
    """The same stream, with errors of the user's code told apart from ours."""
    get_next = getattr(made, "get_next", None)
    if not callable(get_next) and not isinstance(made, Iterable):
        return made

    def steps() -> Iterator[object]:
        with _script_errors(path):
            stream = _reader(get_next) if callable(get_next) else iter(made)  # type: ignore[call-overload]
        while True:
            with _script_errors(path):
                try:
                    item = next(stream)
                except StopIteration:
                    return
            yield item

    return steps()
