"""What is measured, each in a process of its own: a job answers with plain values, and with its raw samples."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from gpu_steps import PRECISIONS
from gpu_steps.shapes import CHAIN, SHAPES, Shape, chain_spec, chainable
from onnx_layermerge.errors import DeviceError, ModelError, OlmError
from onnx_layermerge.latency import (
    Backend,
    BlockSpec,
    Measurement,
    available_backends,
    clock_of,
    open_backend,
    slopes,
)
from onnx_layermerge.latency.backends._cuda import open_driver
from onnx_layermerge.latency.backends._nvml import nvml_status
from onnx_layermerge.latency.backends.tensorrt import BuildOptions, build, load, validity

__all__ = ["JOBS"]

Answer = dict[str, Any]
_PACKAGES = (
    *("onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "numpy", "cuda-python", "cuda-bindings", "pycuda"),
    *("nvidia-ml-py", "tensorrt", "tensorrt-cu13", "tensorrt-rtx-cu13-bindings", "torch"),
)
_CAP_S = 4.0
_RUNS = 200


def backends(words: Answer) -> Answer:
    """What is here, what opens, and the one-line reason of what does not."""
    lines = available_backends()
    opens: dict[str, dict[str, str]] = {}
    for line in lines:
        for precision in PRECISIONS if line.name != "onnxruntime" else ():
            opens.setdefault(line.name, {})[precision] = _opened(line.name, words["device"], precision)
    return {
        "lines": [dataclasses.asdict(line) for line in lines],
        "opens": opens,
        "device": _device(words["device"]),
        "engine_validity": _validity(),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def repeat(words: Answer) -> Answer:
    """Cost of the first blocks of the list, with intervals."""
    specs = [chain_spec(shape) for shape in SHAPES[: words["shapes"]]]
    return _timed(words, specs)


def additivity(words: Answer) -> Answer:
    """One block against a chain of eight; then one engine's runs each by each, in the ways that a backend offers."""
    shapes = [shape for shape in SHAPES if chainable(shape)][: words["shapes"]]
    specs = [spec for shape in shapes for spec in (chain_spec(shape), chain_spec(shape, CHAIN))]
    answer = _timed(words, specs)
    by_name = {row["block"]: row for row in answer.pop("rows")}
    rows = []
    for shape in shapes:
        one, chain = by_name[chain_spec(shape).key], by_name[chain_spec(shape, CHAIN).key]
        failure = one.get("failure") or chain.get("failure")
        times = {"one_s": one.get("seconds"), "chain_s": chain.get("seconds")}
        rows.append({"block": shape.label(), **({"failure": failure} if failure else times)})
    ways, raw = _ways(words, shapes)
    answer["samples"] |= raw
    return {**answer, "rows": rows, "ways": ways}


JOBS = {"backends": backends, "repeat": repeat, "additivity": additivity}


def _timed(words: Answer, specs: Sequence[BlockSpec]) -> Answer:
    """Costs by the product's own protocol, what was not steady meanwhile, and every slope."""
    with _open(words) as backend:
        return _slopes(words, specs, backend)


def _slopes(words: Answer, specs: Sequence[BlockSpec], backend: Backend) -> Answer:
    samples: dict[str, list[float]] = {}
    warnings: list[str] = []
    watch = backend.watch() if hasattr(backend, "watch") else None
    looks = getattr(watch, "looks", [])
    if hasattr(watch, "look"):
        watch.look(now=True)
    found = slopes(
        specs, backend, cap_s=words.get("cap_s", _CAP_S), max_rounds=400, clock=clock_of(backend),
        seed=words.get("seed", 0), warn=warnings.append,
        keep=lambda spec, each: samples.__setitem__(spec.label, list(each)),
    )  # fmt: skip
    if hasattr(watch, "look"):
        watch.look(now=True)
    rows = []
    for spec in specs:
        value = found[spec.key]
        plain = dataclasses.asdict(value)
        rows.append({"block": spec.label, **(plain if isinstance(value, Measurement) else {"failure": str(value)})})
    return {
        "rows": rows,
        "warnings": warnings,
        "clocks": [dataclasses.asdict(look) for look in looks],
        "clocks_missing": getattr(watch, "missing", "this backend reads no clocks"),
        "key": backend.describe().text(),
        "samples": samples,
    }


def _ways(words: Answer, shapes: Sequence[Shape]) -> tuple[list[Answer], dict[str, list[float]]]:
    """Median seconds of single runs: the graph replayed, the engine enqueued anew, and both caches' states."""
    with _open(words) as backend:
        return _single_runs(backend, shapes)


def _single_runs(backend: Backend, shapes: Sequence[Shape]) -> tuple[list[Answer], dict[str, list[float]]]:
    rows, raw = [], {}
    for shape in shapes:
        spec = chain_spec(shape, CHAIN)
        try:
            runnable = backend.build(spec.build(1), spec.shapes(1))
        except ModelError as error:
            rows.append({"block": spec.label, "failure": str(error)})
            continue
        times = getattr(runnable, "times", None)
        if times is None:
            rows.append({"block": spec.label, "failure": "this backend tells no single runs"})
            runnable.close()
            continue
        row: Answer = {"block": spec.label, "captured": bool(getattr(runnable, "captured", False))}
        times(_RUNS)  # warm
        for way, options in (("graph", {}), ("events", {"graph": False}), ("cold", {"cold": True})):
            try:
                raw[f"{spec.label}, {way}"] = times(_RUNS, **options)
                row[f"{way}_s"] = statistics.median(raw[f"{spec.label}, {way}"])
            except (ModelError, DeviceError) as error:
                row[f"{way}_failure"] = str(error)
        rows.append(row)
        runnable.close()
    return rows, raw


@contextlib.contextmanager
def _open(words: Answer) -> Iterator[Backend]:
    backend = open_backend(words["backend"], words["device"], words["precision"])
    try:
        yield backend
    finally:
        getattr(backend, "close", lambda: None)()


def _opened(name: str, device: str, precision: str) -> str:
    """The reason why a backend does not open, "" where it does."""
    try:
        backend = open_backend(name, device, precision)
    except OlmError as error:
        return str(error)
    close = getattr(backend, "close", None)
    if close is not None:
        close()
    return ""


def _device(device: str) -> Answer:
    try:
        driver = open_driver(device)
    except DeviceError as error:
        return {"reason": str(error), "clocks": nvml_status()[1]}
    try:
        facts = driver.facts()
    finally:
        driver.close()
    return {**dataclasses.asdict(facts), "adapter": driver.name, "clocks": nvml_status(facts.bus)[1]}


def _validity() -> Answer:
    """What a library that builds for named GPUs says of its own engines here, by compute capability."""
    found: Answer = {}
    try:
        library = load("tensorrt-rtx")
        spec = chain_spec(SHAPES[0])
        for capability in library.capabilities:
            engine = build(library, spec.build(1), spec.shapes(1), BuildOptions(capabilities=(capability,))).engine
            found[capability] = validity(library, engine)
    except OlmError as error:
        found["reason"] = str(error)
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
