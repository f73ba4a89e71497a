"""Building: what comes out, and that every way to fail says what was wrong, in the fake and in the real library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_layermerge.errors import DeviceError, ModelError, OutputError, UsageError
from onnx_layermerge.latency.backends.tensorrt import BuildOptions, Library, Port, build, cast
from onnx_layermerge.latency.backends.tensorrt._build import type_faults
from onnx_layermerge.latency.backends.tensorrt._report import Layer, Tensor
from tests.latency.tensorrt.fake import World
from tests.latency.tensorrt.nets import conv, residual, spoiled

Targets = Callable[[Library], tuple[str, ...]]


@pytest.mark.parametrize("fault", spoiled())
def test_every_failure_says_what_it_is(fault: str, any_library: Library, target: Targets) -> None:
    model, words = spoiled()[fault]
    with pytest.raises(ModelError, match=words) as caught:
        build(any_library, model, {}, BuildOptions(capabilities=target(any_library)))
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and "cudaError" not in text


def test_a_builder_that_returns_nothing_is_quoted(library: Library, world: World, target: Targets) -> None:
    world.refusal = "Error Code 10: Could not find\n any implementation for node conv1."
    with pytest.raises(ModelError, match=r"cannot build this model \[Error Code 10: Could not find any implementation"):
        build(library, residual(), {}, BuildOptions(capabilities=target(library)))


def test_inputs_that_are_not_there_or_do_not_fit(any_library: Library, target: Targets) -> None:
    options = BuildOptions(capabilities=target(any_library))
    with pytest.raises(ModelError, match="no input 'y'; its inputs are: x"):
        build(any_library, residual(), {"y": (1, 2)}, options)
    with pytest.raises(ModelError, match=r"\(1, 16, 14, 14\), which \(1, 8, 14, 14\) does not fit"):
        build(any_library, residual(), {"x": (1, 8, 14, 14)}, options)


def test_a_dynamic_batch_takes_its_shape_through_a_profile(any_library: Library, target: Targets) -> None:
    model = conv(("N", 16, 8, 8)).SerializeToString()
    built = build(any_library, model, {"x": (3, 16, 8, 8)}, BuildOptions(capabilities=target(any_library)))
    assert built.engine and built.ports[0] == Port("x", (3, 16, 8, 8), "fp32", True, True)


def test_the_profile_is_the_shape_and_a_static_model_has_none(library: Library, world: World, target: Targets) -> None:
    options = BuildOptions(capabilities=target(library))
    build(library, conv(("N", 16, 8, 8)).SerializeToString(), {"x": (3, 16, 8, 8)}, options)
    build(library, residual(), {"x": (1, 16, 14, 14)}, options)
    assert [config._profiles for config in world.configs] == [[{"x": [(3, 16, 8, 8)] * 3}], []]


def test_settings_reach_the_library(library: Library, world: World, target: Targets) -> None:
    build(library, residual(), {}, BuildOptions(capabilities=target(library), level=2))
    build(library, residual(), {}, BuildOptions(capabilities=target(library), precision="tf32"))
    first, second = world.configs
    assert first._values["max_aux_streams"] == 0 and first._values["builder_optimization_level"] == 2
    assert first._values["profiling_verbosity"].name == "DETAILED"
    assert (first._flags, second._flags) == (set(), {"TF32"}), "fp32 must not quietly be tf32"
    assert "builder_optimization_level" not in second._values
    strongly_typed = library.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert all(network._flags == 1 << int(strongly_typed) for network in world.networks)


def test_a_library_without_the_flag_gets_none(library: Library, world: World, target: Targets) -> None:
    del library.module.NetworkDefinitionCreationFlag
    build(library, residual(), {}, BuildOptions(capabilities=target(library)))
    assert world.networks[0]._flags == 0


@pytest.mark.parametrize(
    ("precision", "shape", "expected"),
    [
        ("fp16", (1, 16, 8, 8), "HWC8"), ("bf16", (1, 16, 8, 8), "HWC8"), ("fp32", (1, 16, 8, 8), "HWC"),
        ("fp16", (1, 12, 8, 8), None), ("fp32", (1, 3, 8, 8), None), ("fp16", (1, 16, 4, 8, 8), "DHWC8"),
        ("fp32", (1, 16, 4, 8, 8), "DHWC"), ("fp32", (1, 16, 64), None),
    ],
)  # fmt: skip
def test_channels_come_last_where_that_is_legal(
    precision: str, shape: tuple[int, ...], expected: str | None, library: Library, world: World, target: Targets
) -> None:
    model = cast(conv(shape).SerializeToString(), precision)
    built = build(library, model, {}, BuildOptions(precision=precision, capabilities=target(library)))
    network = world.networks[0]
    formats = [tensor._values.get("allowed_formats") for tensor in (*network._inputs, *network._outputs)]
    mask = None if expected is None else 1 << int(getattr(library.module.TensorFormat, expected))
    assert formats == [mask, mask]
    assert [port.channels_last for port in built.ports] == [expected is not None] * 2
    linear = BuildOptions(precision=precision, capabilities=target(library), layout="linear")
    assert not any(port.channels_last for port in build(library, model, {}, linear).ports)


def test_the_timing_cache_grows_and_one_of_another_gpu_is_replaced(library: Library, target: Targets) -> None:
    def cached(data: bytes | None) -> bytes:
        options = BuildOptions(capabilities=target(library), timing_cache=data)
        return build(library, residual(), {}, options).timing_cache

    grown = b" and what this build found"
    if library.capabilities:  # TensorRT-RTX times no tactics
        grown = b""
    assert cached(None) == b""
    assert cached(b"") == grown
    assert cached(b"mine") == (b"mine" + grown if grown else b"")
    assert cached(b"another GPU's") == grown


def test_a_timing_cache_file_grows_with_every_build_and_tensorrt_rtx_says_it_has_none(
    library: Library, target: Targets, tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "cache"
    options = BuildOptions(capabilities=target(library), timing_cache_file=str(path))
    if library.capabilities:
        with pytest.raises(UsageError, match="keeps no timing cache; leave --timing-cache out"):
            build(library, residual(), {}, options)
        return
    for count in (1, 2):
        build(library, residual(), {}, options)
        assert path.read_bytes() == b" and what this build found" * count
    assert [each.name for each in path.parent.iterdir()] == ["cache"], "nothing half written may stay"
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match="timing cache .* cannot be read"):
        build(library, residual(), {}, options)


def test_engines_are_saved_with_what_they_are(any_library: Library, target: Targets, tmp_path: Path) -> None:
    options = BuildOptions(capabilities=target(any_library), save_engines=str(tmp_path / "engines"))
    built = build(any_library, residual(), {}, options, name="mine")
    build(any_library, residual(), {}, options)
    build(any_library, residual(channels=8), {}, options)
    names = sorted(path.name for path in (tmp_path / "engines").iterdir())
    assert len(names) == 6 and names[-2:] == ["mine.engine", "mine.json"], "a hash where there is no name"
    assert (tmp_path / "engines" / "mine.engine").read_bytes() == built.engine
    facts = json.loads((tmp_path / "engines" / "mine.json").read_text())
    assert facts["version"] == any_library.version and facts["precision"] == "fp32"
    assert facts["inputs_and_outputs"][0] == {
        "name": "x", "shape": [1, 16, 14, 14], "dtype": "fp32", "is_input": True, "channels_last": True
    }  # fmt: skip


RANGE = ((1, 16, 8, 8), (4, 16, 8, 8), (32, 16, 8, 8))


def test_a_range_of_shapes_is_one_engine(any_library: Library, target: Targets, world: World) -> None:
    model = conv(("N", 16, 8, 8)).SerializeToString()
    options = BuildOptions(capabilities=target(any_library), ranges={"x": RANGE, "not of this model": RANGE})
    assert build(any_library, model, {}, options).ports[0].shape == (4, 16, 8, 8)
    assert build(any_library, model, {"x": (7, 16, 8, 8)}, options).ports[0].shape == (7, 16, 8, 8)
    for config in world.configs:
        assert config._profiles == [{"x": list(RANGE)}]
    with pytest.raises(ModelError, match=r"used at \(33, 16, 8, 8\), which the range"):
        build(any_library, model, {"x": (33, 16, 8, 8)}, options)
    static = build(any_library, residual(), {}, BuildOptions(capabilities=target(any_library), ranges={"x": RANGE}))
    assert static.ports[0].shape == (1, 16, 14, 14), "an input whose shape is known has no use for a range"


def test_options_pass_through_words() -> None:
    options = BuildOptions("fp16", ("8.6",), 2, None, "linear", "cache", "engines", {"x": RANGE}, 30.0)
    assert BuildOptions.of_words(options.words()) == options
    assert BuildOptions.of_words(BuildOptions().words()) == BuildOptions()


def test_without_a_gpu_the_reason_is_the_device(version: str) -> None:
    from tests.latency.tensorrt.conftest import fake_library

    library = fake_library(version, World(None))
    with pytest.raises(DeviceError, match=r"cannot start a builder|no usable GPU") as caught:
        build(library, residual(), {})
    assert "\n" not in str(caught.value)


def test_without_a_gpu_the_real_one_says_so_too(real: Library) -> None:
    try:
        built = build(real, residual(), {})
    except DeviceError as error:
        assert "no usable GPU" in str(error)
    else:
        assert built.engine, "there is a GPU, so there must be an engine"


def test_compute_capabilities(library: Library, world: World) -> None:
    if not library.capabilities:
        with pytest.raises(DeviceError, match=r"cannot build for compute capability '8\.6'; it needs the GPU itself"):
            build(library, residual(), {}, BuildOptions(capabilities=("8.6",)))
        return
    known = library.module.ComputeCapability
    build(library, residual(), {}, BuildOptions(capabilities=("12.0", "8.6")))
    build(library, residual(), {})
    assert world.configs[0]._targets == {0: known.SM120, 1: known.SM86}
    assert world.configs[0]._values["num_compute_capabilities"] == 2
    assert world.configs[1]._targets == {0: known.CURRENT}
    with pytest.raises(DeviceError, match=r"'9\.0'; it builds for 7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1"):
        build(library, residual(), {}, BuildOptions(capabilities=("9.0",)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"level": 6}, "choose from"), ({"level": -1}, "choose from"), ({"precision": "int8"}, "choose from"),
        ({"layout": "nchw"}, "choose from"), ({"limit_s": 0.0}, "give seconds above 0"),
        ({"ranges": {"x": ((1, 3), (4, 3), (2, 3))}}, "1x3, 4x3, 2x3 of 'x' are no range"),
        ({"ranges": {"x": ((1, 3), (1, 3, 4), (2, 3))}}, "are no range"), ({"ranges": {"x": ((1,), (2,))}}, "no range"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(words: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        BuildOptions(**words)


def test_a_silent_change_of_precision_is_an_error(version: str, world: World, target: Targets) -> None:
    from tests.latency.tensorrt.conftest import fake_library

    library, half = fake_library(version, world), cast(residual(), "fp16")
    options = BuildOptions(precision="fp16", capabilities=target(library))
    with pytest.raises(ModelError, match="did not build this model in fp16: 'x' is fp32"):
        build(library, residual(), {}, options)
    assert build(library, half, {}, options).engine
    world.secretly = "FLOAT"
    if library.capabilities:  # the others tell when the engine is loaded
        with pytest.raises(ModelError, match="in fp16: layer 'conv1_myl0_0' of conv1 reads fp32"):
            build(library, half, {}, options)


def test_scales_in_fp32_are_no_fault_and_weights_are() -> None:
    def layer(constant: tuple[int, ...], dtype: str, reads: str = "fp16") -> Layer:
        tensor = Tensor("in", (1, 16, 8, 8), reads, "")
        return Layer("l", "k", ("n",), (tensor,), (), (Tensor("w", constant, dtype, ""),))

    ports = (Port("x", (1, 16), "fp16", True, False), Port("i", (1,), "int64", True, False))
    assert type_faults(ports, (layer((1,), "fp32"), layer((16, 16, 3, 3), "fp16")), "fp16") == []
    assert len(type_faults(ports, (layer((16, 16, 3, 3), "fp32"),), "fp16")) == 1
    assert len(type_faults(ports, (layer((16, 16, 3, 3), "fp16", "fp32"),), "fp16")) == 1
    assert len(type_faults(ports, (), "bf16")) == 1


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_a_residual_block_fuses_into_one_layer_a_convolution(precision: str, real: Library) -> None:
    """Conv + Relu, and Conv + Add + Relu, without a transposition at either end, in the type that was asked for."""
    model = cast(residual(), precision)
    built = build(real, model, {}, BuildOptions(precision=precision, capabilities=("8.6",)))
    assert [set(layer.nodes) for layer in built.layers] == [{"conv1", "relu1"}, {"conv2", "add", "relu2"}]
    stored = "fp32" if precision == "tf32" else precision
    for layer in built.layers:
        weights = [tensor for tensor in layer.constants if len(tensor.shape) == 4 and tensor.shape[-1] == 3]
        assert [tensor.dtype for tensor in (*layer.inputs, *layer.outputs, *weights)] == [stored] * (
            3 + len(layer.inputs) - 1
        )
    assert {tensor.name for tensor in built.layers[1].inputs} >= {"x"}, "the skip is read by the fused layer"


def test_a_linear_layout_costs_a_transposition_at_each_end(real: Library) -> None:
    built = build(real, residual(), {}, BuildOptions(capabilities=("8.6",), layout="linear"))
    assert [layer.reformat for layer in built.layers] == [True, False, False, True]


def test_engines_for_every_capability_that_the_library_names(real: Library) -> None:
    model = cast(residual(), "fp16")
    for capability in real.capabilities:
        assert build(real, model, {}, BuildOptions(precision="fp16", capabilities=(capability,))).engine
    one = build(real, model, {}, BuildOptions(precision="fp16", capabilities=("8.6",)))
    three = build(real, model, {}, BuildOptions(precision="fp16", capabilities=("8.6", "8.9", "12.0")))
    assert three.engine != one.engine and len(three.engine) >= len(one.engine)
    assert one.seconds > 0 and np.isfinite(one.seconds)
