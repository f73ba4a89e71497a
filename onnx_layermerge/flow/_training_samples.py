"""Samples to train on and to judge by: those of ``compress``, with class numbers beside them where there are some."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnx_layermerge.data import Calibration, ImageOptions, suspicious_range
from onnx_layermerge.errors import DataError, UsageError
from onnx_layermerge.flow._data import open_data
from onnx_layermerge.flow._prepare import Prepared
from onnx_layermerge.graph import InputInfo, load_runnable

__all__ = ["training_samples"]

# Share that is held back where no source to judge by is given.
HELD_OUT = 0.25

SEEN = (
    "{copies} of the {count} samples to judge by ({val}) are learned from as well ({data}), so what is said of "
    "held-out samples is too good: give others, or leave --val out"
)


def training_samples(
    prepared: Prepared,
    data: object,
    val: object,
    images: ImageOptions,
    samples: int,
    labels: str | None,
    seed: int,
) -> tuple[Calibration, Calibration, str, tuple[str, ...]]:
    """To learn from and to judge by, their digest, and what is to be said of them.

    Raises:
        DataError: the data do not fit the model, or have no labels of that name.
        UsageError: the labels are an input of the model.
    """
    opened = _open(prepared, data, images, samples, labels, seed)
    digest, warnings = opened.digest(), opened.warnings
    if val is None:
        fit, held_out = opened.split(HELD_OUT, seed)
    else:
        fit, held_out = opened, _open(prepared, val, images, samples, labels, seed)
        digest += "+" + held_out.digest()
        warnings += (*held_out.warnings, *_seen(fit, held_out))
    network, plain = prepared.network, _unlabelled(fit, labels)
    if network.widened is None:
        doubt = suspicious_range(load_runnable(network.source), network.model, plain, prepared.batch)
        warnings += () if doubt is None else (doubt,)
    return fit, held_out, digest, warnings


def _seen(fit: Calibration, held_out: Calibration) -> tuple[str, ...]:
    """What is to be said where samples that judge are copies of some that are learned from."""
    learned = set(fit.fingerprints())
    copies = sum(each in learned for each in held_out.fingerprints())
    if not copies:
        return ()
    return (SEEN.format(copies=copies, count=len(held_out), val=held_out.source, data=fit.source),)


def _open(
    prepared: Prepared, source: object, images: ImageOptions, samples: int, labels: str | None, seed: int
) -> Calibration:
    """The source for the model's inputs and, with ``labels``, for one more that no node reads."""
    network = prepared.network
    if labels is None:
        return open_data(prepared, source, images, samples, seed)
    if any(info.name == labels for info in network.inputs):
        raise UsageError(f"--labels {labels} is an input of the model; name the array that holds the class numbers.")
    folder = isinstance(source, (str, Path)) and Path(source).is_dir()
    if folder and not (Path(str(source)) / labels).is_dir():
        raise DataError(f"{source} has no labels: images come without; give a .npz with an array '{labels}' as well.")
    told = InputInfo(labels, (None,), np.dtype(np.int64))
    more = replace(
        prepared,
        network=replace(network, inputs=(*network.inputs, told)),
        bound={**prepared.bound, labels: (prepared.batch,)},
    )
    try:
        return open_data(more, source, images, samples, seed)
    except DataError as error:
        # What is wrong with the inputs is said of those alone.
        where = open_data(prepared, source, images, samples, seed).source
        raise DataError(
            f"{where} has no array '{labels}' of one class number for each sample, which --labels needs: name another, "
            "or save it as integers."
        ) from error


def _unlabelled(data: Calibration, labels: str | None) -> Calibration:
    if labels is None:
        return data
    inputs = [spec for spec in data.inputs if spec.name != labels]
    numbers = np.arange(len(data), dtype=np.intp)
    return Calibration(_Inputs(data, labels), inputs, data.source, [bytes([0])] * len(data), numbers)


class _Inputs:
    """The samples without their labels, as a store."""

    def __init__(self, data: Calibration, labels: str) -> None:
        self._data, self._labels = data, labels

    def __len__(self) -> int:
        return len(self._data)

    def rows(self, indices: np.ndarray[Any, np.dtype[np.intp]]) -> dict[str, np.ndarray]:
        found = self._data.batch(indices)
        del found[self._labels]
        return found
