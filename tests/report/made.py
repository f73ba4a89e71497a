"""A report written by hand: every figure in it is known, and no model is needed."""

from __future__ import annotations

import dataclasses
from typing import Any

from onnx_layermerge.importance import Divergence
from onnx_layermerge.latency import Ratio
from onnx_layermerge.report import Block, Keys, Line, Point, Rejected, Report, Sketch
from onnx_layermerge.verify import Boxes, FitCheck, MetricValues, OutputDrift

EVIL = "<script>alert('x')</script> \"&amp;"


def line(kind: str, label: str, name: str, *readers: int, block: int = 0, chips: tuple[str, ...] = ()) -> Line:
    return Line(kind, label, name, block, chips, readers)


def before(name: str = "b") -> Sketch:
    """input → a → [b → c] + skip from a → d → output."""
    return Sketch(
        (
            line("port", "x  1×3×8×8", "", 1),
            line("conv", "3×3  3→8", "a", 2, 4, chips=("Relu",)),
            line("conv", "3×3  8→8", name, 3, block=1),
            line("conv", "3×3  8→8", "c", 4, block=1),
            line("join", "Add", "s", 5, chips=("Relu",)),
            line("conv", "1×1  8→4", "d", 6, block=2),
            line("port", "y", ""),
        ),
        0,
    )


def after() -> Sketch:
    """The same with b and c merged and d dropped."""
    return Sketch(
        (
            line("port", "x  1×3×8×8", "", 1),
            line("conv", "3×3  3→8", "a", 2, 3, chips=("Relu",)),
            line("conv", "5×5  8→8", "olm/0", 3, block=1),
            line("join", "Add", "s", 4, chips=("Relu",)),
            line("port", "y", ""),
        ),
        0,
    )


def blocks(name: str = "b") -> tuple[Block, ...]:
    fit = Block(
        name=f"fit 5x5 {name}…c", recipe="fit", kernel=(5, 5), groups=1, convs=2, certificate="lossy", saving_ms=0.25,
        loss_alone=0.0125, fit_error=0.0321, alpha=1e-3, rows_per_unknown=1234.0, old_ms=1.0, replaced=(name, "c"),
        made=("olm/0",), was=("3×3  8→8", "3×3  8→8"), now=("5×5  8→8",),
    )  # fmt: skip
    drop = Block(
        name="drop d", recipe="drop", kernel=(), groups=1, convs=1, certificate="lossy", saving_ms=0.125,
        loss_alone=0.5, fit_error=None, alpha=None, rows_per_unknown=None, old_ms=0.125, replaced=("d",), made=(),
        was=("1×1  8→4",), now=(),
    )  # fmt: skip
    return fit, drop


def report(**changes: Any) -> Report:
    made = Report(
        input="models/in.onnx", output="out.onnx", method="olm", device="fake 1 / machine / fp32", effort="normal",
        asked=1.4, predicted=1.53, speedup=Ratio(1.5, 1.47, 1.53, 3e-3, 2e-3, 1.49, 321, "precise"),
        measured_now=True, validation=Divergence(0.0421, 0.01, 0.987),
        outputs=(OutputDrift("scores", 0.0421, 0.01, 0.99876, 21.5, 0.75, None, 0.987),),
        boxes=None, metric=None, fits=FitCheck(48, 0.02, 0.0421, 2.1, 0.2, None), basis="relative", recovery=(),
        refitted=(), fitted_on=64, judged_on=48, blocks=blocks(),
        rejected=(
            Rejected("kl", 1.45, 0.077, ("drop b",), None, 1.44, 0.061),
            Rejected("root", 1.38, 0.05, ("drop c", "drop d"), None, 1.42, 0.055, missed=True),
            Rejected("drop-only", 0.0, 9.0, ("drop d",), None, 1.6, 8.0, missed=True),
        ),
        convs_before=4, convs_after=2, timed_blocks=17, reused_blocks=5, seed=7,
        seconds={"read": 0.25, "time blocks": 12.0, "score blocks": 200.0, "write": 0.01},
        warnings=("give more samples",), expected=0.5125, divergence=0.0455,
        points=(Point(1.0, 0.0, 0), Point(1.2, 0.002, 1), Point(1.5, 0.05, 2), Point(2.0, 0.4, 3), Point(40.0, 9.0, 4)),
        drop_only=(Point(1.0, 0.0, 0), Point(1.3, 0.6, 1), Point(1.9, 3.0, 2)), before=before(), after=after(),
        keys=Keys("1" * 64, "2" * 64, "3" * 64, "abcdef0123456789", "table.json", {"python": "3.11.0", "onnx": "1.20"}),
        command=("compress", "models/in.onnx", "out.onnx", "--speedup", "1.4", "--calib", "my images"),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def everything() -> Report:
    """With boxes, a metric, refitted layers and tuning as well."""
    return report(
        boxes=Boxes(100, 97, 90, 0.9, 0.928, 0.914, 0.05),
        metric=MetricValues("mine.py:accuracy", 0.871, 0.869),
        recovery=("refit", "tune"),
        refitted=("a",),
    )
