"""Distinct plans for one saving, to be built and compared: Σ loss ranks plans only roughly.

For a basis with losses d_c the unperturbed program gives the plan it believes in; then the losses
d_c · exp(σ z_c), z_c ~ N(0, 1) independent, give plans that are nearly as good under that basis. Small σ
stays close, large σ looks further away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np

from onnx_layermerge.errors import OlmError, UsageError

from ._line import Choice, Solution
from ._program import solve

_COARSE_STEPS = 2_000  # a perturbed loss is a guess: a unit of 0.05 % of the saving is fine enough for it
_TRIES_PER_RIVAL = 10
_MAX_SIGMA = 10.0  # exp(10 · N(0, 1)) already spans tens of decades; more would only overflow


@dataclass(frozen=True)
class Rival:
    """One plan and where it came from.

    Attributes:
        keys: The choices taken, in position order.
        basis: Name of the losses that led to it first.
        sigma: Size of the perturbation; 0.0 for the unperturbed program.
        saving_s: True saving in seconds.
        loss: True, unperturbed loss in the unit of its basis: not comparable between bases.
    """

    keys: tuple[str, ...]
    basis: str
    sigma: float
    saving_s: float
    loss: float


def rivals(
    bases: Mapping[str, Sequence[Choice]],
    *,
    saving_s: float,
    count: int,
    seed: int,
    sigmas: Sequence[float] = (0.3, 0.6, 1.0),
) -> tuple[Rival, ...]:
    """Up to `count` distinct plans that truly save `saving_s` or more.

    Args:
        bases: Name → choices. A key means the same interval and saving in every basis; losses differ, and
            a basis may leave choices out. The order of the bases is the order of preference.
        saving_s: Seconds to save, above 0.
        count: Plans wanted; the search ends after 10 perturbed programs for each of them.
        seed: Of the perturbations: the same arguments give the same plans.
        sigmas: Standard deviations of the log-normal factors, each in (0, 10].

    Returns:
        The unperturbed plan of every basis in order, then perturbed ones, taking bases and sigmas in turn
        (every basis once per sigma). A plan that two bases share is listed once, under the first. Fewer
        than `count` when no more were found; none when no basis can save that much.

    Raises:
        OlmError: Two bases disagree about the interval or the saving of a key, or a key is used twice.
        UsageError: No basis, or a number out of its range.
    """
    _check(bases, saving_s, count, seed, sigmas)
    found: dict[tuple[str, ...], Rival] = {}
    reachable: dict[str, list[Choice]] = {}
    for name, choices in bases.items():
        solution = solve(choices, max_saving_s=saving_s).at(saving_s)
        if solution is not None:  # whether a saving is reachable does not depend on the losses
            # Sorted, so that the draws below do not depend on the order in which the choices came.
            reachable[name] = sorted(choices, key=lambda choice: choice.key)
            _keep(found, solution, choices, name, 0.0)
    turns = _turns(list(reachable), sigmas)
    rng = np.random.default_rng(seed)
    for _ in range(_TRIES_PER_RIVAL * count):
        if len(found) >= count or not reachable:
            break
        name, sigma = next(turns)
        choices = reachable[name]
        factors = np.exp(sigma * rng.standard_normal(len(choices))).tolist()
        perturbed = [replace(one, loss=one.loss * by) for one, by in zip(choices, factors, strict=True)]
        solution = solve(perturbed, max_saving_s=saving_s, steps=_COARSE_STEPS).at(saving_s)
        if solution is not None:
            _keep(found, solution, choices, name, sigma)
    return tuple(found.values())[:count]


def _turns(names: Sequence[str], sigmas: Sequence[float]) -> Iterator[tuple[str, float]]:
    return cycle([(name, sigma) for sigma in sigmas for name in names])


def _keep(
    found: dict[tuple[str, ...], Rival],
    solution: Solution,
    choices: Sequence[Choice],
    name: str,
    sigma: float,
) -> None:
    if solution.keys not in found:
        losses = {choice.key: choice.loss for choice in choices}
        loss = math.fsum(losses[key] for key in solution.keys)
        found[solution.keys] = Rival(solution.keys, name, sigma, solution.saving_s, loss)


def _check(
    bases: Mapping[str, Sequence[Choice]], saving_s: float, count: int, seed: int, sigmas: Sequence[float]
) -> None:
    if not bases:
        raise UsageError("there is no loss to plan with: give at least one basis")
    if not (math.isfinite(saving_s) and saving_s > 0):
        raise UsageError(f"the wanted saving is {saving_s} s: give a finite number above 0")
    if count < 1:
        raise UsageError(f"{count} plans were asked for: ask for 1 or more")
    if seed < 0:
        raise UsageError(f"the seed is {seed}: give a whole number >= 0")
    if not sigmas or not all(0 < sigma <= _MAX_SIGMA for sigma in sigmas):
        raise UsageError(f"the sigmas are {tuple(sigmas)}: give one or more in (0, {_MAX_SIGMA:g}]")
    known: dict[str, Choice] = {}
    for name, choices in bases.items():
        for choice in choices:
            same = replace(known.setdefault(choice.key, choice), loss=choice.loss)
            if same != choice:
                raise OlmError(
                    f"basis {name!r} gives choice {choice.key!r} another interval or saving than a basis "
                    "before it: let the bases differ in their losses only"
                )
