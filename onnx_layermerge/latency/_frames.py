"""What the two processes of a profile say to each other: frames over pipes, and one small file that both map."""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

__all__ = ["RUNNING", "SHARED", "read_frame", "write_frame"]

SHARED = struct.Struct("<qqd")
"""Number of the block or model in hand (-1: none), count of signs of life, seconds that it may now stand still."""
RUNNING = 2
"""Of a pair, 0 and 1 in hand are its models while they are built; with this added, while they run."""
_LENGTH = struct.Struct("<I")


def write_frame(pipe: BinaryIO, message: dict[str, Any], payload: bytes = b"") -> None:
    """Write a message and, behind it, a payload whose ``size`` the message tells."""
    head = json.dumps(message).encode()
    pipe.write(_LENGTH.pack(len(head)) + head)
    if payload:
        pipe.write(payload)
    pipe.flush()


def read_frame(pipe: BinaryIO) -> dict[str, Any] | None:
    """The next frame, a payload under ``bytes``; None at the end, also in the middle of a frame."""
    size = pipe.read(_LENGTH.size)
    if len(size) < _LENGTH.size:
        return None
    head = pipe.read(_LENGTH.unpack(size)[0])
    try:
        message = json.loads(head)
    except ValueError:
        return None
    frame: dict[str, Any] = message
    if "size" in frame:
        frame["bytes"] = pipe.read(frame["size"])
        if len(frame["bytes"]) < frame["size"]:
            return None
    return frame
