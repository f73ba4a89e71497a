"""One operator, by torch and by onnxruntime."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnx_layermerge.graph import Session
from onnx_layermerge.recover.training import onnx_module

BOUND = 1e-5


def one_node(
    op: str,
    inputs: Sequence[np.ndarray | None],
    *,
    opset: int = 17,
    constants: Collection[int] | None = None,
    outputs: int = 1,
    **attributes: Any,
) -> tuple[bytes, dict[str, np.ndarray]]:
    """The model and its feeds; inputs at ``constants`` (None: all but the first) are initializers."""
    fixed = set(range(1, len(inputs))) if constants is None else set(constants)
    names = ["" if array is None else f"i{number}" for number, array in enumerate(inputs)]
    feeds = {f"i{n}": a for n, a in enumerate(inputs) if a is not None and n not in fixed}
    held = [numpy_helper.from_array(np.asarray(inputs[n]), f"i{n}") for n in sorted(fixed) if inputs[n] is not None]
    made = [f"o{number}" for number in range(outputs)]
    node = helper.make_node(op, names, made, name="the_node", **attributes)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in feeds.items()
    ]
    graph = helper.make_graph([node], "one", values, [helper.make_empty_tensor_value_info(n) for n in made], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for value in model.graph.output:  # their types follow from the operator
        value.ClearField("type")
    return model.SerializeToString(), feeds


def module_of(data: bytes) -> Any:
    import onnx

    return onnx_module(ir.from_proto(onnx.load_from_string(data)))


def agree(op: str, inputs: Sequence[np.ndarray | None], *, bound: float = BOUND, **words: Any) -> list[np.ndarray]:
    """Both give the same, shapes and all; the outputs."""
    import torch

    data, feeds = one_node(op, inputs, **words)
    wanted = Session(data).run(feeds)
    with torch.no_grad():
        got = module_of(data)({name: torch.from_numpy(array.copy()) for name, array in feeds.items()})
    for name, values in wanted.items():
        found = got[name].numpy()
        assert found.shape == values.shape
        assert found.dtype.kind == values.dtype.kind
        if values.dtype.kind in "iub":
            np.testing.assert_array_equal(found, values)
        else:
            np.testing.assert_allclose(found, values, rtol=bound, atol=bound)
    return list(wanted.values())


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)
