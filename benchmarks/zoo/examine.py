"""The steps of `run.py` on one ONNX file, each run in a process of its own.

    python benchmarks/zoo/examine.py inspect|compress SPEC ANSWER

SPEC is JSON, ANSWER the file that takes what was found, as JSON. Nobody needs to call this by hand.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort  # type: ignore[import-untyped, unused-ignore]

import onnx_layermerge as olm
from onnx_layermerge.candidates import METHODS, Candidate, enumerate_candidates
from onnx_layermerge.graph import Network, Refusal, barriers, read, write
from onnx_layermerge.recover import assemble
from onnx_layermerge.rewrite import finish

Row = dict[str, Any]
Arrays = dict[str, np.ndarray]

# Random weights say nothing about accuracy: what counts here is that a plan is found, built and written soundly.
SPEEDUP, SAMPLES, RIVALS, PICTURES = 1.1, 12, 1, 16
BATCH = 2
TIMESTEPS = 1000


def peak_mb() -> float:
    """The process's peak of resident memory so far, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def samples(network: Network, count: int, seed: int) -> Arrays:
    """``count`` random samples of every input, whose sizes are the model's own; integers are timesteps."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for info in network.inputs:
        shape = (count, *(size if isinstance(size, int) else 64 for size in info.shape[1:]))
        if info.dtype.kind == "f":
            arrays[info.name] = rng.standard_normal(shape, np.float32).astype(info.dtype)
        else:
            arrays[info.name] = rng.integers(0, TIMESTEPS, shape).astype(info.dtype)
    return arrays


def run(path: str | Path, feeds: Arrays) -> Arrays:
    """All outputs of a file in onnxruntime."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def difference(wanted: Arrays, got: Arrays) -> float:
    """Largest |difference| of an output over its largest magnitude, over all outputs; infinite when not comparable."""
    worst = 0.0
    for name, value in wanted.items():
        if name not in got or got[name].shape != value.shape or not np.isfinite(value).all():
            return float("inf")
        scale = float(np.abs(value).max()) or 1.0
        worst = max(worst, float(np.abs(value.astype(np.float64) - got[name]).max()) / scale)
    return worst


def empty_plan(network: Network, path: Path) -> None:
    """Write what comes out when nothing is replaced."""
    model, _ = assemble(network, (), lambda number, candidate, model, aliases: ())
    write(finish(network, model, {"plan": "[]"}), path)


def constants(node: ir.Node) -> list[bytes | None]:
    """The constant inputs of a node by their bytes, None for the others."""
    tensors = (None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs)
    return [None if tensor is None else tensor.numpy().tobytes() for tensor in tensors]


def face(node: ir.Node) -> tuple[str, str, dict[str, str]]:
    """Operator and attributes, comparable."""
    return node.domain, node.op_type, {name: str(attribute.value) for name, attribute in node.attributes.items()}


def shortfall(network: Network, covered: set[int], refusals: Iterable[Refusal]) -> dict[str, int]:
    """Why convolutions lie in no legal block, with counts: what is said of each, and the barriers it stands beside."""
    said = {refusal.node: refusal.reason for refusal in refusals}
    barred = {refusal.node: refusal.op_type for refusal in barriers(network)}
    counts: Counter[str] = Counter()
    for position, node in enumerate(network.order):
        if node.op_type == "Conv" and position not in covered:
            reason = said.get(str(node.name), "no stretch around it has one way in and one way out")
            near = sorted(barriers_before(node, barred) | barriers_behind(node, barred))
            counts[f"{reason} (beside {', '.join(near)})" if near else reason] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def barriers_before(node: ir.Node, barred: dict[str, str]) -> set[str]:
    """What stops a block that grows from ``node`` towards the input."""
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    while producer is not None and producer.op_type != "Conv":
        if str(producer.name) in barred:
            return {barred[str(producer.name)]}
        computed = [value for value in producer.inputs if value is not None and value.const_value is None]
        producer = computed[0].producer() if len(computed) == 1 else None
    return set()


def barriers_behind(node: ir.Node, barred: dict[str, str]) -> set[str]:
    """What stops one that grows towards the output."""
    found, waiting = set(), [node]
    while waiting:
        for use in waiting.pop().outputs[0].uses():
            if str(use.node.name) in barred:
                found.add(barred[str(use.node.name)])
            elif use.node.op_type != "Conv" and len(use.node.outputs) == 1:
                waiting.append(use.node)
    return found


