"""One ingredient of `--method olm` left out, for the ablation table: `--set without=NAME`.

Each is switched off where the package has it, for the length of one build; nothing of what is fitted without it is
remembered or taken from what was remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from onnx_layermerge.candidates import METHODS
from onnx_layermerge.errors import UsageError
from onnx_layermerge.flow import _choose, _effort, _rank, _scores

__all__ = ["INGREDIENTS", "without"]

FLOW = "onnx_layermerge.flow"
Patch = Any


def _kind(*names: str) -> Callable[[], list[Patch]]:
    left = tuple(kind for kind in METHODS["olm"] if kind not in names)
    return lambda: [patch.dict(METHODS, olm=left)]


def _set(target: str, value: Any) -> Callable[[], list[Patch]]:
    return lambda: [patch(target, value)]


def _one_basis() -> list[Patch]:
    whole = _rank.loss_bases
    return [patch(f"{FLOW}._search.loss_bases", lambda *given: {"kl": whole(*given)["kl"]})]


def _no_mixtures() -> list[Patch]:
    return [patch(f"{FLOW}.{room}.with_mixtures", lambda data, seed: data) for room in ("_data", "_scores")]


def _no_tuning() -> list[Patch]:
    return [patch.dict(_effort.EFFORTS, {name: replace(e, tuning=False) for name, e in _effort.EFFORTS.items()})]


def _no_last_fit() -> list[Patch]:
    whole = _choose.settle

    def settle(prepared: Any, item: Any, fit_data: Any, everything: Any, *rest: Any, **named: Any) -> Any:
        return whole(prepared, item, fit_data, None, *rest, **named)

    return [patch.object(_choose, "settle", settle)]


def _no_ridge() -> list[Patch]:
    return [patch(f"onnx_layermerge.fit._capture.{name}", (1e-8,)) for name in ("ALPHAS", "NEAR_ALPHAS")]


def _nothing_remembered() -> list[Patch]:
    return [
        patch.object(_scores, "_recall", lambda path, keys: None),
        patch.object(_scores, "keep", lambda path, packed, most: None),
    ]


# Name → what it is, and what has to be patched for it to be gone.
INGREDIENTS: dict[str, tuple[str, Callable[[], list[Patch]]]] = {
    "drop": ("blocks that are dropped", _kind("drop")),
    "fit": ("one fitted convolution for a block, and the algebraic merge", _kind("fit", "merge")),
    "low-rank": ("pairs of low rank", _kind("low-rank")),
    "width": ("fewer inner channels", _kind("width")),
    "bases": ("other measures of loss than KL to draw plans by", _one_basis),
    "joint": ("plans by the joint loss", _set(f"{FLOW}._search.joint_loss", lambda scores: None)),
    "mixtures": ("mixtures of samples among those that judge", _no_mixtures),
    "rounds": ("rounds that know the activation behind a fit", _set("onnx_layermerge.fit._ridge.ROUNDS", 1)),
    "ridge": ("the pull of fits towards the original's weights, or towards zero", _no_ridge),
    "tuning": ("small steps inside blocks", _no_tuning),
    "last-fit": ("the fit on all samples once the plan is chosen", _no_last_fit),
    "trim": ("trimming a plan to the speed-up", _set(f"{FLOW}._loop.Loop.trimmed", lambda self, plan, *rest: plan)),
}


@contextmanager
def without(name: str) -> Iterator[None]:
    """Inside, `olm.compress` lacks the ingredient; an empty name leaves all in.

    Raises:
        UsageError: there is none of that name.
    """
    if name and name not in INGREDIENTS:
        raise UsageError(f"--set without={name} is unknown; choose from {', '.join(INGREDIENTS)}.")
    with ExitStack() as stack:
        if name:
            for each in (*INGREDIENTS[name][1](), *_nothing_remembered()):
                stack.enter_context(each)
        yield
