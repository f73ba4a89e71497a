"""The held-out samples: the original's answers once, the student's whenever it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Lock

import numpy as np
import onnx_ir as ir
import torch

from onnx_layermerge.data import Calibration, Layout, constant_outputs, gather
from onnx_layermerge.errors import DataError
from onnx_layermerge.graph import Session
from onnx_layermerge.importance import Divergence, divergence, spread_of
from onnx_layermerge.recover.training._call import Tensor
from onnx_layermerge.recover.training._losses import Objective, check_labels
from onnx_layermerge.recover.training._module import OnnxModule
from onnx_layermerge.recover.training._options import Answers, Options

__all__ = ["HeldOut", "to_device"]

SIZE = 32
# Samples that taps are looked at with.
PROBES = 64
# From here on a feature says nothing of what it stands for; below, it never changed.
USELESS, UNCHANGED = 0.9, 1e-10

Arrays = dict[str, np.ndarray]


def to_device(arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Inputs as tensors; floats in float32 unless they are float64."""
    found = {}
    for name, values in arrays.items():
        narrow = values.dtype.kind not in "iub" and values.dtype != np.float64
        array = np.ascontiguousarray(values, np.float32) if narrow else np.ascontiguousarray(values)
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)
        found[name] = torch.from_numpy(array).to(device)
    return found


class HeldOut:
    """``teacher`` is ``model`` as a module, ``answers`` are its, filled in where they are not; it is judged by
    ``samples`` samples.

    Outputs are joined along the axis that counts samples, whichever it is; constant ones, and those whose size depends
    on the samples, are not compared.

    Raises:
        DataError: there are too few samples for a batch of the model, the original's outputs on them are not finite, or
            a label is out of range.
    """

    def __init__(
        self,
        teacher: OnnxModule,
        model: ir.Model,
        data: Calibration,
        options: Options,
        device: torch.device,
        lock: Lock,
        outputs: Sequence[str],
        answers: Answers,
    ) -> None:
        self._data, self._device, self._lock = data, device, lock
        self._size = options.own_batch or SIZE
        self._fixed, self._labels = options.own_batch is not None, options.labels
        if options.own_batch and len(data) < options.own_batch:
            raise DataError(
                f"{data.source} leaves {len(data)} samples to judge by, but the model takes {options.own_batch} at "
                "once: add more."
            )
        if answers.parts is None:
            answers.parts = [*self._answered(teacher, outputs)]
        self._wanted = answers.parts
        for name in outputs:
            if not all(np.isfinite(part[name]).all() for part in self._wanted if part[name].dtype.kind == "f"):
                raise DataError(
                    f"The original's output '{name}' is NaN or infinite on {data.source}: check the range of the "
                    "samples, or repair the model."
                )
        self.samples = sum(self._counts())
        if answers.layout is None:
            answers.layout = self._layout_of(model, outputs)
        self._layout = answers.layout
        self.objective = Objective(options, self._joined(self._wanted), self._layout)
        if self.labelled:
            self.check_labels(data, self.objective.classes())

    @property
    def labelled(self) -> bool:
        return self._labels is not None

    def classes(self) -> int:
        """Of the labels; 0 without labels."""
        return self.objective.classes() if self.labelled else 0

    def check_labels(self, data: Calibration, classes: int) -> None:
        """DataError where a label of ``data`` is out of range."""
        assert self._labels is not None
        for start in range(0, len(data), 1024):
            with self._lock:
                found = data.batch(range(start, min(start + 1024, len(data))))[self._labels]
            check_labels(found, classes, self._labels, data.source)

    def _answered(self, teacher: OnnxModule, outputs: Sequence[str]) -> Iterator[Arrays]:
        for arrays in self._batches():
            with torch.no_grad():
                found = teacher(to_device(arrays, self._device))
            yield {name: found[name].cpu().numpy() for name in outputs}

    def _counts(self) -> list[int]:
        """Samples of each batch; what does not fill one is left out where the model's batch is fixed."""
        whole, rest = divmod(len(self._data), self._size)
        return [self._size] * whole + ([rest] if rest and not self._fixed else [])

    def _batches(self, limit: int | None = None) -> Iterator[Arrays]:
        start = 0
        for count in self._counts():
            with self._lock:
                arrays = self._data.batch(range(start, start + count))
            yield arrays
            start += count
            if limit is not None and start >= limit:
                return

    def _layout_of(self, model: ir.Model, outputs: Sequence[str]) -> Layout:
        """Told by a batch and, unless the model's is fixed, by one that is smaller by a sample."""
        count = min(self._size, len(self._data))
        with self._lock:
            first = self._data.batch(range(count))
        tries = [first]
        if count > 1 and not self._fixed:
            tries.append({name: values[:-1] for name, values in first.items()})
        _, found = gather(Session(model, once=True).run, tries)
        compared = set(outputs) - constant_outputs(model)
        axes = {name: axis for name, axis in found.axes.items() if name in compared}
        return replace(found, axes=axes, samples=self.samples)

    def _joined(self, parts: Sequence[Arrays]) -> Arrays:
        return self._layout.join(parts) if self._layout.axes else {}

    def judge(self, student: OnnxModule) -> tuple[float, Divergence]:
        """The loss without features, mean over samples, and how far the outputs lie apart."""
        total, got = 0.0, []
        for arrays, exact, count in zip(self._batches(), self._wanted, self._counts(), strict=True):
            feeds = to_device(arrays, self._device)
            with torch.no_grad():
                found = student(feeds)
                wanted = {name: torch.from_numpy(values).to(self._device) for name, values in exact.items()}
                value = self.objective.judged(found, wanted, feeds.get(self._labels or ""), count)
            total += count * float(value)
            got.append({name: found[name].cpu().numpy() for name in exact})
        return total / self.samples, divergence(self._joined(self._wanted), self._joined(got))

    def tap(self, teacher: OnnxModule, student: OnnxModule, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the values in both models that still stand for the same thing and did change; they are compared from
        now on."""
        errors, spreads = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        count = 0
        for arrays in self._batches(PROBES):
            feeds = to_device(arrays, self._device)
            with torch.no_grad():
                wanted, got = teacher(feeds, names), student(feeds, names)
            count += len(next(iter(arrays.values())))
            for name in names:
                one, other = wanted[name].cpu().numpy(), got[name].cpu().numpy()
                if one.shape != other.shape:
                    errors[name] = float("inf")
                    continue
                errors[name] += float(np.square(one.astype(np.float64) - other).sum())
                spreads[name] += spread_of(one)
        kept = {n: spreads[n] / count for n in names if UNCHANGED < errors[n] / spreads[n] < USELESS}
        self.objective.add_features(kept)
        return tuple(kept)
