"""Metrics that need no script: ``NAME:FILE.npz``, or ``NAME:FILE.npz#output`` to pick one of the model's outputs.

FILE.npz holds an array [N, …] for every input, named after it, and what is known of the samples.  With ŷ an output and
y its target, over samples i, higher is better:

    top1, top5   share of samples whose label is among the 1 or 5 highest scores               needs ``labels`` [N]
    agreement    share of samples with the same highest score as the original's
    mse          −mean (ŷ − y)², negative                                                      needs targets [N, …]
    psnr         meanᵢ 10 log₁₀ (peak² / mean (ŷᵢ − yᵢ)²), peak = max y − min y over all i     needs targets [N, …]

1. Scores that tie are in the order of their classes, as for ``argmax``; those with a NaN among them are wrong.
2. Errors below 2⁻²⁴ of the peak, which is float32's rounding, count as that: psnr is at most 144.5 dB.
3. A target is named after its output, ``target.<output>`` where that is an input's name, too; labels likewise.  Of
   several outputs with a target the mean is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onnx_layermerge.data import Calibration, InputSpec, load_calibration, open_array
from onnx_layermerge.errors import DataError, UsageError
from onnx_layermerge.graph import Network
from onnx_layermerge.importance import has_classes_shape

__all__ = ["NAMES", "built_in", "is_script"]

NAMES = ("top1", "top5", "agreement", "psnr", "mse")
# So many of the model's batches are run, and held, at once.
BATCHES = 8
LEAST = 2.0**-24

Runner = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def is_script(source: str) -> bool:
    """Whether the words are meant as ``script.py:function``, and not as ``NAME:FILE.npz``."""
    return source.endswith(".py") or source.rpartition(":")[0].endswith(".py")


def built_in(source: str, network: Network, batch: int, fixed: bool) -> Callable[[Runner], float]:
    """The metric behind ``NAME:FILE.npz#output``, a function of a model; the first it gets has to be the original.

    ``batch`` samples are run at once, whole batches only if ``fixed``.

    Raises:
        UsageError: there is no such metric, file or output, or, when it is called, the outputs are none for it.
        DataError: the file is damaged, or what it holds does not fit the model, or lacks what the metric needs.
    """
    name, _, rest = source.partition(":")
    if name not in NAMES:
        raise UsageError(
            f"--metric {source}: there is no metric '{name}'; give one of {', '.join(NAMES)} as NAME:FILE.npz, "
            "or script.py:function."
        )
    stem, suffix, picked = rest.partition(".npz#")
    file = stem + ".npz" if suffix else rest
    if not file.endswith(".npz"):
        raise UsageError(f"--metric {source} names no .npz file; give {name}:FILE.npz.")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"--metric {source}: there is no file {file}; give the path of a .npz file.")
    if suffix and picked not in network.outputs:
        raise UsageError(
            f"--metric {source}: the model has no output '{picked}'; name one of {_listed(network.outputs)}."
        )
    specs = [InputSpec(info.name, info.shape, np.dtype(info.dtype)) for info in network.inputs]
    data = load_calibration(path, specs)
    if fixed and len(data) % batch:
        raise DataError(
            f"{path} holds {len(data)} samples, but the model takes {batch} at once: give a multiple of that."
        )
    samples = _Samples(source, name, path, data, batch * BATCHES)
    outputs = (picked,) if suffix else network.outputs
    if name in ("psnr", "mse"):
        return _Errors(samples, _targets(samples, outputs))
    return _Scores(samples, outputs, None if name == "agreement" else _labels(samples))


@dataclass(frozen=True, eq=False)
class _Samples:
    """The file's samples for one metric, ``step`` at once."""

    source: str
    metric: str
    path: Path
    data: Calibration
    step: int

    def run(self, model: Runner) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """The outputs of the model, and the samples that they are for."""
        for start in range(0, len(self.data), self.step):
            rows = slice(start, min(start + self.step, len(self.data)))
            yield rows, model(self.data.batch(range(rows.start, rows.stop)))

    def array(self, name: str) -> tuple[str, np.ndarray | None]:
        """What the file holds beside the inputs, and the name that it has there."""
        key = f"target.{name}" if any(spec.name == name for spec in self.data.inputs) else name
        return key, open_array(self.path, key)

    def rows_of(self, outputs: Mapping[str, np.ndarray], name: str, rows: slice) -> np.ndarray:
        """The output of that name, one row for each sample."""
        values = outputs.get(name)
        if values is None or values.shape[:1] != (rows.stop - rows.start,):
            raise UsageError(
                f"--metric {self.source}: the model's output '{name}' does not count samples along axis 0; "
                "name another one as #output, or write a script.py:function."
            )
        return values


def _labels(samples: _Samples) -> np.ndarray:
    key, labels = samples.array("labels")
    if labels is None:
        raise DataError(
            f"{samples.path} has no array '{key}', which {samples.metric} needs: add the class of each sample."
        )
    if labels.dtype.kind not in "iu" or labels.shape != (len(samples.data),):
        raise DataError(
            f"The array '{key}' in {samples.path} is {labels.dtype} of shape {labels.shape}, but there are "
            f"{len(samples.data)} samples: give one whole number for each."
        )
    return labels


def _targets(samples: _Samples, outputs: tuple[str, ...]) -> dict[str, tuple[str, np.ndarray]]:
    """By output: the name of its target in the file, and the target."""
    named = {name: samples.array(name) for name in outputs}
    found = {name: (key, values) for name, (key, values) in named.items() if values is not None}
    if not found:
        keys = _listed([key for key, _ in named.values()])
        raise DataError(
            f"{samples.path} has no target for {samples.metric}: add an array named after an output ({keys})."
        )
    return found


