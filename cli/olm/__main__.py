"""``olm`` and ``python -m olm``."""

from __future__ import annotations

import io
import sys

from olm.app import olm

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process with the documented exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without × must not turn a result into a fault
            stream.reconfigure(errors="replace")
    olm(prog_name="olm")


if __name__ == "__main__":
    main()
