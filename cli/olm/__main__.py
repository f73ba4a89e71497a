"""``olm`` and ``python -m olm``."""

from __future__ import annotations

import gc
import io
import sys

from olm.app import olm

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process with the documented exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without × must not turn a result into a fault
            stream.reconfigure(errors="replace")
    # Graphs are many small objects that live until the end; looking through them again and again is a fifth of reading.
    gc.set_threshold(100_000, 50, 50)
    try:
        olm(prog_name="olm")
    finally:
        gc.freeze()  # nor is there need to look through them once more before the process ends


if __name__ == "__main__":
    main()
