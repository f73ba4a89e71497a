"""Files that are no model at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import helper

from tests.graph.bad_models._case import CASES, good


def raw(said: str, name: str, content: Callable[[bytes], bytes]) -> None:
    def build(folder: Path) -> Path:
        path = folder / "bad.onnx"
        path.write_bytes(content(good().SerializeToString()))
        return path

    CASES[name] = (build, said)


raw("is empty", "empty", lambda data: b"")

raw("cannot be read as ONNX|is not a valid ONNX|needs", "truncated", lambda data: data[: len(data) * 2 // 3])

raw("cannot be read as ONNX|IR version", "text", lambda data: b"These are the notes on the model.\n" * 30)

raw("cannot be read as ONNX|IR version", "picture", lambda data: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)

raw(
    "holds no nodes",
    "header",
    lambda data: onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)]).SerializeToString(),
)
