"""The devices a row can be run for: the processor here, or a synthetic one that is bound by launches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from launch_bound import LaunchBound

from onnx_layermerge.latency import Backend, open_backend

__all__ = ["backend_of", "standing_in"]


def backend_of(device: str) -> Backend:
    """The backend behind ``--device``."""
    return LaunchBound() if device == "launch-bound" else open_backend()


@contextmanager
def standing_in(device: str) -> Iterator[None]:
    """Inside, `olm.compress` and `olm.verify` open the synthetic device in place of the processor.

    The commands take a backend by its name, and a device that does not exist has none.
    """
    if device == "cpu":
        yield
        return

    def opened(*words: str) -> Backend:
        return LaunchBound()

    with (
        patch("onnx_layermerge.flow._compress.open_backend", opened),
        patch("onnx_layermerge.flow._verify.open_backend", opened),
    ):
        yield
