"""Build every candidate block for named GPUs, on a machine that has none: what parses, what fuses, what fails.

Nothing is run and nothing is timed on a device; the seconds are those that a build takes here.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.errors import UsageError
from onnx_layermerge.flow._prepare import Progress, prepare, quiet
from onnx_layermerge.flow._sheet import sheet_of
from onnx_layermerge.latency import BlockSpec, BuildResult, EngineOptions, isolated_builds
from onnx_layermerge.latency.backends import Reopen
from onnx_layermerge.latency.backends.tensorrt import BuildOptions, check_options, load

__all__ = ["BlockBuild", "BuildReport", "FusedLayer", "ModelBlocks", "build_only"]


@dataclass(frozen=True)
class FusedLayer:
    """One layer of an engine: its kind in the library's words, and the ONNX nodes that it computes where it names them.

    ``reformat``: it only moves a tensor into another layout.
    """

    kind: str
    nodes: tuple[str, ...]
    reformat: bool


@dataclass(frozen=True)
class BlockBuild:
    """One block: built, or why not.

    Attributes:
        key, label: the block's, as in the latency table.
        reason: None where it was built.
        engine_bytes: size of the serialized engine for all compute capabilities together; 0 where there is none.
        layers: fused layers of the first of them; empty where the library does not print them.
        seconds: wall seconds of casting, parsing and building; 0 where that crashed.
        cpu_s: CPU seconds of the process that built, all threads, for the same; 0 where it crashed.
    """

    key: str
    label: str
    reason: str | None
    engine_bytes: int
    layers: tuple[FusedLayer, ...]
    seconds: float
    cpu_s: float


@dataclass(frozen=True)
class ModelBlocks:
    """A model's legal candidates, and the keys of the distinct blocks that they and what they replace come to."""

    candidates: int
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class BuildReport:
    """What was built for ``capabilities`` in ``precision``; blocks that models share are built once.

    ``backend`` names the library and its version; ``median_s`` and ``median_cpu_s`` are over all blocks, 0 where there
    are none.
    """

    backend: str
    capabilities: tuple[str, ...]
    precision: str
    models: Mapping[str, ModelBlocks]
    blocks: tuple[BlockBuild, ...]
    median_s: float
    median_cpu_s: float

    @property
    def failed(self) -> tuple[BlockBuild, ...]:
        """Blocks without an engine."""
        return tuple(block for block in self.blocks if block.reason is not None)


def build_only(
    paths: Sequence[str | Path],
    *,
    capabilities: Sequence[str],
    backend: str = "tensorrt-rtx",
    precision: str = "fp32",
    method: str = "olm",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    engines: EngineOptions | None = None,
    progress: Progress = quiet,
) -> BuildReport:
    """Parse and build each distinct block of the models, one copy of it, ahead of time.

    The builder runs in a process of its own: a block that crashes or hangs it, or takes all memory, is one that is not
    built, and the others go on.

    Args:
        capabilities: compute capabilities to build for, such as ``8.6``; every engine holds code for all of them.
        engines: optimization level, time limit, and the folder for the engines, each under its block's key.  Blocks
            have the usual shapes of its ranges.

    Raises:
        DeviceError: the library is not installed, or does not build for one of these.
        OutputError: an engine cannot be saved.
        ModelError: a model cannot be read; that a block cannot be built is part of the report.
        UsageError: no model, no compute capability, an unknown precision or method, or an option that the library has
            not.
    """
    if not paths:
        raise UsageError("name at least one model to build blocks of.")
    if not capabilities:
        raise UsageError("name at least one compute capability to build for, such as 8.6.")
    library, engines = load(backend), engines or EngineOptions()
    options = BuildOptions(
        precision=precision,
        capabilities=tuple(dict.fromkeys(capabilities)),
        level=engines.level,
        timing_cache_file=str(engines.timing_cache),
        save_engines=str(engines.save_engines),
        limit_s=engines.build_limit_s,
    )
    check_options(library, options)
    for words in options.capabilities:
        library.capability(words)
    models: dict[str, ModelBlocks] = {}
    blocks: dict[str, BlockSpec] = {}
    for path in paths:
        prepared = prepare(path, method=method, shapes=shapes, batch=batch, engines=engines, progress=progress)
        found = sheet_of(prepared).blocks
        models[str(path)] = ModelBlocks(len(prepared.candidates), tuple(found))
        for key, spec in found.items():
            blocks.setdefault(key, spec)
    done: list[BlockBuild] = []

    def store(spec: BlockSpec, result: BuildResult) -> None:
        layers = tuple(FusedLayer(*layer) for layer in result.layers)
        built = BlockBuild(
            spec.key, spec.label, result.reason, result.engine_bytes, layers, result.seconds, result.cpu_s
        )
        done.append(built)
        progress("build", len(done), len(blocks), spec.label)

    progress("build", 0, len(blocks), "starting the builder")
    isolated_builds(blocks.values(), _reopen(backend, options), build_s=engines.build_limit_s, store=store)
    progress("build", len(blocks), len(blocks), f"{sum(block.reason is None for block in done)} built")
    median_s = statistics.median(block.seconds for block in done) if done else 0.0
    median_cpu_s = statistics.median(block.cpu_s for block in done) if done else 0.0
    return BuildReport(library.title, options.capabilities, precision, models, tuple(done), median_s, median_cpu_s)


def _reopen(backend: str, options: BuildOptions) -> Reopen:
    """How the other process opens the builder."""
    return Reopen("onnx_layermerge.latency.backends.tensorrt:open_builder", (backend, options.words()))
