"""Arrays in files, ``.npz`` and folders of ``.npy``, opened without pickle and read as late as possible.

- ``.npz``: one array for each input, named after it; axis 0 counts samples. An array that ``np.savez``
  stored is mapped into memory where it lies in the zip file; of one that ``np.savez_compressed`` packed only
  the chosen rows are kept while it is unpacked.
- A folder of ``.npy``: for a model with one input the files lie in the folder itself, or in a sub-folder
  named after the input; for more inputs there is a sub-folder for each, and files of the same name belong
  together. A file holds one sample, or several if it has the batch axis.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnx_layermerge.data._memory import check_fits
from onnx_layermerge.data._sources import (
    ArrayStore,
    Index,
    Survey,
    choose,
    count_samples,
    ignored,
    reason,
    survey_samples,
)
from onnx_layermerge.data._specs import Array, Arrays, InputSpec, ShapeRule, check_dtype, check_names, convert
from onnx_layermerge.errors import DataError

_DAMAGED = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def _read_header(handle: IO[bytes], where: str) -> _Header:
    """The header of an ``.npy`` stream, which then stands at the first value; ValueError where it is none."""
    version = np.lib.format.read_magic(handle)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{where} holds records, but the model takes plain arrays: save plain arrays.")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(handle)
    if dtype.hasobject:
        raise DataError(
            f"{where} holds pickled Python objects, which are never loaded: save plain numeric arrays."
        )
    return _Header(shape, fortran, dtype)


def open_npz(path: Path, inputs: Sequence[InputSpec], limit: int | None, seed: int) -> ArrayStore:
    """A store over a ``.npz`` file, as the module's docstring says."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            notes = ignored(check_names(members, inputs, str(path)), str(path))
            headers = {}
            for spec in inputs:
                with archive.open(members[spec.name]) as handle:
                    headers[spec.name] = _read_header(handle, f"The array '{spec.name}' in {path}")
            sizes = {name: (header.shape, header.dtype) for name, header in headers.items()}
            total = count_samples(sizes, inputs, str(path))
            chosen = choose(total, limit, seed)
            columns = {name: _npz_column(path, archive, members[name], chosen) for name in headers}
    except _DAMAGED as error:
        raise _bad_npz(path, error) from error
    return ArrayStore(inputs, columns, chosen, str(path), notes)


def open_array(path: Path, name: str) -> Array | None:
    """One array [N, …] of a ``.npz`` file, whole, mapped where it can be; None where there is none of that name.

    Raises:
        DataError: the file is damaged, or the array is pickled, a single number, or larger than memory allows.
    """
    where = f"The array '{name}' in {path}"
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if name not in members:
                return None
            with archive.open(members[name]) as handle:
                shape = _read_header(handle, where).shape
            if not shape:
                raise DataError(f"{where} is a single number: give an array with samples along axis 0.")
            values, _ = _npz_column(path, archive, members[name], np.arange(shape[0], dtype=np.intp))
            return values
    except _DAMAGED as error:
        raise _bad_npz(path, error) from error


def _bad_npz(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path} cannot be read as a .npz file ({reason(error)}): write it with numpy.savez.")


def _npz_column(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, chosen: Index
) -> tuple[Array, Index]:
    with archive.open(info) as handle:
        header = _read_header(handle, str(path))
        start = handle.tell()
        if info.compress_type == zipfile.ZIP_STORED:
            # In the zip format a local header is 30 bytes, with the lengths of what follows it at 26 and 28.
            with path.open("rb") as whole:
                whole.seek(info.header_offset)
                local = whole.read(30)
            extra = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
            offset = info.header_offset + 30 + extra + start
            order = "F" if header.fortran else "C"
            mapped: Array = np.memmap(path, header.dtype, "r", offset, header.shape, order)  # type: ignore[call-overload]
            return mapped, chosen
        row_shape = header.shape[1:]
        row_bytes = int(np.prod(row_shape, dtype=np.int64)) * header.dtype.itemsize
        held = (header.shape[0] if header.fortran else len(chosen)) * row_bytes
        check_fits(held, str(path), "use fewer samples (--samples), or numpy.savez, which is read in place")
        if header.fortran:  # rows are not contiguous: the array is needed whole
            data = handle.read()
            full = np.frombuffer(data, header.dtype).reshape(header.shape, order="F")
            return full[chosen].copy(), np.arange(len(chosen), dtype=np.intp)
        kept = np.empty((len(chosen), *row_shape), dtype=header.dtype)
        for place, number in enumerate(chosen):
            handle.seek(start + int(number) * row_bytes)  # unpacks and drops what lies between
            kept[place] = np.frombuffer(handle.read(row_bytes), header.dtype).reshape(row_shape)
        return kept, np.arange(len(chosen), dtype=np.intp)


