"""Calibration data: the samples of one source, as batches, disjoint parts and a digest.

A ``Calibration`` is a view: an immutable list of sample numbers into a store that all views of one source
share. Two samples are copies of each other when their fingerprints (SHA-256, see ``Survey``) are equal; a
split puts all copies of a sample on one side, since a validation sample that was fitted on validates nothing.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from onnx_layermerge.data._files import open_npy_folder, open_npz
from onnx_layermerge.data._images import ImageStore, find_images, open_images
from onnx_layermerge.data._options import ImageOptions
from onnx_layermerge.data._sources import Index, Named, Rows, Store, Survey
from onnx_layermerge.data._specs import Arrays, InputSpec, check_inputs
from onnx_layermerge.data._streams import from_object, from_script, is_script
from onnx_layermerge.errors import DataError, UsageError

FEW_SAMPLES = 32
CACHE_BYTES = 512 << 20
DEFAULT_IMAGES = ImageOptions()


class Calibration:
    """Samples for a model's inputs, by number from 0.

    source: the source in words, for messages and provenance.
    inputs: what the samples are for.
    warnings: sentences about the data for the caller to show; parts made by split and take have none.
    """

    def __init__(
        self,
        store: Rows,
        inputs: Sequence[InputSpec],
        source: str,
        fingerprints: Sequence[bytes],
        numbers: Index,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.source = source
        self.inputs = tuple(inputs)
        self.warnings = warnings
        self._store = store
        self._prints = fingerprints
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"Calibration({len(self)} samples from {self.source})"

    def batch(self, indices: Sequence[int] | Index) -> Arrays:
        """The samples of these numbers (at least one; negative ones count from the end), by input name.

        Each array is a copy of shape (len(indices), *sample), C-contiguous, in the input's dtype. Raises
        IndexError for a number out of range, DataError for an image that cannot be read.
        """
        wanted = np.asarray(indices, dtype=np.intp).reshape(-1)
        if wanted.size == 0:
            raise IndexError("a batch needs at least one sample number")
        return self._store.rows(self._numbers[wanted])

    def batches(self, size: int) -> Iterator[Arrays]:
        """All samples in order, ``size`` at a time; the last batch may be smaller.

        An input with a fixed batch axis takes whole batches only: what is left over is skipped. DataError where
        not even one batch is full.
        """
        step = _at_least_one("batch size", size)
        fixed = any(isinstance(spec.shape[0], int) for spec in self.inputs)
        if fixed and len(self) < step:
            raise DataError(f"{self.source} gives {len(self)} samples, but the model takes {step} at once: add more.")
        for start in range(0, len(self) - len(self) % step if fixed else len(self), step):
            yield self.batch(range(start, min(start + step, len(self))))

    def split(self, validation_fraction: float = 0.25, seed: int = 0) -> tuple[Calibration, Calibration]:
        """(fit, validation): disjoint, together everything, copies of a sample never on both sides.

        Validation holds the fraction, rounded, or somewhat fewer where copies stand in the way. The same
        seed gives the same split. DataError where fewer than two different samples exist, UsageError for a
        fraction outside (0, 1).
        """
        if not 0 < validation_fraction < 1:
            raise UsageError(f"The validation fraction {validation_fraction} must lie between 0 and 1.")
        groups: dict[bytes, list[int]] = {}
        for position, number in enumerate(self._numbers):
            groups.setdefault(self._prints[int(number)], []).append(position)
        if len(groups) < 2:
            raise DataError(
                f"{self.source} cannot be split for validation, for it has only one distinct sample: "
                "give at least two different ones."
            )
        goal = min(max(1, round(len(self) * validation_fraction)), len(self) - 1)
        members = list(groups.values())
        order = np.random.default_rng(seed).permutation(len(members))
        held_out: list[int] = []
        for place in order:
            if len(held_out) + len(members[place]) <= goal:
                held_out += members[place]
        if not held_out:  # every sample has more copies than the goal: the rarest one validates
            held_out = min(members, key=lambda copies: len(copies))
        mask = np.zeros(len(self), dtype=bool)
        mask[held_out] = True
        return self._part(self._numbers[~mask]), self._part(self._numbers[mask])

    def take(self, n: int, seed: int = 0) -> Calibration:
        """A random subset of n samples that the seed decides, in their order; all of them if n is larger."""
        if _at_least_one("number of samples", n) >= len(self):
            return self._part(self._numbers)
        picked = np.random.default_rng(seed).choice(len(self), size=n, replace=False)
        return self._part(self._numbers[np.sort(picked)])

    def digest(self) -> str:
        """SHA-256 in hexadecimal over the samples in their order, from fingerprints taken at the start.

        Equal arrays have equal digests whatever source they came from. Images count by the bytes of their
        files and by how they are turned into samples, so that the digest needs no decoding.
        """
        total = hashlib.sha256()
        for number in self._numbers:
            total.update(self._prints[int(number)])
        return total.hexdigest()

    def fingerprints(self) -> tuple[bytes, ...]:
        """What tells the samples apart, in their order: copies of one sample have the same one."""
        return tuple(self._prints[int(number)] for number in self._numbers)

    @property
    def distinct(self) -> int:
        """How many of the samples are different."""
        return len(set(self.fingerprints()))

    def where(self, index: int) -> str:
        """Words for a sample, by which it is found in its source: its number there or its file."""
        number = int(self._numbers[index])
        return self._store.where(number) if isinstance(self._store, Named) else f"sample {number}"

    def _part(self, numbers: Index) -> Calibration:
        return Calibration(self._store, self.inputs, self.source, self._prints, numbers)


def load_calibration(
    source: str | Path | object,
    inputs: Sequence[InputSpec],
    *,
    images: ImageOptions = DEFAULT_IMAGES,
    limit: int | None = None,
    seed: int = 0,
    cache_bytes: int = CACHE_BYTES,
) -> Calibration:
    """Opens calibration data for these inputs.

    source: the path of a ``.npz``, of a folder of ``.npy`` or of images; ``script.py:function``; or a dict
        of arrays, an iterable of dicts, or an object with ``get_next()``.
    images: how images become samples; of no effect on other sources.
    limit: at most so many samples: a random subset (by ``seed``) where samples have numbers, the first ones
        of a stream. ``None``: all.
    cache_bytes: decoded images are kept up to this many bytes.

    Raises DataError (exit code 1) where the data do not fit, UsageError (2) for a limit below 1.
    """
    specs = check_inputs(inputs)
    if limit is not None:
        limit = _at_least_one("limit on samples", limit)
    store, text = _open(source, specs, images, limit, seed, cache_bytes)
    survey = store.survey()
    notes = store.notes + _warnings(survey)
    if images != DEFAULT_IMAGES and not isinstance(store, ImageStore):
        notes += (f"{text} holds arrays, not images: the image options have no effect.",)
    return Calibration(store, specs, text, survey.fingerprints, np.arange(len(store), dtype=np.intp), notes)


def _at_least_one(what: str, value: int) -> int:
    number = operator.index(value)
    if number < 1:
        raise UsageError(f"The {what} is {value}: give at least 1.")
    return number


def _open(
    source: object,
    specs: tuple[InputSpec, ...],
    images: ImageOptions,
    limit: int | None,
    seed: int,
    cache_bytes: int,
) -> tuple[Store, str]:
    """The store for the source, and the source in words."""
    if not isinstance(source, (str, Path)):
        text = "The dict of arrays" if isinstance(source, dict) else f"The {type(source).__name__}"
        return from_object(source, specs, text, limit, seed), text
    text = str(source)
    path = Path(source)
    if is_script(text):
        return from_script(text, specs, limit, seed), text
    kinds = "a .npz, a folder of .npy or images, or script.py:function"
    if not path.exists():
        raise DataError(f"There is no calibration data at {text}: give {kinds}.")
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise DataError(f"{text} is no calibration data: give {kinds}.")
        return open_npz(path, specs, limit, seed), text
    return _open_folder(path, specs, images, limit, seed, cache_bytes), text


def _open_folder(
    path: Path,
    specs: tuple[InputSpec, ...],
    images: ImageOptions,
    limit: int | None,
    seed: int,
    cache_bytes: int,
) -> Store:
    arrays = any(path.glob("*.npy")) or any(path.glob("*/*.npy"))
    pictures = find_images(path)
    if arrays and pictures:
        raise DataError(f"{path} holds both .npy files and images: leave one kind in it.")
    if arrays:
        return open_npy_folder(path, specs, limit, seed)
    if pictures:
        return open_images(path, pictures, specs, images, limit, seed, cache_bytes)
    raise DataError(f"{path} holds no .npy files and no images (png, jpg, bmp, webp, tif): put some there.")


def _warnings(survey: Survey) -> tuple[str, ...]:
    total, distinct = len(survey.fingerprints), len(set(survey.fingerprints))
    notes = []
    if distinct < FEW_SAMPLES and distinct == total:
        notes.append(f"Only {total} calibration samples: fits are poor below {FEW_SAMPLES}, give more.")
    elif 1 < distinct < FEW_SAMPLES:
        notes.append(f"Only {distinct} different calibration samples: fits are poor below {FEW_SAMPLES}, give more.")
    if total > 1 and distinct == 1:
        notes.append(f"All {total} calibration samples are identical: give different ones.")
    elif distinct < total:
        notes.append(f"{total - distinct} of {total} calibration samples are exact copies of others.")
    if survey.constant:
        notes.append(
            f"{survey.constant} of {survey.probed} calibration samples looked at are constant "
            "(one value or one colour throughout): check how they were made."
        )
    return tuple(notes)
