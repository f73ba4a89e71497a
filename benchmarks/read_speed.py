"""How long reading and inspecting large graphs takes, and how much memory, by number of nodes.

    python benchmarks/read_speed.py [--json FILE] [--repeats N]

Three kinds of graph, generated: a chain of convolutions and activations; a residual network as an exporter writes it,
BatchNormalization unfolded and each weight in a Constant node; and one that is mostly shape arithmetic. Every row is
read and inspected in a process of its own, N times, and the median is shown: seconds of `graph.read`, seconds of
`inspect` (which reads as well), on the clock and of processor time, and how far the peak memory rises over that of the
imports. Sizes double, so linear growth is a factor of two. The largest chain has 1,000 convolutions and the largest
graphs 10,000 nodes; inspecting them must take under 5 s. Nothing here waits for anything, so on an idle machine the
clock shows the processor time or, with several threads, less; on a busy one it shows the others' work as well. The
exit code is therefore 1 when the processor time of such a row misses the bound.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from rich.console import Console
from rich.table import Table

BOUND_S = 5.0
CHANNELS, SIZE = 8, 8
SIZES = {
    "chain": (500, 1_000, 2_000),
    "residual": (2_500, 5_000, 10_000),
    "shapes": (2_500, 5_000, 10_000),
}


class Graph:
    """Nodes in order; each method returns the name of the value it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, array: np.ndarray, *, as_node: bool = False) -> str:
        if as_node:
            return self.node("Constant", value=numpy_helper.from_array(array))
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, source: str, *, straight: bool, as_node: bool = False) -> str:
        """``straight``: close to the identity, for those in a row, of which a thousand at random would leave nothing
        of the image but rounding; in a branch beside a skip they are as a training starts with them."""
        array = self.rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) / np.sqrt(4.5 * CHANNELS)
        if straight:
            array *= 0.02
            array[:, :, 1, 1] += np.eye(CHANNELS)
        return self.node("Conv", source, self.weight(array.astype(np.float32), as_node=as_node), pads=[1] * 4)

    def save(self, path: Path, output: str) -> None:
        image = ["N", CHANNELS, SIZE, SIZE]
        graph = helper.make_graph(
            self.nodes,
            "large",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, image)],
            [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, image)],
            self.weights,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def chain(graph: Graph, nodes: int) -> str:
    value = "x"
    while len(graph.nodes) < nodes:
        value = graph.node("Relu", graph.conv(value, straight=True))
    return value


def residual(graph: Graph, nodes: int) -> str:
    value = "x"
    ones, zeros = (graph.weight(np.full(CHANNELS, fill, np.float32)) for fill in (1, 0))
    while len(graph.nodes) < nodes:
        inner = graph.conv(value, straight=False, as_node=True)
        inner = graph.node("BatchNormalization", inner, ones, zeros, zeros, ones)
        inner = graph.conv(graph.node("Relu", inner), straight=False, as_node=True)
        half = graph.weight(np.full((CHANNELS, 1, 1), 0.1, np.float32), as_node=True)
        value = graph.node("Relu", graph.node("Add", graph.node("Mul", inner, half), value))
    return value


def shapes(graph: Graph, nodes: int) -> str:
    value = "x"
    while len(graph.nodes) < nodes:
        first = graph.node("Gather", graph.node("Shape", value), graph.weight(np.array([0]), as_node=True))
        sizes = graph.node("Concat", first, graph.weight(np.array([CHANNELS, SIZE, SIZE]), as_node=True), axis=0)
        inner = graph.node("Identity", graph.node("Reshape", value, sizes))
        value = graph.node("Relu", graph.conv(inner, straight=True))
    return value


KINDS: dict[str, Callable[[Graph, int], str]] = {"chain": chain, "residual": residual, "shapes": shapes}


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def child(path: str) -> dict[str, Any]:
    """One row, in a process that does nothing else."""
    import onnxruntime  # noqa: F401  its import is no part of reading

    import onnx_layermerge
    from onnx_layermerge import graph

    before = peak_mib()
    start, start_cpu = time.perf_counter(), time.process_time()
    network = graph.read(path)
    read_s, read_cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    read_mib = peak_mib() - before
    del network
    start, start_cpu = time.perf_counter(), time.process_time()
    found = onnx_layermerge.inspect(path)
    return {
        "read_s": read_s,
        "read_cpu_s": read_cpu_s,
        "inspect_s": time.perf_counter() - start,
        "inspect_cpu_s": time.process_time() - start_cpu,
        "read_mib": read_mib,
        "inspect_mib": peak_mib() - before,
        "nodes_left": found.nodes,
        "convs": found.convs,
        "blocks": sum(found.blocks.values()),
    }


def measure(repeats: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, sizes in SIZES.items():
            for nodes in sizes:
                path = Path(folder) / "large.onnx"
                graph = Graph()
                graph.save(path, KINDS[kind](graph, nodes))
                runs = []
                for _ in range(repeats):
                    command = [sys.executable, __file__, "--child", str(path)]
                    done = subprocess.run(command, check=False, capture_output=True, text=True)
                    if done.returncode:
                        raise SystemExit(f"{kind} of {len(graph.nodes)} nodes: {done.stderr.strip()}")
                    runs.append(json.loads(done.stdout))
                middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
                rows.append({"kind": kind, "nodes": len(graph.nodes), "repeats": repeats, **middle})
    return rows


def show(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        *("graph", "nodes", "nodes left", "convs", "blocks", "read, s", "CPU, s", "inspect, s", "CPU, s"),
        *("read, MiB", "inspect, MiB"),
    )
    for row in rows:
        counts = (f"{int(row[key]):,}" for key in ("nodes", "nodes_left", "convs", "blocks"))
        times = (f"{row[key]:.2f}" for key in ("read_s", "read_cpu_s", "inspect_s", "inspect_cpu_s"))
        table.add_row(row["kind"], *counts, *times, *(f"{row[key]:.0f}" for key in ("read_mib", "inspect_mib")))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here as well")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        json.dump(child(given.child), sys.stdout)
        return 0
    rows = measure(given.repeats)
    Console().print(show(rows))
    if given.json:
        record = {"python": platform.python_version(), "machine": platform.machine(), "bound_s": BOUND_S, "rows": rows}
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    late = [row for row in rows if row["nodes"] >= SIZES[row["kind"]][-1] and row["inspect_cpu_s"] > BOUND_S]
    return 1 if late else 0


if __name__ == "__main__":
    raise SystemExit(main())
