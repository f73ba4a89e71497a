"""Opening a TensorRT by its words; what ``olm doctor`` says of it: version and device, or the one reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from onnx_layermerge.errors import DeviceError, UsageError
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency.backends import BackendStatus, Reopen
from onnx_layermerge.latency.backends._cuda import Driver, open_driver
from onnx_layermerge.latency.backends._engine_options import BUILD_LIMIT_S, Range
from onnx_layermerge.latency.backends.tensorrt._build import Built, build, check_options
from onnx_layermerge.latency.backends.tensorrt._cast import cast
from onnx_layermerge.latency.backends.tensorrt._engine import TensorRTBackend
from onnx_layermerge.latency.backends.tensorrt._errors import make_log
from onnx_layermerge.latency.backends.tensorrt._library import Library, load
from onnx_layermerge.latency.backends.tensorrt._options import BuildOptions

__all__ = ["BlockBuilder", "open_builder", "open_tensorrt", "reopen_tensorrt", "status", "validity"]


def open_tensorrt(
    name: str = "tensorrt",
    device: str = "cuda:0",
    precision: str = "fp32",
    level: int | str | None = None,
    *,
    timing_cache: str | Path = "",
    save_engines: str | Path = "",
    layout: Literal["channels_last", "linear"] = "channels_last",
    shape_ranges: Mapping[str, Range] | None = None,
    build_limit_s: float = BUILD_LIMIT_S,
) -> TensorRTBackend:
    """Open a GPU with a TensorRT.

    Args:
        level: builder optimization level, 0 to 5, also in words; None and "" are the library's own choice.
        timing_cache: file that keeps the timing cache; TensorRT-RTX has none.
        save_engines: folder for every engine that is built.
        shape_ranges: input name → (least, usual, largest shape), for models whose inputs are dynamic.
        build_limit_s: wall seconds after which a build counts as hung.

    Raises:
        DeviceError: the library, the driver or the device is not usable here.
        UsageError: an option is unknown, or this library has no such thing.
    """
    if isinstance(level, str) and level and not level.isdecimal():
        raise UsageError(f"builder optimization level {level!r} is unknown; choose from 0 to 5.")
    options = BuildOptions(
        precision=precision,
        level=None if level is None or level == "" else int(level),
        layout=layout,
        timing_cache_file=str(timing_cache),
        save_engines=str(save_engines),
        ranges=shape_ranges or {},
        limit_s=build_limit_s,
    )
    return reopen_tensorrt(name, device, options.words())


def reopen_tensorrt(name: str, device: str, words: str) -> TensorRTBackend:
    """`open_tensorrt` with all options in words (`BuildOptions.words`), as another process calls it."""
    options = BuildOptions.of_words(words)
    library = load(name)
    if device == "cpu":
        raise DeviceError(f"{library.title} runs on a GPU; say --device cuda:0, or use --backend onnxruntime.")
    check_options(library, options)
    driver = open_driver(device)
    try:
        _check_capability(library, driver)
        again = Reopen(f"{__name__.rpartition('.')[0]}:reopen_tensorrt", (name, device, words))
        return TensorRTBackend(library, driver, options, reopen=again)
    except DeviceError:
        driver.close()
        raise


class BlockBuilder:
    """Builds models ahead of time, cast to the options' precision; what a process for builds alone opens."""

    def __init__(self, library: Library, options: BuildOptions) -> None:
        self._library, self._options = library, options

    def build(self, model: bytes, shapes: Mapping[str, tuple[int, ...]], name: str = "") -> Built:
        """See `build` of this folder."""
        return build(self._library, cast(model, self._options.precision), shapes, self._options, name=name)


def open_builder(name: str, words: str) -> BlockBuilder:
    """A builder for the compute capabilities that the options name (`BuildOptions.words`); needs no GPU.

    Raises:
        DeviceError: the library is not installed, or does not build for one of them.
        UsageError: an option is nothing for this library.
    """
    library, options = load(name), BuildOptions.of_words(words)
    check_options(library, options)
    for capability in options.capabilities:
        library.capability(capability)
    return BlockBuilder(library, options)


def validity(library: Library, engine: bytes) -> str | None:
    """What the runtime of a library with such a question (TensorRT-RTX) says of an engine on this machine's GPU.

    Returns:
        Its words for it and for every reason, as ``INVALID: UNSUPPORTED_CC``; None where it cannot be asked.

    Raises:
        DeviceError: no runtime can be started here.
    """
    module = library.module
    if not hasattr(module.Runtime, "get_engine_validity"):
        return None
    log = make_log(module, verbose=False)
    try:
        found: Any
        found, diagnostics = module.Runtime(log).get_engine_validity(engine)
    except (TypeError, RuntimeError) as error:
        raise DeviceError(f"{library.title} cannot start a runtime here ({error}); see olm doctor.") from error
    known = getattr(getattr(module, "EngineInvalidityDiagnostics", None), "__members__", {})
    reasons = [word for word, bit in known.items() if int(bit) & int(diagnostics)]
    return f"{found.name}: {', '.join(reasons)}" if reasons else str(found.name)


def status(name: str, device: str = "cuda:0") -> BackendStatus:
    """The line of a backend; never raises, and leaves nothing open."""
    try:
        library = load(name)
    except DeviceError as error:
        return BackendStatus(name, False, str(error))
    try:
        backend = open_tensorrt(name, device)
        try:
            key: DeviceKey = backend.describe()
        finally:
            backend.close()
    except DeviceError as error:
        ahead = ""
        if library.capabilities:
            ahead = f" It builds ahead of time for compute capabilities {', '.join(library.capabilities)}."
        return BackendStatus(name, False, f"{library.title} is installed, but: {error}{ahead}")
    return BackendStatus(name, True, key.text())


def _check_capability(library: Library, driver: Driver) -> None:
    """A library that names its GPUs runs on no others: its runtime refuses their engines."""
    facts = driver.facts()
    if library.capabilities and facts.capability not in library.capabilities:
        raise DeviceError(
            f"{library.title} does not support compute capability {facts.capability} of {facts.name}, only "
            f"{', '.join(library.capabilities)}; use --backend tensorrt there."
        )
