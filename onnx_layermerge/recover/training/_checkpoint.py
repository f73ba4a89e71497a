"""Where a training stands, in a file: a ``.npz`` of plain arrays and one JSON text, nothing that could run code.

Together with the seed it is all that the steps to come depend on, so a training that goes on makes the very steps it
would have made.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnx_layermerge.errors import DataError
from onnx_layermerge.graph import write_bytes
from onnx_layermerge.recover.training._call import Tensor
from onnx_layermerge.recover.training._options import Check

__all__ = ["Checkpoint", "check_checkpoint", "load_checkpoint", "save_checkpoint"]

VERSION = 1
# What files that are no checkpoints, or damaged ones, make NumPy and JSON raise.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """``tensors`` by kind: what ``Stepper.state`` gives, and ``best``, the d of the best check (empty: the start)."""

    step: int
    rate: float
    elapsed_s: float
    best_value: float
    checks: tuple[Check, ...]
    losses: tuple[float, ...]
    fingerprint: Mapping[str, str]
    tensors: Mapping[str, Sequence[Tensor]]


def save_checkpoint(path: Path, state: Checkpoint) -> None:
    """Write it, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    told = {
        "version": VERSION,
        "step": state.step,
        "rate": state.rate,
        "elapsed_s": state.elapsed_s,
        "best_value": state.best_value,
        "checks": [asdict(check) for check in state.checks],
        "losses": list(state.losses),
        "fingerprint": dict(state.fingerprint),
    }
    arrays: dict[str, Any] = {
        f"{kind}/{number}": tensor.detach().cpu().numpy()
        for kind, tensors in state.tensors.items()
        for number, tensor in enumerate(tensors)
    }
    # As bytes: JSON's numbers come back to the last bit, and NumPy's own text would be padded.
    arrays["told"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    write_bytes(path, stream.getvalue())


def check_checkpoint(path: Path) -> None:
    """
    Raises:
        DataError: the file is none, as far as what it says of itself goes.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            told = json.loads(archive["told"].tobytes())
        told["version"], told["fingerprint"]
    except _UNREADABLE as error:
        raise _no_checkpoint(path, error) from error


def load_checkpoint(path: Path, fingerprint: Mapping[str, str]) -> Checkpoint:
    """
    Raises:
        DataError: the file is none, or is of another training; what differs is named.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        told = json.loads(arrays.pop("told").tobytes())
        if told["version"] != VERSION:
            raise DataError(f"{path} was written by another version of olm; start anew with another --checkpoint.")
        held = dict(told["fingerprint"])
        tensors: dict[str, list[Tensor]] = {}
        for name in sorted(arrays, key=lambda name: int(name.split("/")[1])):
            tensors.setdefault(name.split("/")[0], []).append(torch.from_numpy(arrays[name]))
        found = Checkpoint(
            step=int(told["step"]),
            rate=float(told["rate"]),
            elapsed_s=float(told["elapsed_s"]),
            best_value=float(told["best_value"]),
            checks=tuple(Check(**check) for check in told["checks"]),
            losses=tuple(told["losses"]),
            fingerprint=held,
            tensors=tensors,
        )
    except _UNREADABLE as error:
        raise _no_checkpoint(path, error) from error
    other = [name for name in {**fingerprint, **held} if fingerprint.get(name) != held.get(name)]
    if other:
        raise DataError(
            f"{path} is of another training ({', '.join(sorted(other))} differ): give what it was started with, or "
            "another --checkpoint."
        )
    return found


def _no_checkpoint(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path} is no checkpoint of olm finetune ({reason}); name another --checkpoint.")
