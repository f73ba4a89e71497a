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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnx_layermerge.errors import OlmError

from ._line import Choice
from ._program import solve

__all__ = ["Joint", "improve"]

GAMMA = 0.5
_STEPS = 8
_COARSE = 2_000


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
    known = [choice for choice in choices if choice.key in joint.index]
    if not set(keys) <= {choice.key for choice in known}:
        raise OlmError("a plan can only be improved among the choices that it was made of.")
    own = np.diag(joint.gram)
    best, least = tuple(keys), joint.loss(keys)
    x = joint.indicator(keys)
    for _ in range(_STEPS):
        beside = np.maximum(own + 2 * (joint.gram @ x - own * x), 0.0)
        now = [replace(choice, loss=float(beside[joint.index[choice.key]])) for choice in known]
        solution = solve(now, max_saving_s=saving_s, steps=_COARSE).at(saving_s)
        if solution is None:
            break
        if joint.loss(solution.keys) < least:
            best, least = solution.keys, joint.loss(solution.keys)
        x = (x + joint.indicator(solution.keys)) / 2
    return best
