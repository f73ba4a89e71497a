"""A function of the user's: ``script.py:function``, or a callable in Python.

The script runs in this process, with all that this process may do.  Its folder is on ``sys.path`` while it is loaded
and while the function runs, so that it can import what lies beside it.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from onnx_layermerge.errors import OlmError, UsageError

__all__ = ["UserFunction", "user_function"]


@dataclass(frozen=True, eq=False)
class UserFunction:
    """``function`` with what messages call it: ``option`` that it was given for, and ``source``.

    ``path`` is the script's; None for a callable.
    """

    function: Callable[..., Any]
    option: str
    source: str
    path: Path | None = None

    def __call__(self, *given: Any) -> Any:
        """What the function returns.

        Raises:
            UsageError: it raised; the line of the script is named.
        """
        with _running(self.option, self.source, self.path):
            return self.function(*given)


def user_function(source: str | Callable[..., Any], option: str) -> UserFunction:
    """The function behind ``script.py:function``, loaded now; a callable is taken as it is.

    Raises:
        UsageError: there is no such file or function, or the script cannot be loaded.
    """
    if not isinstance(source, str):
        if not callable(source):
            raise UsageError(f"{option} is of type {type(source).__name__}; give script.py:function, or a callable.")
        return UserFunction(source, option, getattr(source, "__name__", type(source).__name__))
    name, _, function = source.rpartition(":")
    if not name.endswith(".py") or not function.isidentifier():
        raise UsageError(f"{option} {source} names no function; give script.py:function.")
    path = Path(name).resolve()
    if not path.is_file():
        raise UsageError(f"{option}: there is no script {name}; give the path of a file as script.py:function.")
    with _running(option, source, path):
        module = _load(path)
    found = getattr(module, function, None)
    if not callable(found):
        raise UsageError(f"{option}: {name} has no function '{function}'; define it, or name another one.")
    return UserFunction(found, option, source, path)


def _load(path: Path) -> ModuleType:
    # Of its own name, so that scripts beside each other, or the calibration's, are not taken for one another.
    name = f"_onnx_layermerge_user_{sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the script look their module up
    spec.loader.exec_module(module)
    return module


@contextmanager
def _running(option: str, source: str, path: Path | None) -> Iterator[None]:
    """The script's folder first on ``sys.path``, no compiled files left in it, and its errors as one sentence."""
    folder = None if path is None else str(path.parent)
    kept = sys.dont_write_bytecode
    if folder is not None:
        sys.dont_write_bytecode = True
        sys.path.insert(0, folder)
    try:
        with redirect_stdout(sys.stderr):  # standard output is the command's own, and may be JSON
            yield
    except OlmError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(getattr(error, "msg", None) or error).split()).rstrip(".") or "no message"
        raise UsageError(
            f"{option} {source} failed{_where(error, path)} ({type(error).__name__}: {text}); correct it."
        ) from error
    finally:
        sys.dont_write_bytecode = kept
        if folder is not None and folder in sys.path:  # the script may have removed it itself
            sys.path.remove(folder)


def _where(error: BaseException, path: Path | None) -> str:
    """The innermost line of the script itself; a syntax error has no frame there but knows its line."""
    if path is None:
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = lines[-1] if lines else error.lineno if isinstance(error, SyntaxError) else None
    return f" at line {line}" if line is not None else ""
