"""What TensorRT says when it refuses, as one sentence with the node and the operator in it.

The parser keeps a list of errors, each with a code, a node and words.  The builder returns nothing and writes to the
logger.  Four cases pass the parser without any error, so they are looked for by name before the builder is asked:

1. empty bytes, which parse into a network without outputs;
2. a graph without outputs, likewise;
3. a dynamic input without a shape, which needs an optimization profile;
4. an input of a type that no engine computes in (DOUBLE builds, as float).
"""

from __future__ import annotations

import re
from typing import Any

from onnx_layermerge.errors import ModelError

__all__ = ["build_error", "make_log", "parse_error"]

# Said of every failure on a machine without a driver, and never its reason.
_NOISE = ("catchCudaError", "Output shape can not be computed")
_ADVICE = (
    ("MODEL_DESERIALIZE_FAILED", "", "these bytes are no ONNX model"),
    ("", "Plugin not found", "there is no such operator"),
    ("", "Node input was not registered", "it reads a tensor that nothing makes"),
    ("", "must be of same type", "it mixes types, so cast the model to one precision"),
    ("", "must have the same type", "it mixes types, so cast the model to one precision"),
    ("", "failed to broadcast to input", "its weights do not fit the channels of its input"),
)


def make_log(library_module: Any, *, verbose: bool = True) -> Any:
    """A logger that keeps everything, or errors alone: ``messages`` is a list of (severity's name, text)."""

    class Log(library_module.ILogger):  # type: ignore[misc]
        """Its base class exists only once the library is imported."""

        def __init__(self) -> None:
            library_module.ILogger.__init__(self)
            self.messages: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            if verbose or severity.name.endswith("ERROR"):
                self.messages.append((str(severity.name), msg))

    return Log()


def parse_error(title: str, parser: Any) -> ModelError:
    """The first error of a parser that has one; the others follow from it."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not errors:
        return ModelError(f"{title} cannot parse this model, and does not say why; try another version of it.")
    error = errors[0]
    code, words = str(error.code().name), _plain(str(error.desc()))
    where = ""
    if error.node() >= 0 and (error.node_name() or error.node_operator()):
        where = f": node {error.node_name()!r} ({error.node_operator()})"
    advice = next((text for kind, part, text in _ADVICE if kind in code and part in words), "")
    return ModelError(f"{title} cannot parse this model{where}{': ' if advice else ''}{advice} [{code}: {words}].")


def build_error(title: str, messages: list[tuple[str, str]]) -> ModelError:
    """The builder returned nothing: the last error that it logged is the one that ended it."""
    said = [_plain(text) for severity, text in messages if severity.endswith("ERROR")]
    said = [text for text in said if text]
    if not said:
        return ModelError(f"{title} cannot build this model, and does not say why; try another version of it.")
    return ModelError(f"{title} cannot build this model [{said[-1]}]; try another --precision or version of it.")


def _plain(text: str) -> str:
    """One line, without what is said of every failure."""
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not any(noise in line for noise in _NOISE)]
    return re.sub(r"\s+", " ", " ".join(kept)).strip().rstrip(".")
