"""A TensorRT made of the signatures of a real one.

The classes have the methods, arguments and properties that ``signatures/*.json`` lists for a version and no other: a
call with a wrong name or argument is an error here as it is there.  Behind them is just enough for a build and a run:
the parser refuses what the real one refuses, in its words, and an engine computes with onnx's reference evaluator on
the memory of a made-up GPU, in the layout that was asked for.
"""

from __future__ import annotations

import enum
import functools
import inspect
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from tests.latency.fake_cuda import Gpu

FOLDER = Path(__file__).parent / "signatures"
VERSIONS = ("tensorrt-10", "tensorrt-11", "tensorrt-rtx-1")
_ONNX_TYPES = {1: "FLOAT", 10: "HALF", 16: "BF16", 6: "INT32", 7: "INT64", 11: "FLOAT"}
_LOG_TYPES = {"FLOAT": "Float", "HALF": "Half", "BF16": "BFloat16"}


class World:
    """What the fake does beyond its signatures; tests set it and look at it."""

    def __init__(self, gpu: Gpu | None = None) -> None:
        self.gpu = gpu
        self.conv_s = 1e-3  # what a convolution takes on the GPU
        self.refusal = ""  # the builder logs this and returns nothing
        self.secretly = ""  # the type that the engine computes in, whatever was asked for
        self.wrong = 0.0  # added to every output
        self.configs: list[Any] = []
        self.networks: list[Any] = []
        self.enqueued = 0


def fake(version: str, world: World) -> Any:
    """A module with the signatures of ``version``."""
    listed = json.loads((FOLDER / f"{version}.json").read_text(encoding="utf-8"))
    module = types.SimpleNamespace(__version__=listed["version"], world=world)
    for name, values in listed["enums"].items():
        setattr(module, name, enum.IntEnum(name, values))
    for name in listed["present"]:
        setattr(module, name, object)
    behaviour = _behaviour(module, world, rtx="rtx" in version)
    for name, members in listed["classes"].items():
        setattr(module, name, _class(name, members, behaviour.get(name, {})))
    return module


class Refused(AssertionError):
    """Something that the real library does not have; nothing in the package expects this."""


def _class(name: str, members: dict[str, Any], behaviour: dict[str, Callable[..., Any]]) -> type:
    body: dict[str, Any] = {}
    for member, described in members.items():
        if isinstance(described, dict):
            body[member] = _property(name, member, described["settable"], behaviour.get(member))
        elif member != "__init__":
            body[member] = _method(name, member, described, behaviour.get(member))
    make = behaviour.get("__init__")

    def __init__(self: Any, *words: Any, **named: Any) -> None:  # noqa: N807
        self._values = {}
        if make is not None:
            _check(name, "__init__", members["__init__"] or [[]], words, named)
            make(self, *words, **named)

    def __setattr__(self: Any, word: str, value: Any) -> None:  # noqa: N807
        if not word.startswith("_") and word not in members and name != "ILogger":
            raise Refused(f"{name} has no {word}")
        object.__setattr__(self, word, value)

    def __getattr__(self: Any, word: str) -> Any:  # noqa: N807
        raise AttributeError(f"{name} has no {word}")

    return type(name, (), {**body, "__init__": __init__, "__setattr__": __setattr__, "__getattr__": __getattr__})


def _method(kind: str, name: str, overloads: list[Any], behaviour: Callable[..., Any] | None) -> Callable[..., Any]:
    @functools.wraps(behaviour or (lambda: None))
    def call(self: Any, *words: Any, **named: Any) -> Any:
        _check(kind, name, overloads, words, named)
        if behaviour is None:
            raise Refused(f"the fake of {kind} does not do {name}")
        return behaviour(self, *words, **named)

    return call


def _check(kind: str, name: str, overloads: list[Any], words: tuple[Any, ...], named: dict[str, Any]) -> None:
    for overload in overloads:
        place = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [
            inspect.Parameter(word, place, default=None if optional else inspect.Parameter.empty)
            for word, optional in overload
        ]
        try:
            inspect.Signature(parameters).bind(*words, **named)
        except TypeError:
            continue
        return
    raise Refused(f"{kind}.{name} takes {overloads}, not {words} {named}")


def _property(kind: str, name: str, settable: bool, behaviour: Callable[..., Any] | None) -> property:
    def get(self: Any) -> Any:
        if behaviour is not None:
            return behaviour(self)
        if name not in self._values:
            raise Refused(f"the fake of {kind} does not know {name}")
        return self._values[name]

    def put(self: Any, value: Any) -> None:
        self._values[name] = value

    return property(get, put if settable else None)


