"""Does the overfitting guard speak when it should? ResNet-20, three plans that stay the same, fitted on more and more.

    python benchmarks/overfit_guard.py [--draws 3]

For each plan and number of samples: the plan is fitted on that many digits, drawn anew for each draw. *excess* is the
loss on 800 other digits less that on the fitted ones, as a share of the former. Then the guard judges by a third as
many held-out digits as were fitted on, drawn thirty times from those 800. Writes records/overfit_guard.json; the table
in docs/judging.md is this one.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.data import Calibration, ImageOptions
from onnx_layermerge.flow._data import open_data
from onnx_layermerge.flow._prepare import Prepared, prepare
from onnx_layermerge.recover import build
from onnx_layermerge.verify import fit_check, outputs_of, sample_losses

ROOT = Path(__file__).resolve().parents[1]
COUNTS = (12, 24, 48, 96, 192, 384, 768)
OTHERS, REPEATS, BATCH = 800, 30, 16
# Blocks by recipe and the convolutions they span: thinned late, thinned and fitted all over, and few large fits.
PLANS = {
    "width": (
        ("width 16/32", "blocks.4/conv1", "blocks.4/conv2"),
        *(("width 32/64", f"blocks.{k}/conv1", f"blocks.{k}/conv2") for k in (6, 7, 8)),
    ),
    "mixed": (
        ("fit 3x3", "blocks.0/conv1", "blocks.0/Add"),
        ("fit 5x5", "blocks.2/conv1", "blocks.3/Add"),
        *(("width 16/32", f"blocks.{k}/conv1", f"blocks.{k}/conv2") for k in (4, 5)),
        ("width 32/64", "blocks.6/conv1", "blocks.6/conv2"),
    ),
    "hard": (
        ("fit 5x5", "blocks.1/conv1", "blocks.2/Add"),
        ("fit 5x5", "blocks.4/conv1", "blocks.5/Add"),
        ("fit 3x3", "blocks.7/conv1", "blocks.8/Add"),
    ),
}


def blocks(prepared: Prepared, wanted: tuple[tuple[str, str, str], ...]) -> list[Candidate]:
    """The candidate of each recipe between the two convolutions named."""
    return [
        next(c for c in prepared.candidates if c.key.startswith(recipe) and first in c.key and last in c.key)
        for recipe, first, last in wanted
    ]


def rows(prepared: Prepared, data: Calibration, draws: int) -> Iterator[dict[str, Any]]:
    model = prepared.network.model
    shuffled = data.take(len(data), seed=3)
    others, pool = (part(shuffled, *bounds) for bounds in ((0, OTHERS), (OTHERS, len(data))))
    wanted = outputs_of(model, others, BATCH)
    for name, specification in PLANS.items():
        plan = blocks(prepared, specification)
        for count in COUNTS:
            excess, warned, needed = [], 0, []
            for draw in range(draws):
                fitted = pool.take(count, seed=draw)
                built = build(prepared.network, plan, fitted, images=count, batch=BATCH)
                seen = sample_losses(outputs_of(model, fitted, BATCH), outputs_of(built.model, fitted, BATCH))
                other = sample_losses(wanted, outputs_of(built.model, others, BATCH))
                excess.append(1 - seen.mean() / other.mean())
                for repeat in range(REPEATS):
                    held = np.random.default_rng(repeat).choice(other, max(1, count // 3), replace=False)
                    found = fit_check(seen, held, count)
                    if found is not None and found.needed is not None:
                        warned += 1
                        needed.append(found.needed)
            yield {
                "plan": name,
                "samples": count,
                "excess": [round(float(value), 4) for value in excess],
                "warned": warned / (draws * REPEATS),
                "asked_for": round(statistics.median(needed)) if needed else None,
            }


def part(data: Calibration, start: int, stop: int) -> Calibration:
    """Samples ``start`` to ``stop`` as they lie."""
    return data._part(data._numbers[start:stop])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    prepared = prepare(ROOT / "examples/mnist/resnet20.onnx")
    data = open_data(prepared, f"{ROOT}/examples/mnist/data.py:calibration", ImageOptions(), 4000, 0)
    found = []
    print("| plan | n | excess | warned | asked for (median) |\n| --- | ---: | ---: | ---: | ---: |")
    for row in rows(prepared, data, options.draws):
        found.append(row)
        excess = statistics.mean(row["excess"])
        print(f"| {row['plan']} | {row['samples']} | {excess:.0%} | {row['warned']:.0%} | {row['asked_for'] or '–'} |")
    record = {"machine": platform.machine(), "python": platform.python_version(), "draws": options.draws, "rows": found}
    path = ROOT / "benchmarks/records/overfit_guard.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