@dataclass(eq=False)
class _Scores:
    """top1, top5 and, without labels, agreement."""

    samples: _Samples
    outputs: tuple[str, ...]
    labels: np.ndarray | None
    name: str = ""
    original: np.ndarray | None = None

    def __call__(self, run: Runner) -> float:
        first = not self.name
        parts = []
        for rows, outputs in self.samples.run(run):
            self.name = self.name or self._pick(outputs)
            scores = self.samples.rows_of(outputs, self.name, rows)
            wrong = np.isnan(scores).any(axis=1)
            if first and wrong.any():
                raise DataError(
                    f"The original's output '{self.name}' is NaN for samples of {self.samples.path}: check their "
                    "range, or repair the model."
                )
            if self.labels is None:
                parts.append(np.where(wrong, -1, scores.argmax(axis=1)))
            else:
                labels = self._checked(self.labels, scores.shape[1])[rows].astype(np.int64)
                parts.append((_places(scores, labels) < self._deep) & ~wrong)
        found = np.concatenate(parts)
        if self.labels is not None:
            return float(found.mean())
        self.original = found if self.original is None else self.original
        return float((found == self.original).mean())

    @property
    def _deep(self) -> int:
        return 5 if self.samples.metric == "top5" else 1

    def _pick(self, outputs: Mapping[str, np.ndarray]) -> str:
        source = self.samples.source
        held = {name: outputs[name] for name in self.outputs if name in outputs}
        fitting = [n for n, v in held.items() if has_classes_shape(v) and np.issubdtype(v.dtype, np.floating)]
        if not fitting:
            raise UsageError(
                f"--metric {source}: there are no class scores, floats [N, classes], in {_listed(self.outputs)}; "
                "choose mse or psnr, or write a script.py:function."
            )
        if len(fitting) > 1:
            raise UsageError(
                f"--metric {source}: the outputs {_listed(fitting)} may all be class scores; name one, as in "
                f"{source}#{fitting[0]}."
            )
        classes = held[fitting[0]].shape[1]
        if classes <= self._deep:
            raise UsageError(f"--metric {source}: of {classes} classes the label is always in the top 5; choose top1.")
        return fitting[0]

    def _checked(self, labels: np.ndarray, classes: int) -> np.ndarray:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise DataError(
                f"The labels in {self.samples.path} go from {low} to {high}, but output '{self.name}' has {classes} "
                f"classes: give numbers from 0 to {classes - 1}."
            )
        return labels


def _places(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the label's in each row of scores [n, classes]."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    ties = (scores == own) & (np.arange(scores.shape[1]) < labels[:, None])
    places: np.ndarray = ((scores > own) | ties).sum(axis=1)
    return places


@dataclass(eq=False)
class _Errors:
    """mse and psnr; ``peaks`` by output, once the targets were looked at."""

    samples: _Samples
    targets: Mapping[str, tuple[str, np.ndarray]]
    peaks: dict[str, float] = field(default_factory=dict)

    def __call__(self, run: Runner) -> float:
        parts: dict[str, list[np.ndarray]] = {name: [] for name in self.targets}
        for rows, outputs in self.samples.run(run):
            for name, (key, target) in self.targets.items():
                got = self.samples.rows_of(outputs, name, rows)
                self._check(key, target, name, got)
                if name not in self.peaks:
                    self.peaks[name] = self._peak(key, target)
                errors = got.astype(np.float64) - target[rows].astype(np.float64)
                parts[name].append((errors**2).reshape(len(got), -1).mean(axis=1))
        return float(np.mean([self._value(name, np.concatenate(found)) for name, found in parts.items()]))

    def _value(self, name: str, errors: np.ndarray) -> float:
        """Of the mean squared errors [N] of one output."""
        if not np.isfinite(errors).all():
            raise DataError(
                f"The model's output '{name}' is NaN or infinite for samples of {self.samples.path}: check "
                "their range, or repair the model."
            )
        if self.samples.metric == "mse":
            return -float(errors.mean())
        return float(-10 * np.log10(np.maximum(errors / self.peaks[name] ** 2, LEAST**2)).mean())

    def _check(self, key: str, target: np.ndarray, name: str, got: np.ndarray) -> None:
        wanted = (len(self.samples.data), *got.shape[1:])
        floats = [np.issubdtype(each.dtype, np.floating) for each in (target, got)]
        if target.shape != wanted or floats[0] != floats[1] or target.dtype.kind not in "fiub":
            raise DataError(
                f"The array '{key}' in {self.samples.path} is {target.dtype} of shape {target.shape}, but output "
                f"'{name}' is {got.dtype} of shape {wanted}: give a target of that kind and shape."
            )

    def _peak(self, key: str, target: np.ndarray) -> float:
        low, high = (float(each) for each in (target.min(), target.max())) if target.size else (np.nan, np.nan)
        if not np.isfinite(high - low):  # a NaN is both the least and the largest
            raise DataError(
                f"The array '{key}' in {self.samples.path} has NaN or infinite values, or none at all: "
                "leave such samples out."
            )
        if high == low and self.samples.metric == "psnr":
            raise DataError(
                f"The array '{key}' in {self.samples.path} has one value throughout, which gives psnr no peak: "
                "choose mse."
            )
        return high - low


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)
