"""Why each convolution of a compressed model is what it is, from the file's own metadata.

1. A convolution that stands for a replaced block, or one that is gone: what it was, what it is, what that saved and
   cost.  Numbers are those of the run that wrote the file.
2. A kept one whose weights were solved again or tuned.
3. A kept one for which replacements were on offer: how many were faster, and the least lossy of these.
4. One that no replacement is legal for: the reason.

An older record has no case 3 and 4; then what is legal is read off the file, as ``inspect`` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.flow._inspect import inspect
from onnx_layermerge.graph import conv_of, load
from onnx_layermerge.report import RECIPES, conv_label
from onnx_layermerge.rewrite import NOTES

__all__ = ["ExplainedBlock", "ExplainedConv", "Explanation", "explain"]

# What an explanation tells in other fields, or not at all.
_TOLD = ("blocks", "kept", "plan", "refitted", "recovery")


@dataclass(frozen=True)
class ExplainedBlock:
    """A replaced stretch: names of the convolutions before and now; ``old_ms`` and ``saves_ms`` by the latency table,
    ``kl`` what it costs alone.  None: not on record, or not a number."""

    number: int
    name: str
    recipe: str
    was: tuple[str, ...]
    now: tuple[str, ...]
    old_ms: float | None
    saves_ms: float | None
    kl: float | None
    fit_error: float | None
    certificate: str | None


@dataclass(frozen=True)
class ExplainedConv:
    """A convolution of the file, or one that is gone; ``block`` is the number of the one it belongs to, 0: none.

    ``fate`` is one of "replacement", "gone", "refitted", "kept", "untouchable", "unknown".
    """

    name: str
    label: str
    fate: str
    block: int
    reason: str


@dataclass(frozen=True)
class Explanation:
    """``origin`` are the plain notes (version, device, asked speed-up, digests, seed), ``recovery`` the steps beside
    the fits; ``notes`` say where the record falls short."""

    path: str
    origin: Mapping[str, str]
    recovery: tuple[str, ...]
    blocks: tuple[ExplainedBlock, ...]
    convs: tuple[ExplainedConv, ...]
    notes: tuple[str, ...]


def explain(path: str | Path, node: str | None = None) -> Explanation:
    """What the record in the file says of all convolutions, those that are gone too, or of ``node`` alone.

    Raises:
        ModelError: the file cannot be read, holds no record of a compression, or a damaged one.
        UsageError: ``node`` is no convolution of the file, nor one that was replaced.
    """
    model = load(path)
    record = {key.removeprefix(NOTES): text for key, text in model.metadata_props.items() if key.startswith(NOTES)}
    if "plan" not in record:
        raise ModelError(
            f"{path} holds no record of olm compress; give a file that it wrote, or see what could be replaced with "
            "olm inspect."
        )
    try:
        blocks = _blocks(record)
        kept = _parsed(record, "kept", dict)
        refitted = tuple(map(str, _parsed(record, "refitted", list)))
        recovery = tuple(map(str, _parsed(record, "recovery", list)))
        notes: list[str] = []
        if "blocks" not in record or "kept" not in record:
            kept, told = _derived(path, kept)
            notes.append(told)
        convs = _convs(model, blocks, kept, refitted)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise ModelError(
            f"the record in {path} is damaged ({error}); compress the original once more to get a whole one."
        ) from error
    if any(conv.fate == "unknown" for conv in convs) and "blocks" in record:
        notes.append("convolutions that the record does not know: the file was changed after it was written")
    if "finetune" in record:
        notes.append(
            "olm finetune trained the weights of this file after the record was written: what it says of losses, and "
            "of weights that were kept, is of before"
        )
    if node is not None:
        convs = _only(convs, node, path)
        numbers = {conv.block for conv in convs}
        blocks = tuple(block for block in blocks if block.number in numbers)
    origin = {key: text for key, text in sorted(record.items()) if key not in _TOLD}
    return Explanation(str(path), origin, recovery, blocks, convs, tuple(notes))


def _parsed(record: Mapping[str, str], key: str, kind: type) -> Any:
    value = json.loads(record[key]) if key in record else kind()
    if not isinstance(value, kind):
        raise TypeError(f"{NOTES}{key} is no {kind.__name__}")
    return value


def _blocks(record: Mapping[str, str]) -> tuple[ExplainedBlock, ...]:
    if "blocks" not in record:
        names = [str(name) for name in _parsed(record, "plan", list)]
        return tuple(
            ExplainedBlock(number, name, name.split()[0], (), (), None, None, None, None, None)
            for number, name in enumerate(names, 1)
        )
    return tuple(
        ExplainedBlock(
            number=number,
            name=str(item["name"]),
            recipe=str(item["recipe"]),
            was=tuple(map(str, item["was"])),
            now=tuple(map(str, item["now"])),
            old_ms=_number(item.get("old_ms")),
            saves_ms=_number(item.get("saves_ms")),
            kl=_number(item.get("kl")),
            fit_error=_number(item.get("fit_error")),
            certificate=None if item.get("certificate") is None else str(item["certificate"]),
        )
        for number, item in enumerate(_parsed(record, "blocks", list), 1)
    )


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]


def _derived(path: str | Path, kept: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Reasons of what could not be touched, as far as the file alone shows them."""
    found = {refusal.node: refusal.reason for refusal in inspect(path).refusals if refusal.op_type == "Conv"}
    told = (
        "an older olm wrote this file and recorded less: what could not be touched was read off the file, as olm "
        "inspect does, and nothing tells what was on offer for the rest"
    )
    return {**found, **kept}, told


