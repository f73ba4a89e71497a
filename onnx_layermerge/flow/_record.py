"""What a finished compression leaves on record: notes in the file's metadata, and the report's keys and pictures.

The notes are all that ``explain`` reads: for each replaced block what it was and what stands there now, for each kept
convolution what was on offer for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx_ir as ir

from onnx_layermerge.candidates import Candidate, merge_of
from onnx_layermerge.flow._prepare import Prepared
from onnx_layermerge.flow._timed import Timed
from onnx_layermerge.plan import Choice, solve
from onnx_layermerge.recover import Built
from onnx_layermerge.report import Point, Sketch, sketch_of_input, sketch_of_output

__all__ = ["blocks_note", "file_digest", "frontier", "kept_note", "made_nodes", "numbered", "sketches", "versions"]

_LIBRARIES = (
    *("onnx-layermerge", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu"),
    *("tensorrt", "numpy", "scipy"),
)
# More figures would be noise, and metadata are read by people as well.
_DIGITS = 4


def numbered(prepared: Prepared, keys: Sequence[str]) -> dict[int, Candidate]:
    """The plan's candidates by the number that a report gives them, from 1."""
    by_key = {candidate.key: candidate for candidate in prepared.candidates}
    return {number: by_key[key] for number, key in enumerate(keys, 1)}


def made_nodes(model: ir.Model, plan: Mapping[int, Candidate]) -> dict[int, tuple[ir.Node, ...]]:
    """The nodes that stand for each block: from the value that it ends with back over as many convolutions."""
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    found: dict[int, tuple[ir.Node, ...]] = {}
    for number, candidate in plan.items():
        nodes: list[ir.Node] = []
        value, left = values.get(candidate.region.exit), len(candidate.stages)
        while left and value is not None and (node := value.producer()) is not None:
            nodes.append(node)
            left -= node.op_type == "Conv"
            value = node.inputs[0] if node.inputs else None
        found[number] = tuple(reversed(nodes))
    return found


def convs_of(nodes: Sequence[ir.Node]) -> tuple[str, ...]:
    """Names of the convolutions among them."""
    return tuple(str(node.name) for node in nodes if node.op_type == "Conv")


def blocks_note(
    prepared: Prepared, timed: Timed, losses: Mapping[str, float], built: Built, keys: Sequence[str]
) -> str:
    """A JSON list with an object for each replaced block, in the order of ``keys``.

    ``certificate`` is there for merges by algebra alone, ``fit_error`` for fits.
    """
    plan = numbered(prepared, keys)
    made = made_nodes(built.model, plan)
    network = prepared.network
    order = network.order

    def quality(candidate: Candidate) -> dict[str, object]:
        if candidate.recipe == "merge":
            return {"certificate": merge_of(network, candidate).certificate.kind}
        fit = built.fits.get(candidate.key)
        return {} if fit is None else {"fit_error": _short(fit.error)}

    return _compact(
        [
            {
                "name": candidate.key,
                "recipe": candidate.recipe,
                "was": [str(order[position].name) for position in candidate.region.convs],
                "now": convs_of(made[number]),
                "old_ms": _short(timed.replaced_s[candidate.key] * 1e3),
                "saves_ms": _short(timed.savings_s[candidate.key] * 1e3),
                "kl": _short(losses[candidate.key]),
                **quality(candidate),
            }
            for number, candidate in plan.items()
        ]
    )


def kept_note(prepared: Prepared, timed: Timed, losses: Mapping[str, float], keys: Sequence[str]) -> str:
    """A JSON object from the name of each convolution outside of all blocks to why it stayed.

    A string: no replacement is legal.  A list: how many were legal, how many of those were faster, and of the
    least lossy one among these its name, the milliseconds it saves and what it costs alone.
    """
    network = prepared.network
    plan = numbered(prepared, keys).values()
    gone = {position for candidate in plan for position in candidate.region.convs}
    legal: dict[int, list[Candidate]] = {}
    for candidate in prepared.candidates:
        for position in candidate.region.convs:
            legal.setdefault(position, []).append(candidate)
    reasons = {refusal.node: refusal.reason for refusal in prepared.refusals}
    found: dict[str, object] = {}
    for position in sorted({*network.convs, *network.refused} - gone):
        name, offered = str(network.order[position].name), legal.get(position, [])
        faster = [candidate for candidate in offered if candidate.key in losses]
        if not offered:
            found[name] = network.refused.get(position) or reasons.get(name, "lies in no legal block")
        elif not faster:
            found[name] = [len(offered), 0]
        else:
            best = min(faster, key=lambda candidate: (losses[candidate.key], candidate.key))
            saving = _short(timed.savings_s[best.key] * 1e3)
            found[name] = [len(offered), len(faster), best.key, saving, _short(losses[best.key])]
    return _compact(found)


def frontier(choices: Sequence[Choice], base_s: float) -> tuple[Point, ...]:
    """The plans worth having by the table and these losses; beyond 0.98 of the whole time no table can be trusted."""
    return tuple(
        Point(base_s / (base_s - point.saving_s), point.loss, len(point.keys))
        for point in solve(choices).points
        if point.saving_s < 0.98 * base_s
    )


def sketches(
    prepared: Prepared, model: ir.Model, keys: Sequence[str]
) -> tuple[Sketch, Sketch, dict[str, tuple[str, ...]]]:
    """Both networks as lines, and the names of the convolutions that stand for each block, by its key."""
    plan = numbered(prepared, keys)
    made = made_nodes(model, plan)
    numbers = {str(node.name): number for number, nodes in made.items() for node in nodes}
    names = {candidate.key: convs_of(made[number]) for number, candidate in plan.items()}
    return sketch_of_input(prepared.network, plan), sketch_of_output(model, numbers), names


def versions() -> dict[str, str]:
    """Python and the libraries that results depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    found = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(2**20):
            found.update(chunk)
    return found.hexdigest()


def _short(number: float) -> float | None:
    return float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
