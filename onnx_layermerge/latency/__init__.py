"""How long a block, or a whole model, takes on a device: measured, with its uncertainty.

1. A cost is the **slope over copies** of a block (`slopes`), which is what the block adds to a
   network, not what it takes alone. Whole models are timed alone (`measure`) or against one
   another, interleaved (`interleave`).
2. Models run on preset random, non-zero inputs of the deployed shape, after a warm-up by time.
3. Candidates are shuffled within rounds; one anchor is timed every round and shows drift.
4. The number is a **median** with a distribution-free 95 % interval. Sampling stops when that is
   narrow enough, or at a cap; which one is stored. No sample is dropped; outliers are counted.
5. On a CPU the unit is the **CPU time of the process**, with one thread; wall time stands beside.
6. Every number goes into a `LatencyTable` under a key of block and `DeviceKey` the moment it is
   there, and nothing is timed twice (`fill`).
7. Blocks are timed in a process of their own: a crash or a hang is the recorded failure of one block; and so are
   whole models (`compare`).
8. What is too slow to be of use is given up after a look and recorded as a `Bound`.
"""

from __future__ import annotations

from onnx_layermerge.latency._clock import Clock, Instant, cpu_clock
from onnx_layermerge.latency._compare import compare
from onnx_layermerge.latency._device import PROTOCOL_VERSION, DeviceKey
from onnx_layermerge.latency._fill import answers, fill
from onnx_layermerge.latency._interleave import MAX_ROUNDS, interleave, measure
from onnx_layermerge.latency._json_form import Entry, Pair, Section, time_text
from onnx_layermerge.latency._manage import Counts, differs, listed, select
from onnx_layermerge.latency._protocol import slopes
from onnx_layermerge.latency._sampling import Progress, clock_of
from onnx_layermerge.latency._spec import BlockSpec
from onnx_layermerge.latency._statistics import Bound, Failure, Measurement, Ratio, StopReason, Value
from onnx_layermerge.latency._supervisor import BuildResult, isolated_builds
from onnx_layermerge.latency._table import LatencyTable, default_path
from onnx_layermerge.latency.backends import (
    Backend,
    BackendStatus,
    EngineOptions,
    Runnable,
    available_backends,
    cpu_name,
    gpu_clocks,
    open_backend,
)
from onnx_layermerge.latency.backends._engine_options import Range

__all__ = [
    "MAX_ROUNDS",
    "PROTOCOL_VERSION",
    "Backend",
    "BackendStatus",
    "BlockSpec",
    "Bound",
    "BuildResult",
    "Clock",
    "Counts",
    "DeviceKey",
    "EngineOptions",
    "Entry",
    "Failure",
    "Instant",
    "LatencyTable",
    "Measurement",
    "Pair",
    "Progress",
    "Range",
    "Ratio",
    "Runnable",
    "Section",
    "StopReason",
    "Value",
    "answers",
    "available_backends",
    "clock_of",
    "compare",
    "cpu_clock",
    "cpu_name",
    "default_path",
    "differs",
    "fill",
    "gpu_clocks",
    "interleave",
    "isolated_builds",
    "listed",
    "measure",
    "open_backend",
    "select",
    "slopes",
    "time_text",
]
