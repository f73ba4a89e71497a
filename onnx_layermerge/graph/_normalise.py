"""Fold what only stands in the way, and prove that the function stayed the same.

Done by the maintained optimizers: constants, functions and identities (onnxscript's optimizer), implicit padding
made explicit, Pad and BatchNormalization into the convolution before or after them (onnxscript's rewrite rules,
BatchNormalization with its own epsilon).
"""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass, ShapeInferencePass
from onnxscript import optimizer
from onnxscript.rewriter import RewriteRuleSet
from onnxscript.rewriter.rules import common as rules

from onnx_layermerge.errors import ModelError

__all__ = ["normalise"]

_RULES = (
    ("make implicit padding explicit", (rules.normalize_pad_format_conv_rule,)),
    ("fold Pad into Conv", (rules.fuse_pad_into_conv_rule,)),
    ("fold BatchNormalization into Conv", (rules.fuse_batchnorm_into_conv_rule,)),
    ("remove Dropout", (rules.dropout_inference_rule, rules.dropout_zero_rule)),
)


def normalise(model: ir.Model) -> tuple[str, ...]:
    """Fold ``model`` in place; returns the names of the steps that changed something.

    Raises:
        ModelError: a step failed; the message names it.
    """
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    opsets = dict(model.graph.opset_imports)
    done = []
    # Up to IR version 3 weights are listed as inputs too; as inputs they could not be folded.
    listed = [value for value in model.graph.inputs if value.is_initializer()]
    for value in listed:
        model.graph.inputs.remove(value)
    model.ir_version = max(model.ir_version, 4)
    step = "fold constants"
    try:
        before = len(model.graph)
        optimizer.optimize_ir(model)
        if len(model.graph) != before:
            done.append(step)
        for step, group in _RULES:
            if RewriteRuleSet(list(group)).apply_to_model(model):
                done.append(step)
        step = "name every value"
        NameFixPass()(model)
        step = "infer shapes"
        ShapeInferencePass()(model)
    except Exception as error:  # third-party passes raise whatever they like; the step is what the user needs
        raise ModelError(f"the model could not be prepared: step '{step}' failed ({error}).") from error
    # Rules may add opsets of their own; the output has to keep the input's.
    for domain, version in opsets.items():
        if model.graph.opset_imports.get(domain, version) != version:
            raise ModelError(f"the model could not be prepared: opset {domain or 'ai.onnx'} changed from {version}.")
    return tuple(done)