def _behaviour(trt: Any, world: World, *, rtx: bool) -> dict[str, dict[str, Callable[..., Any]]]:
    """Class → member → what it does."""

    def make(kind: str, **values: Any) -> Any:
        thing = getattr(trt, kind).__new__(getattr(trt, kind))
        thing._values = dict(values)
        return thing

    def say(logger: Any, severity: str, text: str) -> None:
        logger.log(types.SimpleNamespace(name=severity), text)

    # -- building ----------------------------------------------------------------------------------------------------
    def start_builder(self: Any, logger: Any) -> None:
        if world.gpu is None and not rtx:
            say(logger, "ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self: Any, flags: int = 0) -> Any:
        network = make("INetworkDefinition", num_outputs=0, num_inputs=0)
        network._flags, network._inputs, network._outputs, network._model = flags, [], [], b""
        world.networks.append(network)
        return network

    def create_config(self: Any) -> Any:
        config = make("IBuilderConfig", num_compute_capabilities=0)
        config._flags, config._profiles, config._targets, config._cache = {"TF32"}, [], {}, None
        world.configs.append(config)
        return config

    def create_profile(self: Any) -> Any:
        profile = make("IOptimizationProfile")
        profile._shapes = {}
        return profile

    def add_profile(self: Any, profile: Any) -> int:
        self._profiles.append(profile._shapes)
        return len(self._profiles) - 1

    def set_cache(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
        if cache._data.startswith(b"another GPU") and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def create_cache(self: Any, data: bytes) -> Any:
        cache = make("ITimingCache")
        cache._data = data
        return cache

    def build(self: Any, network: Any, config: Any) -> Any:
        dynamic = any(-1 in tensor.shape for tensor in network._inputs)
        if world.refusal:
            say(self._logger, "ERROR", world.refusal)
        elif not network._outputs:
            say(self._logger, "ERROR", "Network must have at least one output.")
        elif dynamic and not config._profiles:
            say(
                self._logger,
                "ERROR",
                "Network has dynamic or shape inputs, but no optimization profile.",
            )
        elif config._targets.get(0) is getattr(getattr(trt, "ComputeCapability", None), "CURRENT", 0) and not world.gpu:
            say(self._logger, "ERROR", "Error Code 1: Cuda Runtime (cudaError 35: CUDA driver version is insufficient)")
        else:
            if config._cache is not None:
                config._cache._data += b" and what this build found"
            tensors = [*network._inputs, *network._outputs]
            described = {
                "model": network._model.hex(),
                "profile": config._profiles[0] if config._profiles else {},
                "formats": {tensor.name: tensor._values.get("allowed_formats", 1) for tensor in tensors},
            }
            if rtx:
                say(self._logger, "VERBOSE", "Layers:\n" + "\n".join(layer_lines(network._model, world.secretly)))
            return json.dumps(described).encode()
        return None

    # -- parsing -----------------------------------------------------------------------------------------------------
    def start_parser(self: Any, network: Any, logger: Any) -> None:
        self._network, self._errors = network, []

    def parse(self: Any, model: bytes, path: str | None = None) -> bool:
        if not model:
            return True
        try:
            proto = onnx.load_from_string(model)
        except Exception:
            words = "Assertion failed: model->ParseFromCodedStream(&codedInput): Failed to parse the ONNX model."
            self._errors.append(("MODEL_DESERIALIZE_FAILED", words, -1, "", ""))
            return False
        error = refusal_of(proto)
        if error is not None:
            self._errors.append(error)
            return False
        network = self._network
        network._model = model
        inferred = onnx.shape_inference.infer_shapes(proto)
        for target, values, is_input in (
            (network._inputs, inferred.graph.input, True),
            (network._outputs, inferred.graph.output, False),
        ):
            for value in values:
                dims = value.type.tensor_type.shape.dim
                shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
                dtype = getattr(trt.DataType, _ONNX_TYPES[value.type.tensor_type.elem_type])
                target.append(make("ITensor", name=value.name, shape=shape, dtype=dtype, is_network_input=is_input))
        network._values.update(num_inputs=len(network._inputs), num_outputs=len(network._outputs))
        return True

    def get_error(self: Any, index: int) -> Any:
        error = make("ParserError")
        error._is = self._errors[index]
        return error

    # -- running -----------------------------------------------------------------------------------------------------
    def deserialize(self: Any, data: bytes) -> Any:
        if world.gpu is None:
            return None
        described = json.loads(data)
        engine = make("ICudaEngine")
        engine._model = onnx.load_from_string(bytes.fromhex(described["model"]))
        engine._formats = described["formats"]
        engine._tensors = {value.name: value for value in (*engine._model.graph.input, *engine._model.graph.output)}
        return engine

    def context_of(self: Any) -> Any:
        context = make("IExecutionContext")
        context._engine, context._shapes, context._addresses = self, {}, {}
        return context

    def declared(engine: Any, name: str) -> tuple[int, ...]:
        dims = engine._tensors[name].type.tensor_type.shape.dim
        return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)

    def shape_now(self: Any, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return tuple(self._shapes[name])
        batch = next((shape[0] for shape in self._shapes.values()), None)
        return tuple(batch if size == -1 and batch else size for size in declared(self._engine, name))

    def set_address(self: Any, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute(self: Any, stream_handle: int) -> bool:
        world.enqueued += 1

        def compute() -> None:
            engine, gpu = self._engine, world.gpu
            assert gpu is not None and stream_handle in gpu.open["stream"]
            gpu.now_s += world.conv_s * sum(node.op_type == "Conv" for node in engine._model.graph.node)

            def held(name: str) -> tuple[Any, tuple[int, ...], np.dtype[Any], bool]:
                dtype = onnx.helper.tensor_dtype_to_np_dtype(engine._tensors[name].type.tensor_type.elem_type)
                last = engine._formats[name] != 1
                shape = shape_now(self, name)
                stored = (shape[0], *shape[2:], shape[1]) if last else shape
                return gpu.blocks[self._addresses[name]], stored, dtype, last

            feeds = {}
            for value in engine._model.graph.input:
                block, stored, dtype, last = held(value.name)
                array = np.frombuffer(bytes(block), dtype).reshape(stored)
                feeds[value.name] = np.moveaxis(array, -1, 1) if last else array
            results = ReferenceEvaluator(engine._model).run(None, feeds)
            for value, result in zip(engine._model.graph.output, results, strict=True):
                block, _, dtype, last = held(value.name)
                result = np.asarray(result + np.asarray(world.wrong, dtype), dtype)
                block[:] = (np.moveaxis(result, 1, -1) if last else result).tobytes()

        assert world.gpu is not None
        world.gpu.enqueue(compute)
        return True

    def inspect_engine(self: Any, format: Any) -> str:  # noqa: A002
        assert format is trt.LayerInformationFormat.JSON
        return json.dumps({"Layers": json_layers(self._engine._model, world.secretly)})

    def inspector_of(self: Any) -> Any:
        inspector = make("EngineInspector")
        inspector._engine = self
        return inspector

    def tensor_type(self: Any, name: str) -> Any:
        return getattr(trt.DataType, _ONNX_TYPES[self._tensors[name].type.tensor_type.elem_type])

    def remember(kind: str) -> Callable[..., Any]:
        def keep(self: Any, first: Any, second: Any) -> bool:
            getattr(self, kind)[first] = second
            return True

        return keep

    def start_runtime(self: Any, logger: Any) -> None:
        self._logger = logger

    return {
        "ILogger": {"__init__": lambda self: None},
        "Builder": {
            "__init__": start_builder, "create_network": create_network, "create_builder_config": create_config,
            "create_optimization_profile": create_profile, "build_serialized_network": build,
        },
        "INetworkDefinition": {
            "get_input": lambda self, index: self._inputs[index],
            "get_output": lambda self, index: self._outputs[index],
        },
        "IBuilderConfig": {
            "set_flag": lambda self, flag: self._flags.add(flag.name),
            "clear_flag": lambda self, flag: self._flags.discard(flag.name),
            "add_optimization_profile": add_profile, "create_timing_cache": create_cache, "set_timing_cache": set_cache,
            "set_compute_capability": lambda self, target, index: self._targets.update({index: target}) or True,
        },
        "ITimingCache": {"serialize": lambda self: self._data},
        "IOptimizationProfile": {
            "set_shape": lambda self, input, min, opt, max: self._shapes.update({input: [min, opt, max]}),  # noqa: A006
        },
        "OnnxParser": {
            "__init__": start_parser, "parse": parse, "get_error": get_error,
            "num_errors": lambda self: len(self._errors),
        },
        "ParserError": {
            "code": lambda self: types.SimpleNamespace(name=self._is[0]), "desc": lambda self: self._is[1],
            "node": lambda self: self._is[2], "node_name": lambda self: self._is[3],
            "node_operator": lambda self: self._is[4],
        },
        "Runtime": {
            "__init__": start_runtime, "deserialize_cuda_engine": deserialize,
            "get_engine_validity": lambda self, buffer: (types.SimpleNamespace(name="INVALID"), 0),
        },
        "ICudaEngine": {
            "create_execution_context": context_of, "create_engine_inspector": inspector_of,
            "get_tensor_dtype": tensor_type, "get_tensor_shape": declared,
        },
        "IExecutionContext": {
            "set_input_shape": remember("_shapes"), "get_tensor_shape": shape_now, "set_tensor_address": set_address,
            "execute_async_v3": execute,
        },
        "EngineInspector": {"get_engine_information": inspect_engine},
    }  # fmt: skip


def refusal_of(proto: onnx.ModelProto) -> tuple[str, str, int, str, str] | None:
    """The parser's first error: code, words, and the node by number, name and operator."""
    known = {value.name: value.type.tensor_type.elem_type for value in proto.graph.input}
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in proto.graph.input}
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    known |= {name: tensor.data_type for name, tensor in weights.items()}
    for index, node in enumerate(proto.graph.node):
        where = (index, node.name, node.op_type)
        if not onnx.defs.has(node.op_type, node.domain):
            words = 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
            return ("INVALID_NODE", words, *where)
        if any(name and name not in known for name in node.input):
            words = "Assertion failed: (ctx->tensors().count(inputName)): Node input was not registered."
            return ("INVALID_GRAPH", words, *where)
        if node.op_type == "Conv":
            source, weight = node.input[0], weights[node.input[1]]
            if known[source] != weight.data_type:
                words = (
                    f"Invalid Node - {node.name}\nITensor::getDimensions: Error Code 4: API Usage Error ({node.name}: "
                    "IConvolutionLayer `input` and `kernel` must be of same type.)\n"
                    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35)"
                )
                return ("INVALID_NODE", words, *where)
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            if source in shapes and shapes[source][1] != weight.dims[1] * group:
                words = "Assertion failed: Kernel weight dimension failed to broadcast to input."
                return ("INVALID_NODE", words, *where)
        known |= dict.fromkeys(node.output, known[node.input[0]])
    missing = [value.name for value in proto.graph.output if value.name not in known]
    if missing:
        return ("INTERNAL_ERROR", "Trying to access weights or a null tensor!", -1, "", "")
    return None


def _convs(model: onnx.ModelProto, secretly: str) -> list[tuple[onnx.NodeProto, list[int], str]]:
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        (node, list(weights[node.input[1]].dims), secretly or _ONNX_TYPES[weights[node.input[1]].data_type])
        for node in model.graph.node
        if node.op_type == "Conv"
    ]


