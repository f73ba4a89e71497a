"""What a node is, as far as blocks are concerned: what a block may hold, and what never.

A block is replaced as a whole, so it may hold any operator that only computes its outputs from its inputs.  What
it must not hold is listed here with its reason: what is not known to be such a function, and what decides sizes by
the data.  Whether a stretch of open operators is worth anything is decided where its geometry is followed.
"""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from onnx_layermerge.graph._line import Line

__all__ = [
    "ACTIVATIONS",
    "JOINS",
    "alone_reason",
    "closed_reason",
    "computed_inputs",
    "dims_of",
    "is_vector",
    "keeps_shape",
    "same_shape",
]

ACTIVATIONS = frozenset(
    (
        *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh"),
        *("Gelu", "Mish", "Softplus", "Softsign", "ThresholdedRelu", "Abs", "Neg", "Exp", "Erf", "Sqrt", "Swish"),
        *("Log", "Reciprocal", "Sign", "Floor", "Ceil", "Round", "Sin", "Cos", "Shrink", "Identity"),
    )
)
"""Elementwise functions of one computed value: shape and grid stay."""

JOINS = frozenset(("Add", "Sum", "Sub", "Mul", "Div", "Min", "Max", "Mean", "Pow", "Where", "PRelu"))
"""Elementwise functions of several values, perhaps broadcast."""

# Always the shape of their first input.
_NORMS = frozenset(
    (
        *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization"),
        *("RMSNormalization", "LpNormalization", "MeanVarianceNormalization", "LRN", "Softmax", "LogSoftmax"),
    )
)

_CLOSED = {
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), "control flow: its body is left as it is"),
    **dict.fromkeys(
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"),
        "draws random numbers",
    ),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "recurrent"),
    **dict.fromkeys(
        ("NonMaxSuppression", "NonZero", "Unique", "Compress", "StringNormalizer", "TfIdfVectorizer"),
        "the size of its output depends on the data",
    ),
}

# Why a node outside of every block is there; said only of nodes that no block holds.
_ALONE = {
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), "pools over the whole image"),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceSum"), "reduces over axes"),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), "pools outside of any block"),
    **dict.fromkeys(("Mul", "Div", "Sub", "Min", "Max", "Pow", "Where"), "joins values that have not one source"),
    "Add": "adds values that have not one source",
    "Sum": "adds values that have not one source",
    "Concat": "joins channels of branches that have not one source",
    "Gemm": "fully connected",
    "MatMul": "matrix product",
    "Einsum": "tensor product",
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), "leaves the image grid"),
    **dict.fromkeys(("Transpose", "DepthToSpace", "SpaceToDepth"), "rearranges the image grid"),
    **dict.fromkeys(("Split", "Slice", "Gather"), "takes a part of the channels or of the image"),
    "ConvTranspose": "transposed convolution: the grid grows",
    **dict.fromkeys(("Resize", "Upsample"), "resamples the image"),
    "Pad": "pads with more than zeros, or not in front of a convolution",
    "BatchNormalization": "does not follow a convolution it could fold into",
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization", "LayerNormalization", "LRN"), "normalises"),
    "Softmax": "mixes channels",
}


def computed_inputs(node: ir.Node) -> list[ir.Value]:
    """Inputs that are not constants (graph inputs included), each once, in order."""
    found = dict.fromkeys(value for value in node.inputs if value is not None and value.const_value is None)
    return list(found)


def closed_reason(network: Line, position: int) -> str | None:
    """Why no block may contain this node; None when one may."""
    node = network.order[position]
    if node.domain == "com.microsoft.nchwc" or (node.domain, node.op_type) == ("com.microsoft", "FusedConv"):
        return "written by onnxruntime's optimizer for one machine: give the original export"
    if node.domain not in ("", "ai.onnx"):
        return f"custom domain {node.domain}"
    if position in network.refused:
        return network.refused[position]
    if node.op_type.startswith(("Sequence", "Optional", "SplitToSequence", "ConcatFromSequence")):
        return "works on sequences"
    return _CLOSED.get(node.op_type)


def alone_reason(network: Line, position: int) -> str | None:
    """Why this node lies in no block; None for what is never a barrier by itself (convolutions, activations)."""
    node = network.order[position]
    closed = closed_reason(network, position)
    if closed is not None:
        return closed
    if position in network.convs or keeps_shape(node) or position in network.in_cells:
        return None
    if node.op_type == "Add" and _same_rank(computed_inputs(node)):
        return None
    return _ALONE.get(node.op_type, f"no rule for {node.op_type}")


def keeps_shape(node: ir.Node) -> bool:
    """A function of one computed value whose output has that value's shape, whatever it is."""
    computed = computed_inputs(node)
    if len(computed) != 1 or node.inputs[0] is None:
        return False
    if node.op_type in ACTIVATIONS or node.op_type in _NORMS:
        return node.inputs[0] is computed[0]
    if node.op_type not in JOINS:
        return False
    value, out = computed[0], node.outputs[0]
    constants = [dims_of(v) for v in node.inputs if v is not None and v.const_value is not None]
    if all(prod(dims) == 1 for dims in constants):
        rank = 1 if value.shape is None else len(value.shape)
        return all(len(dims) <= rank for dims in constants)
    return same_shape(value, out)


def dims_of(constant: ir.Value) -> list[int]:
    """The shape of a constant; the value's own where it is noted, as a tensor may build it anew at every question."""
    noted = [] if constant.shape is None else list(constant.shape)
    if constant.shape is not None and all(isinstance(dim, int) for dim in noted):
        return [int(dim) for dim in noted]  # type: ignore[arg-type]
    tensor = constant.const_value
    return [] if tensor is None else [int(dim) for dim in tensor.shape]  # type: ignore[arg-type]


def same_shape(one: ir.Value, two: ir.Value) -> bool:
    """Whether both static shapes are known and equal, symbolic dimensions by their name."""
    if one.shape is None or two.shape is None or len(one.shape) != len(two.shape):
        return False
    for axis, (left, right) in enumerate(zip(one.shape, two.shape, strict=True)):
        a = left if isinstance(left, int) else left.value
        b = right if isinstance(right, int) else right.value
        # The samples are the same on both sides even where an exporter forgot what they are called.
        if a != b and not (axis == 0 and not (isinstance(a, int) and isinstance(b, int))):
            return False
        if axis and a is None:
            return False
    return True


def is_vector(value: ir.Value) -> bool:
    """Floats without a grid: scalars, vectors, and images of one pixel."""
    if value.shape is None or value.dtype is None or not value.dtype.is_floating_point():
        return False
    return len(value.shape) <= 2 or all(dim == 1 for dim in list(value.shape)[2:])


def _same_rank(values: list[ir.Value]) -> bool:
    shapes = [value.shape for value in values]
    if len(values) != 2:
        return False
    return shapes[0] is None or shapes[1] is None or len(shapes[0]) == len(shapes[1]) >= 3
