"""Re-solve kept convolutions behind the first replaced block: ridge towards their own weights.

    W = (A + λI)⁻¹(B + λW0),   entry from the compressed model, target from the original.

The ridge has to be strong.  With a tenth of it EfficientNet-Lite0 gained on samples of the calibration's own source and
lost elsewhere (docs/adr/0015).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnx_layermerge.candidates import MAX_UNKNOWNS, Candidate, Stage, geometry_of
from onnx_layermerge.data import Calibration
from onnx_layermerge.fit import FEW_ROWS, Job, job_of, rows_for
from onnx_layermerge.graph import Network, Region, extract
from onnx_layermerge.recover._build import Built, refitted
from onnx_layermerge.recover._prefix import Prefix
from onnx_layermerge.recover._store import put_weights

__all__ = ["refit"]

# α, chosen for each layer on held-out rows: a tenth of the first learns the calibration by heart, the second changes
# little, the last nothing to speak of, for a layer that gains nothing.
NEAR = (1.0, 10.0, 1000.0)

Progress = Callable[[int, int, str], None]


def refit(
    network: Network,
    plan: Sequence[Candidate],
    built: Built,
    data: Calibration,
    *,
    alphas: Sequence[float] = NEAR,
    images: int,
    batch: int,
    seed: int = 0,
    progress: Progress = lambda done, total, what: None,
) -> Built:
    """A copy of ``built`` whose kept convolutions behind the first block are re-solved, first to last."""
    inputs = [info.name for info in network.inputs]
    model = extract(built.model, inputs, list(network.outputs))
    replaced = {p for candidate in plan for p in range(candidate.region.start, candidate.region.stop)}
    first = min((candidate.region.start for candidate in plan), default=len(network.order))
    kept = [p for p in sorted(network.convs) if p > first and p not in replaced]
    prefix = Prefix(network, data, batch, images)
    names: list[str] = []
    for number, position in enumerate(kept):
        job = _job(network, position)
        if job is None:
            continue
        progress(number, len(kept), str(network.order[position].name))
        conv = network.convs[position]
        prior = conv.weight.reshape(len(conv.weight), -1).astype(np.float64)
        prefix.advance(model, position, built.aliases)
        found = refitted(prefix, model, job, built.aliases, images=images, seed=seed, alphas=alphas, prior=prior)
        names.append(str(network.order[position].name))
        output = network.order[position].outputs[0].name
        node = next(node for node in model.graph if node.op_type == "Conv" and node.outputs[0].name == output)
        put_weights(model.graph, node, found.weight.reshape(conv.weight.shape), found.bias, "refit")
    progress(len(kept), len(kept), "refitted")
    return Built(model, built.fits, built.aliases, tuple(names))


def _job(network: Network, position: int) -> Job | None:
    """The convolution as a candidate for its own place; None where its form is not one the fit knows, or where its
    patches would leave memory for too few rows: such a fit is slow, and not to be trusted."""
    conv, node = network.convs[position], network.order[position]
    if any(d != 1 for d in conv.dilation):
        return None
    region = Region(position, position + 1, str(node.inputs[0].name), str(node.outputs[0].name), (position,))  # type: ignore[union-attr]
    stage = Stage(conv.channels_in, conv.channels_out, geometry_of(conv), conv.groups)
    candidate = Candidate(f"refit {node.name}", region, "fit", (stage,))
    if stage.unknowns > MAX_UNKNOWNS:
        return None
    job = job_of(network, candidate)
    return job if rows_for(job) >= FEW_ROWS * stage.unknowns else None