def layer_lines(data: bytes, secretly: str) -> list[str]:
    """One line a convolution, as TensorRT-RTX logs them."""
    lines = []
    for node, dims, kind in _convs(onnx.load_from_string(data), secretly):
        typed = f"Strides: [1], StrideOrder: [0], Datatype: {_LOG_TYPES[kind]}, Format: (NHWC) x }}]"
        tensor = f"Dimensions: [1,2,3,4], {typed}"
        shape = ",".join(map(str, dims))
        lines.append(
            f"Name: {node.name}_myl0_0, LayerType: correlation, Inputs: [ {{ Name: in, {tensor}, "
            f"Constants: [ {{ Name: w, Dimensions: [{shape}], {typed}, "
            f"Outputs: [ {{ Name: out, {tensor}, TacticName: t, StreamId: 0, Metadata: [ONNX Layer: {node.name}]"
        )
    return lines


def json_layers(model: onnx.ModelProto, secretly: str) -> list[dict[str, Any]]:
    """As the inspector lists them."""
    layers = []
    for node, dims, kind in _convs(model, secretly):
        tensor = {
            "Name": "in",
            "Dimensions": [1, 2, 3, 4],
            "Format/Datatype": f"Channel major {_LOG_TYPES[kind]} format",
        }
        layers.append({
            "Name": node.name, "LayerType": "CaskConvolution", "Inputs": [tensor], "Outputs": [tensor],
            "Constants": [{**tensor, "Dimensions": dims}], "TacticName": "t", "Metadata": f"[ONNX Layer: {node.name}]",
        })  # fmt: skip
    return layers