class NpyStore:
    """Samples in ``.npy`` files: of each its files by input, and its row in them (None: the whole file)."""

    notes: tuple[str, ...] = ()

    def __init__(
        self, inputs: Sequence[InputSpec], samples: Sequence[tuple[dict[str, Path], dict[str, int | None]]]
    ) -> None:
        self._inputs = tuple(inputs)
        self._samples = tuple(samples)

    def __len__(self) -> int:
        return len(self._samples)

    def rows(self, indices: Index) -> Arrays:
        """The samples stacked along axis 0."""
        raws = [self._raw(int(index))[0] for index in indices]
        return {spec.name: np.stack([convert(raw[spec.name], spec) for raw in raws]) for spec in self._inputs}

    def where(self, number: int) -> str:
        files, rows = self._samples[number]
        name = self._inputs[0].name
        return str(files[name]) if rows[name] is None else f"sample {rows[name]} of {files[name]}"

    def survey(self) -> Survey:
        return survey_samples(map(self._raw, range(len(self))), self._inputs)

    def _raw(self, number: int) -> tuple[Arrays, str]:
        files, rows = self._samples[number]
        raw: Arrays = {}
        for name, path in files.items():
            row = rows[name]
            try:
                # Mapped for this one copy only: a thousand open maps would exhaust the file handles.
                values = np.load(path, mmap_mode="r", allow_pickle=False)
                raw[name] = np.array(values if row is None else values[row])
            except _DAMAGED as error:
                raise _bad_npy(path, error) from error
        return raw, f"The file {files[self._inputs[0].name]}"


def _bad_npy(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path} cannot be read as a .npy file ({reason(error)}): write it with numpy.save.")


def open_npy_folder(folder: Path, inputs: Sequence[InputSpec], limit: int | None, seed: int) -> NpyStore:
    """A store over a folder of ``.npy`` files, as the module's docstring says."""
    groups = _npy_groups(folder, inputs)
    rule = ShapeRule(inputs)
    samples: list[tuple[dict[str, Path], dict[str, int | None]]] = []
    for files in groups:
        counts: dict[str, int | None] = {}
        for spec in inputs:
            path = files[spec.name]
            try:
                with path.open("rb") as handle:
                    header = _read_header(handle, str(path))
            except _DAMAGED as error:
                raise _bad_npy(path, error) from error
            check_dtype(header.dtype, spec, str(path))
            single = len(header.shape) == len(spec.shape) - 1
            rule.check(spec.name, header.shape if single else header.shape[1:], str(path), header.shape)
            counts[spec.name] = None if single else header.shape[0]
        totals = {1 if count is None else count for count in counts.values()}
        if len(totals) > 1:
            listed = ", ".join(map(str, files.values()))
            raise DataError(f"The files {listed} differ in samples: give all of them the same number.")
        for row in range(totals.pop()):
            samples.append((files, {name: None if count is None else row for name, count in counts.items()}))
    if not samples:
        raise DataError(f"The .npy files in {folder} hold no samples: fill their arrays along axis 0.")
    return NpyStore(inputs, [samples[int(index)] for index in choose(len(samples), limit, seed)])


def _npy_groups(folder: Path, inputs: Sequence[InputSpec]) -> list[dict[str, Path]]:
    """The files that belong together, by input, sorted by file name."""
    listed = {spec.name: {path.name: path for path in (folder / spec.name).glob("*.npy")} for spec in inputs}
    if len(inputs) == 1 and not listed[inputs[0].name]:
        listed = {inputs[0].name: {path.name: path for path in folder.glob("*.npy")}}
    if not all(listed.values()):
        names = ", ".join(f"'{spec.name}'" for spec in inputs)
        found = ", ".join(sorted(f"'{p.name}'" for p in folder.iterdir() if p.is_dir())) or "no sub-folders"
        raise DataError(
            f"{folder} needs a sub-folder with .npy files for each of the model's inputs {names}, but has "
            f"{found}: name them after the inputs."
        )
    common = sorted(set.intersection(*(set(files) for files in listed.values())))
    for name, files in listed.items():
        lonely = sorted(set(files) - set(common))
        if lonely:
            raise DataError(
                f"{files[lonely[0]]} has no partner of that name for every input: "
                f"give each input the same file names as '{name}', or remove the file."
            )
    return [{spec.name: listed[spec.name][file] for spec in inputs} for file in common]