def _convs(
    model: ir.Model, blocks: Sequence[ExplainedBlock], kept: Mapping[str, Any], refitted: Sequence[str]
) -> tuple[ExplainedConv, ...]:
    """Those of the file in its order, then those that are gone, block by block."""
    made = {name: block for block in blocks for name in block.now}
    found = []
    for node in model.graph:
        if node.op_type != "Conv" or node.domain not in ("", "ai.onnx"):
            continue
        name, conv = str(node.name), conv_of(node)
        label = "" if isinstance(conv, str) else conv_label(conv)
        block = made.get(name)
        if block is not None:
            found.append(ExplainedConv(name, label, "replacement", block.number, _replacement(block)))
        elif name in refitted:
            text = "its weights were solved again, or tuned, to make up for what the blocks before it lost"
            found.append(
                ExplainedConv(name, label, "refitted", 0, "; ".join(filter(None, (text, _offers(kept, name)))))
            )
        elif name not in kept:
            found.append(ExplainedConv(name, label, "unknown", 0, "not on record"))
        elif isinstance(kept[name], str):
            found.append(ExplainedConv(name, label, "untouchable", 0, kept[name]))
        else:
            found.append(ExplainedConv(name, label, "kept", 0, _offers(kept, name)))
    gone = [ExplainedConv(name, "", "gone", block.number, _gone(block)) for block in blocks for name in block.was]
    return (*found, *gone)


def _replacement(block: ExplainedBlock) -> str:
    return f"stands{_beside(block.now)} for {_listed(block.was)}: {_cost(block)}"


def _gone(block: ExplainedBlock) -> str:
    """Of a width the convolutions are gone as well: others with fewer channels stand for them."""
    beside = f" with {len(block.was) - 1} more" if len(block.was) > 1 else ""
    if not block.now:
        return f"dropped{beside}: {_cost(block)}"
    return f"replaced{beside} by {_listed(block.now)}: {_cost(block)}"


def _beside(names: Sequence[str]) -> str:
    return f", as one of {len(names)}," if len(names) > 1 else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, … {len(names) - 2} more …, {names[-1]}"


def _cost(block: ExplainedBlock) -> str:
    words = [RECIPES.get(block.recipe, block.recipe)]
    if block.certificate is not None:
        words.append(f"which is {block.certificate}")
    if block.saves_ms is not None and block.old_ms is not None:
        words.append(f"saves {block.saves_ms:.3g} of {block.old_ms:.3g} ms by the table")
    if block.kl is not None:
        words.append(f"alone it costs KL {block.kl:.3g}")
    if block.fit_error is not None:
        words.append(f"fit error {block.fit_error:.3g}")
    return ", ".join(words)


def _offers(kept: Mapping[str, Any], name: str) -> str:
    offer = kept.get(name)
    if offer is None or isinstance(offer, str):
        return offer or ""
    legal, faster = int(offer[0]), int(offer[1])
    count = f"{legal} legal replacement{'s' if legal > 1 else ''}"
    if not faster:
        return f"none of {count} was clearly faster on the device"
    best, saves, kl = str(offer[2]), _number(offer[3]), _number(offer[4])
    cost = "and leaves nothing of the outputs alone" if kl is None else f"and alone costs KL {kl:.3g}"
    return (
        f"the plan meets the target without it; {faster} of {count} {'were' if faster > 1 else 'was'} clearly faster, "
        f"the least lossy is {best}, which saves {saves:.3g} ms {cost}"
    )


def _only(convs: Sequence[ExplainedConv], node: str, path: str | Path) -> tuple[ExplainedConv, ...]:
    found = tuple(conv for conv in convs if conv.name == node)
    if found:
        return found
    close = get_close_matches(node, [conv.name for conv in convs], 1, 0.5)
    hint = f"did you mean {close[0]}" if close else f"olm explain {path} lists all"
    raise UsageError(f"'{node}' is no convolution of {path}, nor of the model that it was made from; {hint}.")
