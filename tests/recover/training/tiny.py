"""A small classifier, a worse copy of it, and samples: a training of seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from onnx_layermerge.data import Calibration, InputSpec, load_calibration
from onnx_layermerge.recover.training import Answers, Options, Trained, train
from tests import zoo

SAMPLES, HELD_OUT = 96, 32
INPUT = InputSpec("x", ("N", 3, 8, 8), np.dtype(np.float32))
LABELS = InputSpec("labels", ("N",), np.dtype(np.int64))


def original(*, seed: int = 3) -> onnx.ModelProto:
    net = zoo.Net(seed=seed)
    value = net.relu(net.conv(net.input(shape=("N", 3, 8, 8)), "c0", 8), "r0")
    inner = net.conv(net.relu(net.conv(value, "c1"), "r1"), "c2")
    value = net.relu(net.add(inner, value, "a"), "r2")
    return net.proto(net.classifier(net.relu(net.conv(value, "c3"), "r3")))


def worse(proto: onnx.ModelProto, *names: str, by: float = 0.3, seed: int = 0) -> onnx.ModelProto:
    """A copy whose weights of these names have noise on them."""
    found, rng = onnx.ModelProto(), np.random.default_rng(seed)
    found.CopyFrom(proto)
    for tensor in found.graph.initializer:
        if tensor.name in (names or ("c1.w", "c2.w")):
            array = numpy_helper.to_array(tensor)
            array = array + by * array.std() * rng.standard_normal(array.shape)
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    return found


def arrays(count: int, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((count, 3, 8, 8)).astype(np.float32),
        "labels": rng.integers(0, 5, count).astype(np.int64),
    }


def samples(count: int, seed: int = 1, *, labels: bool = False) -> Calibration:
    given = arrays(count, seed)
    if not labels:
        del given["labels"]
    return load_calibration(given, [INPUT, LABELS] if labels else [INPUT])


def trained(
    student: onnx.ModelProto | None = None,
    *,
    teacher: onnx.ModelProto | None = None,
    labels: bool = False,
    answers: Answers | None = None,
    **words: Any,
) -> Trained:
    """With a fixed rate and 20 steps unless told otherwise."""
    given: Mapping[str, Any] = {"steps": 20, "rate": 3e-3, "labels": "labels" if labels else None, **words}
    first = original() if teacher is None else teacher
    second = worse(first) if student is None else student
    data, held_out = samples(SAMPLES, 1, labels=labels), samples(HELD_OUT, 2, labels=labels)
    return train(ir.from_proto(second), ir.from_proto(first), data, held_out, Options(**given), answers=answers)
