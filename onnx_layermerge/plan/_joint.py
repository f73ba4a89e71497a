r"""Plans by what their blocks do together: the program again, with losses as they are beside the others of a plan.

The program adds losses up, but two blocks may push the outputs the same way, or against one another.  With v_i the move
of the outputs when block i alone is replaced (‖v_i‖² = d_i), replacing the set B costs about

    L(B) = Σ_i d_i + γ Σ_{i≠j} ⟨v_i, v_j⟩,        γ = 1 where moves just add.

γ is less in practice: blocks are fitted one after another, and a later one mends part of what an earlier one did.

L is quadratic in the 0/1 vector x of B, and the program minimizes what is linear.  So `improve` walks from a plan as
Frank and Wolfe (1956) do: the gradient of L at x gives each choice the loss d_c + 2γ Σ_{j≠c} ⟨v_c, v_j⟩ x_j beside the
rest of the plan (no less than 0), the exact program solves for these, x goes half of the way there, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import numpy.typing as npt

from onnx_layermerge.errors import OlmError

from ._line import Choice
from ._program import solve

__all__ = ["Joint", "improve", "nearby"]

GAMMA = 0.5
_STEPS = 8
_COARSE = 2_000
# Half a dozen draws reach the σ = 0.3 at which rivals begin.
_SIGMA_STEP = 0.05


@dataclass(frozen=True, eq=False)
class Joint:
    """The joint loss of any set of choices; ``gram`` is [n, n]: d_i on the diagonal, γ⟨v_i, v_j⟩ beside it."""

    index: Mapping[str, int]
    gram: npt.NDArray[np.float64]

    @classmethod
    def of(cls, losses: Mapping[str, float], moves: Mapping[str, npt.NDArray[np.float32]]) -> Joint:
        """From losses d_i, finite and ≥ 0, and moves [m]; only a move's direction counts, its length is set to √d_i."""
        keys = sorted(losses)
        if set(keys) != set(moves) or not keys:
            raise OlmError("a joint loss needs a move of the outputs for every loss; score these blocks again.")
        vectors = np.stack([moves[key].astype(np.float64) for key in keys])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        roots = np.sqrt([[losses[key]] for key in keys])
        vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0) * roots
        gram = GAMMA * (vectors @ vectors.T)
        np.fill_diagonal(gram, roots[:, 0] ** 2)
        return cls({key: number for number, key in enumerate(keys)}, gram)

    def loss(self, keys: Sequence[str]) -> float:
        """L(B) of these choices."""
        rows = [self.index[key] for key in keys]
        return float(self.gram[np.ix_(rows, rows)].sum())

    def indicator(self, keys: Sequence[str]) -> npt.NDArray[np.float64]:
        """B as a vector of zeros and ones."""
        x = np.zeros(len(self.index))
        x[[self.index[key] for key in keys]] = 1.0
        return x


def improve(
    keys: Sequence[str], choices: Sequence[Choice], joint: Joint, saving_s: float
) -> tuple[str, ...]:
    """The plan of least joint loss on the way from ``keys``, saving ``saving_s`` or more; ``keys`` if none is better.

    Choices that the joint loss does not know are not considered; ``keys`` must be known to it.
    """
    known = _known(keys, choices, joint)
    best, least = tuple(keys), joint.loss(keys)
    x = joint.indicator(keys)
    for _ in range(_STEPS):
        solution = solve(_beside(known, joint, x), max_saving_s=saving_s, steps=_COARSE).at(saving_s)
        if solution is None:
            break
        if joint.loss(solution.keys) < least:
            best, least = solution.keys, joint.loss(solution.keys)
        x = (x + joint.indicator(solution.keys)) / 2
    return best


def nearby(
    keys: Sequence[str], choices: Sequence[Choice], joint: Joint, saving_s: float, *, seed: int
) -> Iterator[tuple[str, ...]]:
    """Plans around ``keys`` that save ``saving_s`` or more, nearer ones first, without end and with repeats.

    Losses as they are beside the rest of ``keys`` are drawn again and again as d · exp(σ z), z ~ N(0, 1), with σ a
    little larger each time up to 1, and the exact program solves for them.
    """
    beside = _beside(_known(keys, choices, joint), joint, joint.indicator(keys))
    rng = np.random.default_rng(seed)
    for number in count(1):
        factors = np.exp(min(_SIGMA_STEP * number, 1.0) * rng.standard_normal(len(beside))).tolist()
        drawn = [replace(choice, loss=choice.loss * by) for choice, by in zip(beside, factors, strict=True)]
        solution = solve(drawn, max_saving_s=saving_s, steps=_COARSE).at(saving_s)
        if solution is None:
            return
        yield solution.keys


def _known(keys: Sequence[str], choices: Sequence[Choice], joint: Joint) -> list[Choice]:
    known = [choice for choice in choices if choice.key in joint.index]
    if not set(keys) <= {choice.key for choice in known}:
        raise OlmError("a plan can only be improved among the choices that it was made of; give those.")
    return known


def _beside(choices: Sequence[Choice], joint: Joint, x: npt.NDArray[np.float64]) -> list[Choice]:
    """The choices with what each costs beside the rest of x: the gradient of the joint loss, no less than 0."""
    own = np.diag(joint.gram)
    losses = np.maximum(own + 2 * (joint.gram @ x - own * x), 0.0)
    return [replace(choice, loss=float(losses[joint.index[choice.key]])) for choice in choices]
