"""Whether TensorRT-RTX builds every candidate block of well-known networks, without a GPU.

    python benchmarks/build_only.py [MODEL.onnx …] [--capability 8.6]… [--precision fp16]… [--json FILE]

Without a model, those of ``make models`` and ``make zoo``: ResNet-34, MobileNetV2-1.0, EfficientNet-Lite0.  For each
model and precision it prints the candidates, their distinct blocks, how many were built, how many layers an engine has,
and the seconds that a build takes.  Nothing runs on a GPU, and no time here says how fast an engine is.  The exit code
is 1 when a block could not be built, or when a build takes more than 0.2 CPU seconds in the median.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from onnx_layermerge.flow._build_only import BuildReport, build_only
from onnx_layermerge.latency.backends.tensorrt import PRECISIONS

MODELS = Path(__file__).resolve().parents[1] / "models"
FILES = (
    MODELS / "zoo" / "resnet34.torchscript.onnx",
    MODELS / "zoo" / "mobilenet_v2.torchscript.onnx",
    MODELS / "efficientnet_lite0.onnx",
)
BOUND_S = 0.2
SHOWN = 5


def row(name: str, report: BuildReport) -> dict[str, Any]:
    built = [block for block in report.blocks if block.reason is None]
    plain = sum(not any(layer.reformat for layer in block.layers) for block in built)
    return {
        "model": name,
        "precision": report.precision,
        "candidates": sum(model.candidates for model in report.models.values()),
        "blocks": len(report.blocks),
        "built": len(built),
        "failed": len(report.failed),
        "without_reformats": plain,
        "median_layers": statistics.median(len(block.layers) for block in built) if built else 0,
        "median_engine_bytes": statistics.median(block.engine_bytes for block in built) if built else 0,
        "median_s": report.median_s,
        "slowest_s": max((block.seconds for block in report.blocks), default=0.0),
        "median_cpu_s": report.median_cpu_s,
        "reasons": {block.label: block.reason for block in report.failed},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="*", default=FILES)
    parser.add_argument("--capability", action="append", help="compute capability (8.6, 8.9 and 12.0 if none is named)")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="fp32 and fp16 if none is named")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    console, rows, backend = Console(stderr=True, width=140), [], ""
    capabilities = words.capability or ["8.6", "8.9", "12.0"]
    for path in words.models:
        for precision in words.precision or ["fp32", "fp16"]:
            console.print(f"{path.name}, {precision} …")
            report = build_only([path], capabilities=capabilities, precision=precision)
            backend = report.backend
            rows.append(row(path.name, report))
    table = Table(
        "model", "", "candidates", "blocks", "built", "failed", "no reformat", "layers", "s", "slowest s", "CPU s"
    )
    for each in rows:
        times = (f"{each[word]:.3f}" for word in ("median_s", "slowest_s", "median_cpu_s"))
        counts = ("candidates", "blocks", "built", "failed", "without_reformats", "median_layers")
        table.add_row(each["model"], each["precision"], *(str(each[word]) for word in counts), *times)
    console.print(table)
    for each in rows:
        for label, reason in list(each["reasons"].items())[:SHOWN]:
            console.print(f"{each['model']} {each['precision']}: {label}: {reason}", markup=False)
    if words.json is not None:
        record = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "backend": backend,
            "capabilities": capabilities,
            "machine": platform.machine(),
            "python": platform.python_version(),
            "ran_on_a_gpu": False,
            "rows": rows,
        }
        words.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return int(any(each["failed"] or each["median_cpu_s"] > BOUND_S for each in rows))


if __name__ == "__main__":
    sys.exit(main())
