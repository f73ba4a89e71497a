"""A plan as a file: small, to be read in a review, committed beside the model, and followed by later runs.

It holds what took long to find out (which blocks, and what was measured of them) and what tells whether it still fits:
the input's structure without its weights, the options, the device, and, for a lock, digests of everything that the
output's bytes depend on.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_layermerge.errors import PlanError, UsageError
from onnx_layermerge.fit import blas_name
from onnx_layermerge.flow._choose import Case
from onnx_layermerge.flow._prepare import Prepared
from onnx_layermerge.flow._record import versions
from onnx_layermerge.flow._search import Found, Place
from onnx_layermerge.graph import check_target, to_bytes, write_bytes
from onnx_layermerge.latency import Ratio, cpu_name
from onnx_layermerge.report import as_json, decoded
from onnx_layermerge.rewrite import NOTES
from onnx_layermerge.verify import structure_key

__all__ = [
    "PLAN_SCHEMA",
    "PlanFile",
    "PlannedBlock",
    "open_plan",
    "plan_file",
    "processor",
    "structure_of",
    "write_plan",
]

# docs/schemas/plan.v1.json describes it.  Fields may be added under one number, not changed.
PLAN_SCHEMA = "olm.plan/1"
_MOST_BYTES = 1 << 26
_MOST_LOSS = 1e100


@dataclass(frozen=True)
class PlannedBlock:
    """One replacement: its name and kind, the convolutions that it replaces, the table's milliseconds of those and
    what it saves, and what it alone does to the outputs (null: not known)."""

    name: str
    recipe: str
    was: tuple[str, ...]
    old_ms: float
    saves_ms: float
    kl: float


@dataclass(frozen=True)
class PlanFile:
    """One finished compression, as far as another run needs it.

    ``input`` is the SHA-256 of the file and of its external data, ``structure`` a hash of the prepared network without
    its weights and names, ``settings`` the options that decide on blocks, weights and time, ``calibration`` the
    SHA-256 of the samples.  ``device`` and ``device_digest`` are the latency table's key, ``speedup`` what was measured
    there of ``output`` in the end (SHA-256 of its file; of a model in two files, of what that comes to in one); any
    model of the structure ``output_structure`` takes as long.  ``recovery`` and ``refitted`` tell what was done to the
    weights beside the fits, ``kept`` why other convolutions stayed, as in the output's metadata.  ``mismatch`` is the
    device whose times it was planned with, where that was another one.
    """

    input: str
    structure: str
    settings: dict[str, str]
    device: str
    device_digest: str
    speedup: Ratio
    basis: str
    predicted: float
    blocks: tuple[PlannedBlock, ...]
    recovery: tuple[str, ...]
    refitted: tuple[str, ...]
    kept: dict[str, object]
    calibration: str
    output: str
    output_structure: str
    versions: dict[str, str]
    processor: str
    mismatch: str | None = None
    schema: str = PLAN_SCHEMA


def structure_of(prepared: Prepared, model: Any = None) -> str:
    """Hash of the prepared network, or of a model made from it, without names and what training decides."""
    source = prepared.network.model if model is None else model
    return structure_key(to_bytes(source), prepared.bound, learned=False)


def plan_file(case: Case, found: Found, place: Place, settings: Mapping[str, str]) -> PlanFile:
    """What a search found, without the digest of its output, which is known when that is complete."""
    chosen, prepared = found.chosen, case.prepared
    notes = {key.removeprefix(NOTES): text for key, text in chosen.model.metadata_props.items()}
    return PlanFile(
        input=prepared.network.digest,
        structure=structure_of(prepared),
        settings=dict(settings),
        device=place.text,
        device_digest=place.digest,
        speedup=chosen.speedup,
        basis=chosen.plan.basis,
        predicted=chosen.plan.predicted,
        # As the output's metadata have them: what follows the plan has to come to the same.
        blocks=tuple(decoded(PlannedBlock, block) for block in json.loads(notes["blocks"])),
        recovery=chosen.weights.steps,
        refitted=chosen.weights.written.refitted,
        kept=json.loads(notes["kept"]),
        calibration=case.origin["calibration.sha256"],
        output="",
        output_structure=structure_of(prepared, chosen.model),
        versions=versions(),
        processor=processor(),
        mismatch=place.mismatch,
    )


def processor() -> str:
    """What the output's bits depend on beside versions: the processor, and the kernels that BLAS takes for it."""
    return f"{cpu_name()}; {blas_name()}"


def open_plan(
    path: str | Path | None, lock: bool, settings: Mapping[str, str], others: Sequence[Path]
) -> PlanFile | None:
    """The plan to follow; None where there is none yet, or none was asked for.

    Raises:
        UsageError: a lock without a plan, or the plan's file is one of the ``others`` that the run reads or writes.
        PlanError: the file is no plan, or was made with other ``settings``.
        OutputError: it cannot be written there.
    """
    if path is None:
        if lock:
            raise UsageError("--lock holds a run to a plan that was made; name its file with --plan.")
        return None
    try:
        taken = Path(path).resolve() in {other.resolve() for other in others}
        there = _exists(path)
    except (OSError, RuntimeError, ValueError) as error:  # a name that cannot be, a loop of links, a closed folder
        raise PlanError(f"the plan {path} cannot be looked for ({error}); check the path.") from error
    if taken:
        raise UsageError(
            f"--plan {path} is a file that this run reads or writes besides; give the plan one of its own."
        )
    if not there:
        if lock:
            raise UsageError(f"--lock needs a plan, and {path} is not there; make it by a run without --lock.")
        check_target(path)
        return None
    plan = _read(path)
    _same_settings(path, plan, settings)
    wrong = _wrong(plan, float(settings["speedup"]))
    if wrong is not None:
        raise PlanError(f"{path} was changed by hand: {wrong}; take it as --plan wrote it, or remove it to plan anew.")
    return plan


