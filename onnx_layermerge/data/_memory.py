"""How much may be held in memory at once, so that a large source ends in a sentence and not in a machine that swaps."""

from __future__ import annotations

import os
from pathlib import Path

from onnx_layermerge.errors import DataError

__all__ = ["check_fits", "free_bytes", "how_many_fit"]

# The rest is for the model, its activations and the fits.
SHARE = 0.5


def free_bytes() -> int | None:
    """Memory that can be had without swapping, in bytes; None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    try:
        return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return None


def how_many_fit(each: int) -> int | None:
    """How many things of ``each`` bytes do not take more than half of the free memory; None where nobody knows."""
    free = free_bytes()
    return None if free is None else int(SHARE * free / max(each, 1))


def check_fits(needed: int, where: str, advice: str = "use fewer samples (--samples)") -> None:
    """DataError where ``needed`` bytes are more than half of the memory that is free."""
    free = free_bytes()
    if free is not None and needed > SHARE * free:
        raise DataError(
            f"{where} would take {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free: {advice}."
        )
