"""Weights in other files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto

from tests.graph.bad_models._case import CASES, good, saved, tensor


def external(said: str) -> Callable[[Callable[[Path, TensorProto], None]], None]:
    """The weights of c1 in ``w.bin`` beside the model, whose entry or file is then changed."""

    def add(change: Callable[[Path, TensorProto], None]) -> None:
        def build(folder: Path) -> Path:
            model = good()
            held = tensor(model, "c1.w")
            (folder / "w.bin").write_bytes(held.raw_data)
            move(held, "w.bin", 0, 864)
            change(folder, held)
            return saved(folder, model)

        CASES[change.__name__] = (build, said)

    return add


def move(held: TensorProto, location: str, offset: object = 0, length: object = 864) -> None:
    held.ClearField("raw_data")
    held.ClearField("external_data")
    held.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        held.external_data.add(key=key, value=str(value))


def outside(folder: Path) -> Path:
    """A good data file, but in the folder above."""
    place = folder.parent / f"{folder.name}.bin"
    place.write_bytes((folder / "w.bin").read_bytes())
    return place


@external("'c1.w' lies in '.*', outside the model's folder; copy its data file")
def external_above(folder, held):
    move(held, f"../{outside(folder).name}")


@external("'c1.w' lies in '/.*', an absolute path")
def external_absolute(folder, held):
    move(held, str(folder / "w.bin"))


@external(r"'c1.w' lies in 'C:\\w.bin', an absolute path")
def external_on_a_drive(folder, held):
    move(held, "C:\\w.bin")


@external("'c1.w' lies in 'link.bin', outside the model's folder")
def external_link(folder, held):
    (folder / "link.bin").symlink_to(outside(folder))
    move(held, "link.bin")


@external("'c1.w' lies in 'w.bin', which has 2 hard links; copy that file")
def external_hard_link(folder, held):
    os.link(folder / "w.bin", folder / "other.bin")


@external("'c1.w' lies in 'w.bin', which is missing")
def external_missing(folder, held):
    (folder / "w.bin").unlink()


@external("'c1.w' lies in 'w.bin', which is no file")
def external_folder(folder, held):
    (folder / "w.bin").unlink()
    (folder / "w.bin").mkdir()


@external("'c1.w' ends at byte 868 of 'w.bin', which has 864")
def external_short(folder, held):
    move(held, "w.bin", 4)


@external("'c1.w' of .* needs 864 bytes and declares 860 at 0")
def external_length(folder, held):
    move(held, "w.bin", 0, 860)


@external("declares 864 at -4")
def external_before_the_file(folder, held):
    move(held, "w.bin", -4)


@external("an offset or of a length that is no number")
def external_no_number(folder, held):
    move(held, "w.bin", "first")


@external("'c1.w' lies in a file without a name")
def external_nameless(folder, held):
    move(held, "")


@external("'c1.w' ends at byte 103079215104 of 'w.bin'")
def external_absurd(folder, held):
    held.dims[:] = [6, 4096, 1024, 1024]
    move(held, "w.bin", 0, 103079215104)


@external("the tensor 'c1.w' holds NaN")
def external_nan(folder, held):
    values = np.ones(216, np.float32)
    values[-1] = np.nan
    (folder / "w.bin").write_bytes(values.tobytes())