def inspect(spec: Row) -> Row:
    """What the package sees in the file, and whether it leaves it as it was when there is nothing to do."""
    path, before_mb = Path(spec["path"]), peak_mb()
    begin = time.perf_counter()
    seen = olm.inspect(path)
    found: Row = {
        "inspect_s": time.perf_counter() - begin,
        "peak_mb": peak_mb() - before_mb,
        "file_mb": path.stat().st_size / 1e6,
        "nodes": seen.nodes,
        "convs": seen.convs,
        "covered": seen.covered,
        "blocks": dict(seen.blocks),
        "steps": list(seen.steps),
    }
    counts = Counter((refusal.op_type, refusal.reason) for refusal in seen.refusals)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found["refusals"] = [[op, reason, count] for (op, reason), count in ranked]
    network = read(path)
    found["batch"] = fixed_batch(network) or "dynamic"
    candidates, _ = enumerate_candidates(network, kinds=METHODS["olm"])
    covered = {conv for candidate in candidates for conv in candidate.region.convs}
    found["shortfall"] = shortfall(network, covered, seen.refusals)
    feeds = samples(network, fixed_batch(network) or BATCH, seed=zlib.crc32(path.name.encode()))
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        empty = Path(folder) / "empty.onnx"
        empty_plan(network, empty)
        onnx.checker.check_model(str(empty), full_check=True)
        found["empty_plan"] = difference(run(path, feeds), run(empty, feeds))
    return found


def fixed_batch(network: Network) -> int | None:
    """The batch size that the model insists on, if it does."""
    size = network.inputs[0].shape[0]
    return size if isinstance(size, int) else None


def compress(spec: Row) -> Row:
    """The whole command on random samples, and what is wrong with its file, which should be nothing."""
    path = Path(spec["path"])
    network = read(path)
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        target, empty, calib = (Path(folder) / name for name in ("out.onnx", "empty.onnx", "calib.npz"))
        np.savez(calib, **samples(network, PICTURES, seed=1))
        begin = time.perf_counter()
        try:
            report = olm.compress(
                path,
                target,
                speedup=SPEEDUP,
                calib=str(calib),
                refit_mode="off",  # what is checked is that nothing outside the plan changes
                samples=SAMPLES,
                rivals=RIVALS,
                profile=spec["profile"],
            )
        except olm.TargetError as error:  # a network that cannot be made faster is an answer, not a failure
            return {"unreachable": str(error), "wall_s": time.perf_counter() - begin, "faults": []}
        wall_s = time.perf_counter() - begin
        empty_plan(network, empty)
        candidates, _ = enumerate_candidates(network, kinds=METHODS["olm"])
        by_key = {candidate.key: candidate for candidate in candidates}
        plan = [by_key[block.name] for block in report.blocks]
        faults = faults_of(network, plan, empty, target)
        outputs = run(target, samples(network, fixed_batch(network) or BATCH, seed=2))
        faults += [f"output '{name}' is not finite" for name, value in outputs.items() if not np.isfinite(value).all()]
    return {
        "speedup": report.speedup.ratio,
        "low": report.speedup.low,
        "high": report.speedup.high,
        "convs_after": report.convs_after,
        "blocks": [block.name for block in report.blocks],
        "recipes": dict(Counter(block.recipe for block in report.blocks)),
        "wall_s": wall_s,
        "faults": faults,
    }


def faults_of(network: Network, plan: list[Candidate], empty: Path, target: Path) -> list[str]:
    """Everything by which ``target`` differs from the empty plan's file other than by the plan."""
    onnx.checker.check_model(str(target), full_check=True)
    before, after = ir.load(empty), ir.load(target)
    faults = []
    convs = sum(node.op_type == "Conv" for node in before.graph)
    planned = convs + sum(len(block.stages) - len(block.region.convs) for block in plan)
    made = sum(node.op_type == "Conv" for node in after.graph)
    if made != planned:
        faults.append(f"{made} convolutions where the plan says {planned}")
    replaced = {
        str(network.order[position].name)
        for block in plan
        for position in range(block.region.start, block.region.stop)
    }
    kept = {str(node.name): node for node in after.graph}
    for node in before.graph:
        name = str(node.name)
        if name in replaced:
            continue
        if name not in kept:
            faults.append(f"{node.op_type} '{name}' outside the plan is gone")
        elif face(node) != face(kept[name]):
            faults.append(f"{node.op_type} '{name}' outside the plan has other attributes")
        elif constants(node) != constants(kept[name]):
            faults.append(f"{node.op_type} '{name}' outside the plan has other weights")
    return faults


STEPS = {"inspect": inspect, "compress": compress}


def main() -> int:
    step, spec, answer = sys.argv[1:]
    try:
        found = STEPS[step](json.loads(spec))
    except Exception as error:  # a crash is a result here, and the next file is due
        found = {"error": f"{type(error).__name__}: {error}"}
        if not isinstance(error, olm.OlmError):
            sys.excepthook(type(error), error, error.__traceback__)
    Path(answer).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
