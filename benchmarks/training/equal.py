"""What is equal for all rows of a table: the samples, what they are judged by, and the clock of their trainings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from jobs import NETWORKS, ROOT
from table import ROWS

__all__ = ["clock", "cpu_clock", "device_name", "look", "samples_of", "spent_s"]

Row = dict[str, Any]
Arrays = dict[str, Any]


def samples_of(spec: Row) -> tuple[Arrays, Arrays]:
    """By input, [N, ...]: the samples to fit to and to learn from, and those to judge by; of a table always the same.

    Copies of one sample are all in the same part.
    """
    share, seed = spec["held_out"]["share"], spec["held_out"]["seed"]
    return _parts(spec["network"], spec["samples"], share, seed)


@lru_cache(maxsize=1)
def _parts(network: str, samples: int, share: float, seed: int) -> tuple[Arrays, Arrays]:
    import numpy as np

    from onnx_layermerge.data import InputSpec, load_calibration
    from onnx_layermerge.graph import read

    job = NETWORKS[network]
    inputs = [InputSpec(info.name, info.shape, info.dtype) for info in read(ROOT / job.model).inputs]
    calib = load_calibration(str(ROOT / job.calib), inputs, limit=samples, seed=seed)
    fit, held_out = (part.batch(np.arange(len(part))) for part in calib.split(share, seed))
    return fit, held_out


@contextmanager
def cpu_clock() -> Iterator[None]:
    """Inside, trainings go by the CPU time of this process."""
    from onnx_layermerge.recover import training

    rooms = [import_module(f"{training.__name__}.{each.name}") for each in iter_modules(training.__path__)]
    with ExitStack() as stack:
        for room in rooms:  # whichever of them look at the time
            if getattr(room, "time", None) is time:
                stack.enter_context(patch.object(room, "time", SimpleNamespace(monotonic=time.process_time)))
        yield


def clock(spec: Row) -> AbstractContextManager[None]:
    """What the minutes of the row's trainings are counted by."""
    return cpu_clock() if spec["train_on"] == "cpu" else nullcontext()


def spent_s(spec: Row, cost: Row) -> float:
    """Seconds of a stage by that clock."""
    return float(cost["cpu_s" if spec["train_on"] == "cpu" else "wall_s"])


def look(spec: Row) -> Row:
    """Whether the device is there to train on; the sentence where it is not."""
    from onnx_layermerge.errors import OlmError
    from onnx_layermerge.recover.training import check_device

    try:
        check_device(spec["train_on"], "--device")
    except OlmError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    return {"error": None, "exit_code": 0}


def device_name(spec: Row) -> Row:
    """Which GPU a training ran on; nothing of a processor, or of a row without training."""
    if spec["train_on"] == "cpu" or ROWS[spec["row"]].training == "none":
        return {}
    torch = import_module("torch")  # an extra, and checked without it
    return {"device_name": torch.cuda.get_device_name(spec["train_on"])}
