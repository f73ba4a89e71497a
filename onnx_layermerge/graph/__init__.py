"""File → ``Network``: the model in an order in which every legal block is an interval.

The room reads an ONNX file, refuses what it cannot trust with a reason, folds what only stands in the way
(BatchNorm, Pad, exporter leftovers), and lays the nodes out on a line.  It is the only room that knows ONNX:
opsets, attributes, initializers, protobuf.
"""

from onnx_layermerge.graph._activations import Activation, activation_nodes, activation_of
from onnx_layermerge.graph._bfloat16 import narrow
from onnx_layermerge.graph._cells import Cell
from onnx_layermerge.graph._collector import without_collector
from onnx_layermerge.graph._convs import Conv, conv_of, conv_value
from onnx_layermerge.graph._load import load
from onnx_layermerge.graph._network import Chain, InputInfo, Layer, Network, Refusal
from onnx_layermerge.graph._normalise import normalise
from onnx_layermerge.graph._operators import JOINS, computed_inputs, keeps_shape
from onnx_layermerge.graph._pack import Packed, pack
from onnx_layermerge.graph._pools import Pool, pool_of, scale_of
from onnx_layermerge.graph._read import bind_shapes, load_runnable, network_of, random_feeds, read
from onnx_layermerge.graph._regions import (
    Region,
    activation_after,
    barriers,
    cell_after,
    chains,
    regions,
    repeats_activation,
)
from onnx_layermerge.graph._session import Session, extract, give_weights, model_of, runnable_form, to_bytes
from onnx_layermerge.graph._splice import Series, append_series, splice, sweep
from onnx_layermerge.graph._trace import trace_shapes
from onnx_layermerge.graph._write import check_target, write, write_bytes

__all__ = [
    "JOINS",
    "Activation",
    "Cell",
    "Chain",
    "Conv",
    "InputInfo",
    "Layer",
    "Network",
    "Packed",
    "Pool",
    "Refusal",
    "Region",
    "Series",
    "Session",
    "activation_after",
    "activation_nodes",
    "activation_of",
    "append_series",
    "barriers",
    "bind_shapes",
    "cell_after",
    "chains",
    "check_target",
    "computed_inputs",
    "conv_of",
    "conv_value",
    "extract",
    "give_weights",
    "keeps_shape",
    "load",
    "load_runnable",
    "model_of",
    "narrow",
    "network_of",
    "normalise",
    "pack",
    "pool_of",
    "random_feeds",
    "read",
    "regions",
    "repeats_activation",
    "runnable_form",
    "scale_of",
    "splice",
    "sweep",
    "to_bytes",
    "trace_shapes",
    "without_collector",
    "write",
    "write_bytes",
]
