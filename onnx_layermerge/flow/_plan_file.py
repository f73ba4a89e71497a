"""A plan as a file: small, to be read in a review, committed beside the model, and followed by later runs.

It holds what took long to find out (which blocks, and what was measured of them) and what tells whether it still fits:
the input's structure without its weights, the options, the device, and, for a lock, digests of everything that the
output's bytes depend on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_layermerge.errors import PlanError, UsageError
from onnx_layermerge.flow._choose import Case
from onnx_layermerge.flow._prepare import Prepared
from onnx_layermerge.flow._record import versions
from onnx_layermerge.flow._search import Found, Place
from onnx_layermerge.graph import check_target, to_bytes, write_bytes
from onnx_layermerge.latency import Ratio, cpu_name
from onnx_layermerge.report import as_json, decoded
from onnx_layermerge.rewrite import NOTES
from onnx_layermerge.verify import structure_key

__all__ = ["PLAN_SCHEMA", "PlanFile", "PlannedBlock", "open_plan", "plan_file", "structure_of", "write_plan"]

# docs/schemas/plan.v1.json describes it.  Fields may be added under one number, not changed.
PLAN_SCHEMA = "olm.plan/1"
_MOST_BYTES = 1 << 26


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
    its weights and names, ``settings`` the options that decide on blocks and weights, ``calibration`` the SHA-256 of
    the samples.  ``device`` and ``device_digest`` are the latency table's key, ``speedup`` what was measured there of
    ``output`` (SHA-256) in the end; any model of the structure ``output_structure`` takes as long.  ``recovery`` and
    ``refitted`` tell what was done to the weights beside the fits, ``kept`` why other convolutions stayed, as in the
    output's metadata.  ``mismatch`` is the device whose times it was planned with, where that was another one.
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
        processor=cpu_name(),
        mismatch=place.mismatch,
    )


def open_plan(
    path: str | Path | None, lock: bool, settings: Mapping[str, str], others: Sequence[Path]
) -> PlanFile | None:
    """The plan to follow; None where there is none yet, or none was asked for.

    Raises:
        UsageError: a lock without a plan, or the plan's file is one of the ``others``.
        PlanError: the file is no plan, or was made with other ``settings``.
        OutputError: it cannot be written there.
    """
    if path is None:
        if lock:
            raise UsageError("--lock holds a run to a plan that was made; name its file with --plan.")
        return None
    if Path(path).resolve() in {other.resolve() for other in others}:
        raise UsageError(f"--plan {path} is the input or the output; give the plan a file of its own.")
    if not Path(path).exists():
        if lock:
            raise UsageError(f"--lock needs a plan, and {path} is not there; make it by a run without --lock.")
        check_target(path)
        return None
    plan = _read(path)
    _same_settings(path, plan, settings)
    return plan


def _read(path: str | Path) -> PlanFile:
    """The plan in a file.

    Raises:
        PlanError: it cannot be read, or is something else.
    """
    try:
        if Path(path).stat().st_size > _MOST_BYTES:
            raise PlanError(f"{path} is too large for a plan; check the path.")
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"the plan {path} cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, RecursionError) as error:  # no JSON, no text, or nested without end
        raise PlanError(f"{path} is no plan of olm compress; name the file that --plan wrote, or a new one.") from error
    form = value.get("schema") if isinstance(value, dict) else None
    if isinstance(form, str) and form.startswith("olm.plan/") and form != PLAN_SCHEMA:
        raise PlanError(f"{path} is of the form {form}, not {PLAN_SCHEMA}; follow it with the olm that wrote it.")
    try:
        found = decoded(PlanFile, value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise PlanError(
            f"{path} is no plan of olm compress ({error}); name the file that --plan wrote, or a new one."
        ) from error
    if form != PLAN_SCHEMA or not found.blocks:
        raise PlanError(f"{path} is no plan of olm compress; name the file that --plan wrote, or a new one.")
    return found


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
