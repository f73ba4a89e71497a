"""The refit, for a model from any tool: every convolution solved again, near its own weights, first to last.

    W = (A + λI)⁻¹(B + λW0),   λ = α·mean diag A,   α = 0.1

The entry (and a skip that is added behind) comes from the pruned model with what was solved so far, the target from
the original: the same values, found by name, less the channels that are gone.  Which ones are gone is read off the
weights: pruning leaves a convolution's kept biases and filters as they were.  A convolution that cannot be matched is
left as it is and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from onnx_layermerge.candidates import MAX_UNKNOWNS, Candidate, Stage, geometry_of
from onnx_layermerge.data import Calibration
from onnx_layermerge.fit import Job, fit_jobs, job_of
from onnx_layermerge.graph import Conv, Network, Region, to_bytes
from onnx_layermerge.importance import part_runner
from onnx_layermerge.rewrite import finish

__all__ = ["ALPHA", "kept_channels", "refit"]

ALPHA = 1e-1
Arrays = dict[str, np.ndarray]


def refit(
    original: Network,
    pruned: Network,
    data: Calibration,
    *,
    batch: int,
    seed: int = 0,
    alpha: float = ALPHA,
    images: int = 256,
    say: Callable[[str], None] = lambda words: None,
) -> tuple[bytes, int, int]:
    """``pruned`` solved again; how many of its convolutions were, and how many it has."""
    convs = {str(original.order[p].outputs[0].name): conv for p, conv in original.convs.items()}
    solved = 0
    images = min(images, len(data))
    for position in sorted(pruned.convs):
        node, conv = pruned.order[position], pruned.convs[position]
        before = convs.get(str(node.outputs[0].name))
        kept = None if before is None else kept_channels(before, conv)
        job = None if kept is None else _job(pruned, position)
        if kept is None or job is None or job.site.value not in original.values:
            continue
        say(f"{node.name}: {len(kept)} channels")
        prior = conv.weight.reshape(len(conv.weight), -1).astype(np.float64)
        runs = _runs(original, pruned, job, kept, data, batch)
        found = fit_jobs([job], runs, images=images, seed=seed, alphas=(alpha,), prior=prior)[job.key]
        _store(pruned, position, found.weight.reshape(conv.weight.shape), found.bias)
        solved += 1
    return to_bytes(finish(pruned, pruned.model, {"benchmark": "refit"})), solved, len(pruned.convs)


def kept_channels(before: Conv, after: Conv) -> np.ndarray | None:
    """Which output channels of ``before`` are those of ``after``, in order; None where that cannot be seen.

    A kept channel has its old bias, and every number of its filter is one of the old filter's.
    """
    if before.channels_out == after.channels_out:
        return np.arange(before.channels_out)
    kept: list[int] = []
    place = 0
    for channel in range(after.channels_out):
        while place < before.channels_out and not _same(before, place, after, channel):
            place += 1
        if place == before.channels_out:
            return None
        kept.append(place)
        place += 1
    return np.array(kept)


def _same(before: Conv, place: int, after: Conv, channel: int) -> bool:
    if before.bias is not None and after.bias is not None and before.bias[place] != after.bias[channel]:
        return False
    return bool(np.isin(after.weight[channel], before.weight[place]).all())


def _job(network: Network, position: int) -> Job | None:
    """The convolution as a candidate for its own place; None where its form is not one the fit knows."""
    conv, node = network.convs[position], network.order[position]
    if any(d != 1 for d in conv.dilation) or conv.bias is None:
        return None
    region = Region(position, position + 1, str(node.inputs[0].name), str(node.outputs[0].name), (position,))  # type: ignore[union-attr]
    stage = Stage(conv.channels_in, conv.channels_out, geometry_of(conv), conv.groups)
    if stage.unknowns > MAX_UNKNOWNS:
        return None
    return job_of(network, Candidate(f"refit {node.name}", region, "fit", (stage,)))


def _runs(
    original: Network, pruned: Network, job: Job, kept: np.ndarray, data: Calibration, batch: int
) -> Iterator[tuple[Arrays, Arrays]]:
    """For each batch the target's kept channels from the original, entry and skip from the pruned model."""
    inputs = [info.name for info in original.inputs]
    met = sorted({job.entry, *([job.site.skip] if job.site.skip else [])})
    wanted, deployed = part_runner(original.model, inputs, [job.site.value]), part_runner(pruned.model, inputs, met)
    for feeds in data.batches(batch):
        values = wanted(feeds)
        yield {job.site.value: values[job.site.value][:, kept]}, deployed(feeds)


def _store(network: Network, position: int, weight: np.ndarray, bias: np.ndarray) -> None:
    """New weights into the model."""
    graph, conv = network.model.graph, network.convs[position]
    output = network.order[position].outputs[0].name
    node = next(node for node in graph if node.op_type == "Conv" and node.outputs[0].name == output)
    for index, (suffix, array) in enumerate((("weight", weight), ("bias", bias)), start=1):
        label = f"{output}.refit.{suffix}"
        array = np.ascontiguousarray(array.astype(conv.weight.dtype))
        value = ir.Value(name=label, const_value=ir.tensor(array, name=label))
        value.type, value.shape = ir.TensorType(ir.DataType.from_numpy(conv.weight.dtype)), ir.Shape(array.shape)
        graph.register_initializer(value)
        node.replace_input_with(index, value)
