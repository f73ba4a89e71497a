"""ONNX bytes → a serialized engine, with every way that this can fail told apart.

The network is strongly typed.  Where a tensor at its ends has channels in multiples of eight, the engine takes and
gives it channels last, as it would inside a network; otherwise a block would be charged for a transposition at each end
that it does not have there.  One stream: side branches on streams of their own cost signals that do not add up.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from onnx_layermerge.errors import DeviceError, ModelError, UsageError
from onnx_layermerge.latency.backends.tensorrt._cast import stored_type
from onnx_layermerge.latency.backends.tensorrt._errors import build_error, make_log, parse_error
from onnx_layermerge.latency.backends.tensorrt._files import read_cache, write_engine, write_whole
from onnx_layermerge.latency.backends.tensorrt._library import Library
from onnx_layermerge.latency.backends.tensorrt._options import BuildOptions
from onnx_layermerge.latency.backends.tensorrt._report import Layer, layers_of_log

__all__ = ["Built", "Port", "build", "check_options", "type_faults"]

Shapes = Mapping[str, tuple[int, ...]]
CHANNEL_BLOCK = 8
# Constants up to this size are scales and the like, which kernels keep in fp32 whatever the network's type.
_SCALARS = 64
_TYPES = {
    "FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT32": "int32", "INT64": "int64", "INT8": "int8",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
_NO_GPU = ("cudaError 35", "cudaError 100", "cudaError 101", "cudaError 803", "cudaError 999")


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output of an engine; ``shape`` is the ONNX one whatever the layout in memory."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_input: bool
    channels_last: bool


@dataclasses.dataclass(frozen=True)
class Built:
    """A serialized engine; ``layers`` are known where the library prints them while building."""

    engine: bytes
    seconds: float
    ports: tuple[Port, ...]
    layers: tuple[Layer, ...]
    timing_cache: bytes = b""


def build(
    library: Library, model: bytes, shapes: Shapes, options: BuildOptions | None = None, *, name: str = ""
) -> Built:
    """Parse and build; dynamic inputs take the shapes given, through an optimization profile.

    Args:
        shapes: input name → shape; an input of the options' ranges may be left out and has its usual shape.
        name: of the file for the engine, where the options save it; a hash of model and options if empty.

    Raises:
        ModelError: the library cannot parse or build this model, or built it in another precision.
        DeviceError: there is no GPU and none was named, or the library does not build for the one named.
        OutputError: the engine or the timing cache cannot be written.
        UsageError: an option makes no sense, or none for this library.
    """
    options = options or BuildOptions()
    check_options(library, options)
    targets = [library.capability(words) for words in options.capabilities]
    _refuse_bytes(library.title, model)
    start = time.perf_counter()
    log = make_log(library.module)
    try:
        builder = library.module.Builder(log)
    except (TypeError, RuntimeError) as error:
        # The bindings turn a null pointer into a TypeError: no driver, no device, or a driver that is too old.
        raise DeviceError(
            f"{library.title} cannot start a builder here ({_last(log.messages) or error}); see olm doctor."
        ) from error
    network = builder.create_network(library.network_flags)
    parser = library.module.OnnxParser(network, log)
    if not parser.parse(model):
        raise parse_error(library.title, parser)
    if network.num_outputs == 0:
        raise ModelError(f"{library.title} found no output in this model; export it with one.")
    config = builder.create_builder_config()
    cache = _configure(library, config, options, targets)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    shapes = {**{t.name: options.ranges[t.name][1] for t in inputs if _ranged(t, options)}, **shapes}
    _bind(builder, config, inputs, shapes, options)
    ports = tuple(_port(library, tensor, shapes, options) for tensor in (*inputs, *outputs))
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        if not targets and any(mark in _last(log.messages) for mark in _NO_GPU):
            raise DeviceError(f"{library.title} finds no usable GPU here ({_last(log.messages)}); see olm doctor.")
        raise build_error(library.title, log.messages)
    layers = layers_of_log(log.messages)
    faults = type_faults(ports, layers, stored_type(options.precision))
    if faults:
        raise ModelError(
            f"{library.title} did not build this model in {options.precision}: {faults[0]}; try another --precision."
        )
    timing = b"" if cache is None else bytes(memoryview(cache.serialize()))
    built = Built(bytes(memoryview(serialized)), time.perf_counter() - start, ports, layers, timing)
    if options.timing_cache_file:
        write_whole(Path(options.timing_cache_file), timing)
    if options.save_engines:
        name = name or _name(model, shapes, options)
        write_engine(options.save_engines, name, built.engine, _facts(library, built, options))
    return built


def check_options(library: Library, options: BuildOptions) -> None:
    """Refuse what this library has not.

    Raises:
        UsageError: it keeps no timing cache, and one was named.
    """
    if options.timing_cache_file and _cacheless(library):
        raise UsageError(f"{library.title} times no tactics and keeps no timing cache; leave --timing-cache out.")


def type_faults(ports: tuple[Port, ...], layers: tuple[Layer, ...], stored: str) -> list[str]:
    """Where an engine does not compute in the type that was asked for: at its ends, or where there are weights."""
    floats = {"fp32", "fp16", "bf16"} - {stored}
    faults = [f"{port.name!r} is {port.dtype}" for port in ports if port.dtype in floats]
    for layer in layers:
        weights = [tensor for tensor in layer.constants if _size(tensor.shape) > _SCALARS]
        if not weights:
            continue
        for tensor in (*weights, *layer.inputs):
            if tensor.dtype in floats:
                faults.append(f"layer {layer.name!r} of {', '.join(layer.nodes) or 'no node'} reads {tensor.dtype}")
                break
    return faults


def _refuse_bytes(title: str, model: bytes) -> None:
    """What the parser lets through; garbage is left to the parser, which knows it."""
    if not model:
        raise ModelError(f"{title} was given an empty model; give one with nodes.")
    try:
        graph = onnx.load_from_string(model).graph
    except Exception:  # protobuf's DecodeError and its relatives share no public base class
        return
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE:
            raise ModelError(f"{title} has no float64, which {value.name!r} is; export the model in float32.")


def _configure(library: Library, config: Any, options: BuildOptions, targets: list[Any]) -> Any:
    """Set everything but the shapes; the timing cache to be saved afterwards, if any."""
    module = library.module
    config.max_aux_streams = 0
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    if options.level is not None:
        config.builder_optimization_level = options.level
    # On by default where it exists, so that fp32 would quietly be tf32.
    if options.precision == "tf32":
        config.set_flag(module.BuilderFlag.TF32)
    else:
        config.clear_flag(module.BuilderFlag.TF32)
    if library.capabilities:
        # Left alone, such a library builds for whatever it likes, GPU or not.
        targets = targets or [module.ComputeCapability.CURRENT]
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(target, index)
    known = read_cache(options.timing_cache_file) if options.timing_cache_file else options.timing_cache
    if known is None or _cacheless(library):
        return None
    cache = config.create_timing_cache(known)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        # Of another GPU or version: a cache is an accelerator, so begin a new one.
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _cacheless(library: Library) -> bool:
    return hasattr(library.module, "IRuntimeCache")


def _ranged(tensor: Any, options: BuildOptions) -> bool:
    return tensor.name in options.ranges and any(size < 0 for size in tensor.shape)


def _bind(builder: Any, config: Any, inputs: list[Any], shapes: Shapes, options: BuildOptions) -> None:
    names = [tensor.name for tensor in inputs]
    unknown = sorted(set(shapes) - set(names))
    if unknown:
        raise ModelError(f"The model has no input {unknown[0]!r}; its inputs are: {', '.join(names)}.")
    profile = None
    for tensor in inputs:
        declared = tuple(tensor.shape)
        shape = shapes.get(tensor.name)
        if shape is not None and not _fits(declared, shape):
            raise ModelError(
                f"Input {tensor.name!r} has the shape {declared}, which {tuple(shape)} does not fit; check --shapes."
            )
        if all(size >= 0 for size in declared):
            continue
        if shape is None:
            raise ModelError(f"Input {tensor.name!r} has the dynamic shape {declared}; say its shape with --shapes.")
        profile = profile or builder.create_optimization_profile()
        low, usual, high = options.ranges.get(tensor.name, (shape, shape, shape))
        if not (_fits(declared, usual) and all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))):
            raise ModelError(
                f"Input {tensor.name!r} is {declared} and used at {tuple(shape)}, which the range {low} to {high} does "
                "not fit; check --shapes."
            )
        profile.set_shape(tensor.name, min=low, opt=usual, max=high)
    if profile is not None and config.add_optimization_profile(profile) < 0:
        raise ModelError("These shapes make no optimization profile; check --shapes.")


def _port(library: Library, tensor: Any, shapes: Shapes, options: BuildOptions) -> Port:
    """Choose the layout of a tensor at the end of the network."""
    declared = tuple(tensor.shape)
    shape = tuple(shapes.get(tensor.name, declared))
    dtype = _TYPES.get(tensor.dtype.name, tensor.dtype.name.lower())
    name = {(4, 2): "HWC8", (5, 2): "DHWC8", (4, 4): "HWC", (5, 4): "DHWC"}.get(
        (len(shape), {"fp32": 4, "fp16": 2, "bf16": 2}.get(dtype, 0)), ""
    )
    formats = library.module.TensorFormat
    blocked = options.layout == "channels_last" and hasattr(formats, name) and declared[1] > 0
    if not blocked or declared[1] % CHANNEL_BLOCK:
        return Port(tensor.name, shape, dtype, tensor.is_network_input, False)
    tensor.allowed_formats = 1 << int(getattr(formats, name))
    return Port(tensor.name, shape, dtype, tensor.is_network_input, True)


def _fits(declared: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(declared) == len(shape) and all(
        wanted > 0 and size in (-1, wanted) for size, wanted in zip(declared, shape, strict=True)
    )


def _name(model: bytes, shapes: Shapes, options: BuildOptions) -> str:
    words = f"{sorted(shapes.items())} {options.words()}".encode()
    return hashlib.sha256(words + b"\0" + model).hexdigest()[:24]


def _facts(library: Library, built: Built, options: BuildOptions) -> dict[str, Any]:
    """What a saved engine is, for people and for whoever loads it."""
    return {
        "backend": library.name,
        "version": library.version,
        "precision": options.precision,
        "compute_capabilities": list(options.capabilities) or "of the GPU that it was built on",
        "level": options.level,
        "inputs_and_outputs": [dataclasses.asdict(port) for port in built.ports],
        "layers": len(built.layers),
        "build_s": round(built.seconds, 3),
        "bytes": len(built.engine),
    }


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for each in shape:
        size *= each
    return size


def _last(messages: list[tuple[str, str]]) -> str:
    said = [" ".join(text.split()) for severity, text in messages if severity.endswith("ERROR")]
    return said[-1].rstrip(".") if said else ""
