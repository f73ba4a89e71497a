"""How much memory a model of more than 2 GB takes on its way through: peak of the process over the size of the weights.

    python benchmarks/external_data.py [--gib 2.05] [--steps load write | load run write] [--json FILE]

Makes a chain of convolutions with its weights in a file beside it, in a temporary folder, and takes it through the
steps in a process of its own: ``load`` (with every check, the values of all weights included), ``run`` (one image
through onnxruntime) and ``write``.  Shown are the peak of resident memory (VmHWM, which counts file pages that happen
to be mapped) and the peak of the anonymous part (RssAnon, sampled: what the process really asked for), both over the
bytes of the weights and less what Python and the libraries take before.  Linux only; needs twice the size on disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

CHANNELS, KERNEL = 1024, 3
LAYER_BYTES = 4 * CHANNELS * CHANNELS * KERNEL**2


def make(folder: Path, gib: float) -> int:
    """``in.onnx`` and ``in.data`` with seeded weights, written layer by layer; returns the bytes of the weights."""
    layers = -(-int(gib * 2**30) // LAYER_BYTES)
    draw = np.random.default_rng(0)
    nodes, weights = [], []
    with (folder / "in.data").open("wb") as stream:
        for number in range(layers):
            name = f"w{number}"
            shape = (CHANNELS, CHANNELS, KERNEL, KERNEL)
            values = draw.standard_normal(shape, np.float32)
            values *= np.float32(1 / np.sqrt(CHANNELS * KERNEL**2))
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "in.data"), ("offset", stream.tell()), ("length", values.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            values.tofile(stream)
            weights.append(tensor)
            source = "x" if not number else f"y{number - 1}"
            nodes.append(helper.make_node("Conv", [source, name], [f"y{number}"], name=f"c{number}", pads=[1] * 4))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS, 4, 4])
    answer = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["N", CHANNELS, 4, 4])
    graph = helper.make_graph(nodes, "large", [image], [answer], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "in.onnx")
    return layers * LAYER_BYTES


def status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


@contextmanager
def anonymous_peak() -> Iterator[list[int]]:
    """The largest RssAnon seen every few milliseconds while inside, in bytes."""
    peak = [status("RssAnon")]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.003):
            peak[0] = max(peak[0], status("RssAnon"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def go(folder: Path, steps: list[str]) -> dict[str, float]:
    """All steps in this process."""
    import onnxruntime  # noqa: F401  its own size is none of the model's

    from onnx_layermerge.graph import Session, load, write

    before, anonymous_before = status("VmHWM"), status("RssAnon")
    found: dict[str, float] = {}
    with anonymous_peak() as peak:
        for step in steps:
            begin = time.perf_counter()
            if step == "load":
                model = load(folder / "in.onnx")
            elif step == "run":
                Session(model).run({"x": np.ones((1, CHANNELS, 4, 4), np.float32)})
            else:
                write(model, folder / "out.onnx")
            found[f"{step}_s"] = time.perf_counter() - begin
            found[f"{step}_anonymous_bytes"] = peak[0] - anonymous_before
            peak[0] = status("RssAnon")
    found["peak_bytes"] = status("VmHWM") - before
    return found


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    words.add_argument("--gib", type=float, default=2.05, help="size of the weights")
    words.add_argument("--steps", nargs="+", choices=("load", "run", "write"), default=["load", "write"])
    words.add_argument("--json", type=Path, help="write the figures here")
    words.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.child:
        print(json.dumps(go(given.child, given.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = make(Path(folder), given.gib)
        command = [sys.executable, __file__, "--child", folder, "--steps", *given.steps]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = {"weight_bytes": weights, **json.loads(told)}
        if "write" in given.steps:
            found["files_equal"] = (Path(folder) / "out.onnx.data").stat().st_size == weights
    table = Table("what", "GiB", "÷ weights", title=f"{weights / 2**30:.2f} GiB of weights: {' → '.join(given.steps)}")
    rows = [("peak of resident memory", found["peak_bytes"])]
    rows += [(f"peak of anonymous memory in {step}", found[f"{step}_anonymous_bytes"]) for step in given.steps]
    for name, size in rows:
        table.add_row(name, f"{size / 2**30:.2f}", f"{size / weights:.2f}")
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
