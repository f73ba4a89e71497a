"""Which values inside two models a fine-tuning compares as features."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_layermerge.graph import Network

__all__ = ["block_ends"]

# More say nothing new, and each is held twice in a step.
MOST_TAPS = 12


def block_ends(network: Network, student: ir.Model) -> tuple[str, ...]:
    """Values that both models have and through which alone everything passes; where there are hardly any (long skips),
    those that joins write."""
    there = {str(value.name) for node in student.graph for value in node.outputs} - set(network.outputs)
    last = max(network.convs, default=0)
    # Behind the last convolution a value says little that the outputs do not.
    shared = [
        position
        for position, node in enumerate(network.order[:last])
        if node.outputs and node.outputs[0].name in there
    ]
    names = {position: str(network.order[position].outputs[0].name) for position in shared}
    ends = [names[p] for p in shared if network.live_at(p + 1) == [names[p]]]
    if len(ends) < 2:
        ends = [names[p] for p in shared if network.order[p].op_type in ("Add", "Concat")]
    if len(ends) <= MOST_TAPS:
        return tuple(ends)
    return tuple(ends[round(place)] for place in np.linspace(0, len(ends) - 1, MOST_TAPS))