def _exists(path: str | Path) -> bool:
    """As ``Path.exists``, which takes some errors for an absent file, by the version of Python."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def _read(path: str | Path) -> PlanFile:
    """The plan in a file.

    Raises:
        PlanError: it cannot be read, or is something else.
    """
    none = f"{path} is no plan of olm compress; name the file that --plan wrote, or a new one."
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1) if Path(path).is_file() else b""
        if len(data) > _MOST_BYTES:
            raise PlanError(f"{path} is too large for a plan; check the path.")
        value = json.loads(data.decode("utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise PlanError(f"the plan {path} cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, RecursionError) as error:  # no JSON, no text, or nested without end
        raise PlanError(none) from error
    form = value.get("schema") if isinstance(value, dict) else None
    if isinstance(form, str) and re.fullmatch(r"olm\.plan/\d{1,9}", form) and form != PLAN_SCHEMA:
        raise PlanError(f"{path} is of the form {form}, not {PLAN_SCHEMA}; follow it with the olm that wrote it.")
    try:
        found = decoded(PlanFile, value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise PlanError(none) from error
    if form != PLAN_SCHEMA or not _plain(value):
        raise PlanError(none)
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _plain(value: object) -> bool:
    """Whether all texts can be written to a file: JSON may name halves of a pair, which no file can hold."""
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return all(_plain(key) and _plain(each) for key, each in value.items())
    return all(map(_plain, value)) if isinstance(value, list) else True


def _wrong(plan: PlanFile, asked: float) -> str | None:
    """What no run that asked for this speed-up can have written."""
    speedup = plan.speedup
    numbers = speedup.ratio, speedup.low, speedup.high, speedup.a_s, speedup.b_s, speedup.wall_ratio, plan.predicted
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        return "a measured number is not above 0"
    if not (speedup.low <= speedup.ratio <= speedup.high and speedup.low >= asked):
        return "the speed-up that it records is not the one that it was made for"
    if not plan.blocks or len({block.name for block in plan.blocks}) < len(plan.blocks):
        return "it has no blocks, or one twice"
    if not all(math.isfinite(each) for block in plan.blocks for each in (block.old_ms, block.saves_ms)):
        return "a block has no time"
    if not all(math.isnan(block.kl) or abs(block.kl) < _MOST_LOSS for block in plan.blocks):
        return "a block's divergence is out of range"
    if not all(_told(each) for each in plan.kept.values()):
        return "a layer is kept for no reason that is known"
    return None


def _told(reason: object) -> bool:
    """Whether it is one of the forms that ``kept_note`` writes."""
    if isinstance(reason, str):
        return True
    if not isinstance(reason, list) or len(reason) not in (2, 5):
        return False
    counts, (name, *numbers) = reason[:2], reason[2:] or ("", None, None)
    right = all(isinstance(each, int) for each in counts) and isinstance(name, str)
    return right and all(each is None or isinstance(each, (int, float)) for each in numbers)


def write_plan(path: Path, plan: PlanFile) -> None:
    """Whole or not at all; a block or a layer to a line, so that a review shows what changed.

    Raises:
        OutputError: it cannot be written.
    """
    data = json.loads(as_json(plan, ordered=False))
    fields = [field.name for field in dataclasses.fields(plan)]
    # The form first: whoever opens the file sees what it is.
    lines = [f"  {json.dumps(name)}: {_few_lines(data[name])}" for name in ("schema", *fields[:-1])]
    write_bytes(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _few_lines(value: object) -> str:
    """A list of objects, or an object, with one entry to a line; all else in one line."""

    def compact(each: object) -> str:
        return json.dumps(each, ensure_ascii=False)

    if isinstance(value, dict) and value:
        entries = [f"    {compact(key)}: {compact(each)}" for key, each in value.items()]
        return "{\n" + ",\n".join(entries) + "\n  }"
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        return "[\n" + ",\n".join(f"    {compact(each)}" for each in value) + "\n  ]"
    return compact(value)


def _same_settings(path: str | Path, plan: PlanFile, settings: Mapping[str, str]) -> None:
    """Raises PlanError where an option is not what the plan was made with; the sentence names all that differ."""
    changed = [
        f"--{name} {value} (the plan: {plan.settings.get(name, 'none')})"
        for name, value in settings.items()
        if plan.settings.get(name) != value
    ]
    if changed:
        raise PlanError(
            f"{path} was made with other options than {', '.join(changed)}; give the plan's, or remove the file to "
            "plan anew."
        )
