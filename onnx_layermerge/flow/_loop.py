"""The closed loop: a plan counts only once the model it makes was timed against the original.

The table predicts base + Σ (new − old).  For each basis of losses the loop asks the program for a saving, times the
structure it returns (weights do not matter for time) interleaved with the original, and asks again for more, or less,
by what was missing, until the *lower* end of the measured interval meets the target.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.errors import ModelError, TargetError
from onnx_layermerge.flow._in_place import structure
from onnx_layermerge.flow._last_timing import CLOSELY
from onnx_layermerge.flow._prepare import Prepared, Progress, quiet
from onnx_layermerge.flow._timed import Timed
from onnx_layermerge.latency import Backend, LatencyTable, Ratio
from onnx_layermerge.plan import Choice, Joint, improve, nearby, rivals, solve
from onnx_layermerge.verify import measured_speedup

__all__ = ["FINE", "JOINT", "Loop", "Plan"]

# Of a plan that cannot be timed: slower than anything, so that the loop asks for another.
REFUSED = Ratio(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, "cap")
# One in so many of the plans comes from the joint loss.
IMPROVED = 3
JOINT = ", joint"
# Plans around another one are drawn this often at most; what was known already or is too slow counts as well.
DRAWS = 40
# Blocks of one plan that are given back, one after another; each is timed.
RELAXATIONS = 4
# A plan this much faster than asked gave away more than it had to.
OVERSHOOT = 1.01


@dataclass(frozen=True)
class Timing:
    """How closely whole structures are timed, and what follows from it.

    ``options`` are those of `compare`; ``over`` times the target is near enough; differences in saving below ``finest``
    of the original's time are not looked at; ``rounds`` bounds the structures tried for one basis.
    """

    options: Mapping[str, Any]
    over: float
    finest: float
    rounds: int


# While plans are drawn, and for the one that is about to be written.
COARSE = Timing({"cap_s": 6.0, "target_half_width": 0.008}, over=OVERSHOOT, finest=0.004, rounds=10)
FINE = Timing(CLOSELY, over=1.004, finest=0.001, rounds=6)


@dataclass(frozen=True)
class Plan:
    """Blocks that together meet the target: measured, with the prediction and where the plan came from."""

    keys: tuple[str, ...]
    basis: str
    predicted: float
    measured: Ratio
    loss: float


@dataclass(eq=False)
class Loop:
    """Times whole structures for one model on one device, each at most once."""

    prepared: Prepared
    timed: Timed
    backend: Backend
    table: LatencyTable
    progress: Progress = quiet
    joint: Joint | None = None
    best: float = 1.0
    refused: str = ""
    measured: dict[tuple[str, ...], Ratio] = field(default_factory=dict)
    closely: dict[tuple[str, ...], Ratio] = field(default_factory=dict)

    def __post_init__(self) -> None:
        network = self.prepared.network
        self._by_key: Mapping[str, Candidate] = {c.key: c for c in self.prepared.candidates}
        self._original = network.model

    def time(self, keys: tuple[str, ...], timing: Timing = COARSE) -> Ratio:
        """Measured speed-up of the structure over the original; 0 for one that the backend refuses."""
        known = self.measured if timing is COARSE else self.closely
        if keys not in known:
            done = len(self.measured) + len(self.closely) + 1
            self.progress("plan", done, 0, f"timing a plan of {len(keys)} blocks")
            try:
                known[keys], _ = measured_speedup(
                    self.backend,
                    self._original,
                    structure(self.prepared, [self._by_key[key] for key in keys]),
                    self.prepared.bound,
                    table=self.table,
                    # By its very bytes: the table has what was seen of the structure at a glance.
                    exact=timing is not COARSE,
                    **timing.options,
                )
            except ModelError as error:
                self.refused, known[keys] = str(error), REFUSED
            self.best = max(self.best, known[keys].low)
        return known[keys]

    def unreachable(self, speedup: float) -> TargetError:
        """What to say when no plan met ``speedup``."""
        why = f" (some plans were refused: {self.refused.rstrip('.')})" if self.refused else ""
        return TargetError(
            f"{speedup:g}× cannot be reached here; the best measured speed-up is {self.best:.2f}×{why}: "
            "ask for less, or allow more kinds of replacement."
        )

    def predicted(self, keys: Sequence[str]) -> float:
        """Speed-up by the table alone."""
        saving = sum(self.timed.savings_s[key] for key in keys)
        return self.timed.base_s / max(self.timed.base_s - saving, 1e-3 * self.timed.base_s)

    def reach(
        self,
        basis: str,
        choices: Sequence[Choice],
        speedup: float,
        *,
        asked: float | None = None,
        timing: Timing = COARSE,
    ) -> tuple[Plan | None, float]:
        """The least lossy plan of a basis found to meet ``speedup``, and the saving to ask the table for.

        ``asked`` is the saving to ask for first; None: what the table says.
        """
        frontier = solve(choices)
        needed = self.timed.base_s * (1 - 1 / speedup)
        asked = needed if asked is None else asked
        found: Plan | None = None
        enough, short = float("inf"), 0.0
        for _ in range(timing.rounds):
            solution = frontier.at(min(asked, frontier.best_saving))
            if solution is None or not solution.keys:
                break
            ratio = self.time(solution.keys, timing)
            if ratio.low >= speedup:
                if found is None or solution.loss < found.loss:
                    found = Plan(solution.keys, basis, self.predicted(solution.keys), ratio, solution.loss)
                enough = min(enough, solution.saving_s)
                if ratio.low <= speedup * timing.over:
                    break
            else:
                if solution.saving_s >= frontier.best_saving:
                    break
                short = max(short, solution.saving_s)
            gained = self.timed.base_s * (1 - 1 / max(ratio.low, 1.001))
            step = solution.saving_s * needed / gained
            # Stay strictly between what was too little and what was enough, and always move.
            asked = max(step, short * 1.002) if ratio.low < speedup else min(step, solution.saving_s * 0.998)
            if not short < asked < enough:
                asked = (short + enough) / 2 if enough < float("inf") else short * 1.02
            if enough - short < timing.finest * self.timed.base_s:
                break
        return found, min(enough, frontier.best_saving)

    def plans(
        self, bases: Mapping[str, Sequence[Choice]], speedup: float, *, count: int, seed: int
    ) -> tuple[Plan, ...]:
        """Up to ``count`` distinct plans that were measured to meet ``speedup``.

        Each basis' own, then perturbed ones, then what the joint loss makes of the best of them.

        Raises:
            TargetError: none does; the message names the best measured speed-up.
        """
        found: dict[tuple[str, ...], Plan] = {}
        asked: dict[str, float] = {}
        for basis, choices in bases.items():
            plan, saving = self.reach(basis, choices, speedup)
            if plan is not None:
                plan = self.relaxed(plan, choices, speedup)
                found.setdefault(plan.keys, plan)
                asked[basis] = saving
        if not found:
            raise self.unreachable(speedup)
        improved = count // IMPROVED if self.joint is not None else 0
        share = -(-2 * count // max(len(asked), 1))
        for basis, saving in asked.items():
            for rival in rivals({basis: bases[basis]}, saving_s=saving, count=share, seed=seed):
                if len(found) >= count - improved:
                    break
                if rival.keys in found or self.time(rival.keys).low < speedup:
                    continue
                ratio = self.measured[rival.keys]
                plan = Plan(rival.keys, basis, self.predicted(rival.keys), ratio, rival.loss)
                plan = self.relaxed(plan, bases[basis], speedup)
                found.setdefault(plan.keys, plan)
        for plan in self._improved(tuple(found.values()), bases, asked, speedup):
            if len(found) < count:
                plan = self.relaxed(plan, bases[plan.basis.removesuffix(JOINT)], speedup)
                found.setdefault(plan.keys, plan)
        return tuple(found.values())

    def near(
        self,
        plan: Plan,
        known: Collection[tuple[str, ...]],
        *,
        bases: Mapping[str, Sequence[Choice]],
        speedup: float,
        seed: int,
    ) -> Iterator[Plan]:
        """Plans around ``plan`` that were measured to meet ``speedup`` and are not ``known``, nearer ones first."""
        joint, choices = self.joint, bases[plan.basis.removesuffix(JOINT)]
        if joint is None or not set(plan.keys) <= set(joint.index):
            return
        savings = {choice.key: choice.saving_s for choice in choices}
        # What the table has for this plan, less what is more than asked, by what was measured of it.
        needed, gained = (1 - 1 / each for each in (speedup, plan.measured.low))
        saving = sum(savings[key] for key in plan.keys) * needed / gained
        drawn: set[tuple[str, ...]] = set()
        for keys in islice(nearby(plan.keys, choices, joint, saving, seed=seed), DRAWS):
            if keys in drawn or keys in known or self.time(keys).low < speedup:
                continue
            drawn.add(keys)
            other = Plan(keys, plan.basis, self.predicted(keys), self.measured[keys], joint.loss(keys))
            other = self.relaxed(other, choices, speedup)
            if other.keys == keys or not (other.keys in drawn or other.keys in known):
                drawn.add(other.keys)
                yield other

    def relaxed(self, plan: Plan, choices: Sequence[Choice], speedup: float) -> Plan:
        """The plan with its lossiest blocks left out, or replaced by gentler ones in the same place, as long as what is
        left meets ``speedup``.

        A plan that was drawn for a saving by the table may turn out faster than that, and what is faster than asked
        gave away more than it had to.
        """
        by_key = {choice.key: choice for choice in choices}
        beside: dict[tuple[int, int], list[Choice]] = {}
        for choice in choices:
            beside.setdefault((choice.start, choice.stop), []).append(choice)
        needed = self.timed.base_s * (1 - 1 / speedup)
        for _ in range(RELAXATIONS):
            saving = sum(by_key[key].saving_s for key in plan.keys)
            really = self.timed.base_s * (1 - 1 / plan.measured.low) / saving
            # (loss given back, block that goes, block that comes)
            steps: list[tuple[float, str, str]] = []
            for key in plan.keys:
                own = by_key[key]
                without = (saving - own.saving_s) * really
                if without >= needed and len(plan.keys) > 1:
                    steps.append((own.loss, key, ""))
                for other in beside[own.start, own.stop]:
                    enough = without + other.saving_s * really >= needed
                    if enough and other.saving_s < own.saving_s and other.loss < own.loss:
                        steps.append((own.loss - other.loss, key, other.key))
            if not steps:
                break
            _, gone, come = max(steps)
            rest = tuple(come if key == gone else key for key in plan.keys if key != gone or come)
            if self.time(rest).low < speedup:
                break
            loss = sum(by_key[key].loss for key in rest)
            plan = Plan(rest, plan.basis, self.predicted(rest), self.measured[rest], loss)
        return plan

    def trimmed(self, plan: Plan, choices: Sequence[Choice], speedup: float) -> Plan:
        """The least lossy plan found of the same blocks, of gentler ones in their places, or of fewer, that meets
        ``speedup`` when it is timed as closely as what is written; ``plan`` where there is none."""
        own = {(choice.start, choice.stop): choice for choice in choices if choice.key in plan.keys}
        gentler = [
            choice
            for choice in choices
            if (place := own.get((choice.start, choice.stop))) is not None
            and (choice is place or (choice.saving_s < place.saving_s and choice.loss < place.loss))
        ]
        closely = self.time(plan.keys, FINE)
        if len(own) < len(plan.keys) or closely.low <= speedup * FINE.over:
            return plan
        needed, gained = (self.timed.base_s * (1 - 1 / each) for each in (speedup, closely.low))
        saving = sum(choice.saving_s for choice in own.values())
        found, _ = self.reach(plan.basis, gentler, speedup, asked=saving * needed / gained, timing=FINE)
        return plan if found is None else found

    def _improved(
        self,
        plans: Sequence[Plan],
        bases: Mapping[str, Sequence[Choice]],
        asked: Mapping[str, float],
        speedup: float,
    ) -> Iterator[Plan]:
        """What the joint loss makes of the plans that are the best by it, as far as that meets ``speedup``."""
        if self.joint is None:
            return
        joint, seen = self.joint, {plan.keys for plan in plans}
        known = [plan for plan in plans if set(plan.keys) <= set(joint.index)]
        for plan in sorted(known, key=lambda plan: joint.loss(plan.keys)):
            keys = improve(plan.keys, bases[plan.basis], joint, asked[plan.basis])
            if keys in seen:
                continue
            seen.add(keys)
            if self.time(keys).low >= speedup:
                yield Plan(keys, plan.basis + JOINT, self.predicted(keys), self.measured[keys], joint.loss(keys))
