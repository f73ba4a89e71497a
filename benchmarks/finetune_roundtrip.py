"""ONNX → torch → ONNX without a step of training: what comes back, and which operators are covered.

    python benchmarks/finetune_roundtrip.py [MODEL.onnx …] [--json FILE] [--threads N]

Every model (without any named: `models/*.onnx` and `models/zoo/*.onnx`) becomes the module that `olm finetune` trains,
its weights go back into the graph as after a training, and that is written and read again.  Shown are the weights
that a training may move, whether all initializers of the written file are those of the first, bit by bit, and how far
the module's outputs lie from onnxruntime's on random inputs: the largest difference over the largest value, or over 1
where that is less.  Where that is more than 1e-5 the module is computed in float64 as well, and how far onnxruntime
lies from that says whether the difference is float32's rounding.  A model with an operator that has no function here is
named with it and counts as not covered.  The exit code is 1 when a covered model does not come back whole, or lies
further off than 1e-5 and rounding does not explain it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch  # noqa: TID251
from rich.console import Console
from rich.table import Table

from onnx_layermerge.errors import OlmError
from onnx_layermerge.graph import Session, bind_shapes, load, network_of, random_feeds, write
from onnx_layermerge.recover.training import onnx_module, put_back, unsupported_nodes

BOUND = 1e-5
ROOT = Path(__file__).resolve().parent.parent
# For axes that a model leaves open.
GUESS = 64


def initializers(path: Path) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """Type, shape and bits of each, by name."""
    found = {}
    for tensor in onnx.load(path).graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        found[tensor.name] = (tensor.data_type, array.shape, array.tobytes())
    return found


def row_of(path: Path, threads: int) -> dict[str, Any]:
    """One model's row; ``missing`` operators leave the rest empty."""
    row: dict[str, Any] = {"model": path.name}
    model = load(path)
    row["nodes"] = len(list(model.graph))
    missing = sorted({node.op_type for node in unsupported_nodes(model)})
    if missing:
        return {**row, "missing": missing}
    network = network_of(model)
    feeds = random_feeds(network.inputs, bind_shapes(network.inputs, {}, batch=2, guess=GUESS))
    began = time.perf_counter()
    module = onnx_module(model)
    with torch.no_grad():
        got = module({name: torch.from_numpy(values) for name, values in feeds.items()})
    row["seconds"] = round(time.perf_counter() - began, 2)
    weights = {name: weight.detach().numpy() for name, weight in module.weights.items()}
    row["weights"] = len(weights)
    row["values"] = int(sum(weight.size for weight in weights.values()))
    row["changed"] = len(put_back(model, weights))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / path.name
        write(model, target)
        row["bit_equal"] = initializers(target) == initializers(path)
        wanted = Session(load(target), threads=threads).run(feeds)
    row["error"] = apart(got, wanted)
    if row["error"] > BOUND:
        with torch.no_grad():
            exact = module.double()({name: in_double(values) for name, values in feeds.items()})
        row["error_in_float64"] = apart(exact, wanted)
    return row


def in_double(values: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(values)
    return tensor.double() if tensor.is_floating_point() else tensor


def apart(got: dict[str, torch.Tensor], wanted: dict[str, np.ndarray]) -> float:
    """The largest difference over the largest value, or over 1 where that is less."""
    return max(
        float(np.abs(got[name].numpy() - values).max() / max(1.0, np.abs(values).max()))
        for name, values in wanted.items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    models = words.models or sorted([*ROOT.glob("models/*.onnx"), *ROOT.glob("models/zoo/*.onnx")])
    rows = []
    console = Console()
    for path in models:
        try:
            rows.append(row_of(path, words.threads))
        except OlmError as error:
            rows.append({"model": path.name, "failed": str(error)})
        console.print(rows[-1], soft_wrap=True, highlight=False)
    table = Table("model", "nodes", "weights", "bit-equal", "error", "in float64", "not covered")
    for row in rows:
        cells = [str(row.get(name, "–")) for name in ("model", "nodes", "weights", "bit_equal")]
        errors = (f"{row[name]:.1e}" if name in row else "–" for name in ("error", "error_in_float64"))
        table.add_row(*cells, *errors, row.get("failed", ", ".join(row.get("missing", ()))))
    console.print(table)
    covered = [row for row in rows if "error" in row]
    whole = [row for row in covered if row["bit_equal"]]
    near = [row for row in covered if row["error"] <= BOUND]
    rounded = [row for row in covered if row["error"] > BOUND >= row["error_in_float64"]]
    share = len(covered) / max(1, len(rows))
    console.print(f"covered {len(covered)} of {len(rows)} models ({share:.1%}), bit-equal {len(whole)}")
    console.print(f"within {BOUND:g} {len(near)}, further off by rounding alone {len(rounded)}")
    if words.json is not None:
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "threads": words.threads,
            "bound": BOUND,
            "covered": len(covered),
            "models": len(rows),
            "rows": rows,
        }
        words.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if len(whole) == len(covered) == len(near) + len(rounded) else 1


if __name__ == "__main__":
    sys.exit(main())
