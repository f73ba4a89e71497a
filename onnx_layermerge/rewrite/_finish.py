"""Last step before writing: interface as in the input, provenance in the metadata."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnx_layermerge.errors import OutputError
from onnx_layermerge.graph import Network, sweep

__all__ = ["NOTES", "finish"]

# Keys in the metadata of a file that begin with this are this package's own.
NOTES = "olm."


def finish(network: Network, model: ir.Model, provenance: Mapping[str, str]) -> ir.Model:
    """``model`` with the interface, opsets and descriptions of the network's own model, ready to write.

    Raises:
        OutputError: an input or output changed its name, type or shape on the way.
    """
    sweep(model)
    source = network.model
    made, given = (*model.graph.inputs, *model.graph.outputs), (*source.graph.inputs, *source.graph.outputs)
    for got, wanted in zip(made, given, strict=True):
        if got.name != wanted.name or got.type != wanted.type:
            raise OutputError(f"'{wanted.name}' changed on the way to '{got.name}'; please report it.")
        got.shape = wanted.shape
    for domain in set(model.graph.opset_imports) - set(source.graph.opset_imports):
        del model.graph.opset_imports[domain]
    model.graph.name = source.graph.name
    model.graph.doc_string = source.graph.doc_string
    model.doc_string, model.domain = source.doc_string, source.domain
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    # What an earlier compression noted tells of a model that this one is not.
    model.metadata_props.update({k: v for k, v in source.metadata_props.items() if not k.startswith(NOTES)})
    model.metadata_props.update({f"{NOTES}{key}": value for key, value in sorted(provenance.items())})
    for node in model.graph:
        for value in node.outputs:
            # Shapes inside may mention blocks that are gone; let the checker infer them anew.
            if not value.is_graph_output():
                value.shape = None
    ShapeInferencePass()(model)
    return model
