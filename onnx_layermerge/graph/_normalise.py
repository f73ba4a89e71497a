"""Fold what only stands in the way of reading a model, step by step.

Each step is a pass over the model that keeps what it computes; most are those of onnx_ir and onnxscript, which take
time in proportion to the graph.  Those in ``_rules.py``, ``_into_conv.py`` and ``_transposes.py`` are here because a
convolution's weights have to be worked out in float64 and rounded once, may be shared with other nodes, and keep their
names.  Whether a step did keep what the model computes is checked elsewhere, on numbers (``_equivalence.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph._constants import is_op
from onnx_layermerge.graph._graphs import all_graphs, all_nodes
from onnx_layermerge.graph._into_conv import fold_affine, fold_pads, spell_out_pads
from onnx_layermerge.graph._quiet import quiet
from onnx_layermerge.graph._rules import cancel_pairs, remove_dropout
from onnx_layermerge.graph._shapes import infer_shapes
from onnx_layermerge.graph._transposes import cancel_transposes

__all__ = ["FOLDING", "LISTING", "Step", "normalise"]

# Elements; a weight that an exporter left transposed, reshaped or in another type is worth computing here.
_LARGEST_FOLDED = 2**26
# Elements of a tensor of one value: pads and shapes have a few, while a filled image would only make the file larger.
_LARGEST_FILLED = 2**12
# Elements; what is made of nothing but sizes is computed up to here, as where files are checked.
_LARGEST_MADE = 2**28
# Their output is as large as the values of their inputs say.
_GROWING = ("ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "Upsample", "OneHot")
# Elements; inputs that hold sizes are far smaller.
_LARGEST_SIZES = 64
# A fold can uncover the next one; each round costs a pass over the graph.
_MOST_ROUNDS = 8
# Elements; constants this small are compared by value when nodes are, larger ones by what they are.
_LARGEST_SHARED = 8
# What onnxscript notes in the nodes it touches is of no use to a reader of the output.
_NOTES = ("pkg.onnxscript.rewriter.", "pkg.onnxscript.optimizer.")


@dataclass(frozen=True)
class Step:
    """A change of the model in place that keeps its function; ``apply`` says whether it changed anything.

    A ``quiet`` step touches no operator, only names, shapes and notes; nobody is told about it.  A ``tidy`` one leaves
    nothing behind that nobody reads.
    """

    name: str
    apply: Callable[[ir.Model], bool]
    quiet: bool = False
    tidy: bool = False


def _list_weights(model: ir.Model) -> bool:
    """Up to IR version 3 weights are listed as inputs too; as inputs they could not be folded."""
    model.ir_version = max(model.ir_version, 4)
    return bool(passes.RemoveInitializersFromInputsPass()(model).modified)


class _Lift(passes.LiftConstantsToInitializersPass):
    """Takes the tensor of a Constant as it is: asking whether it is one costs more than all else that the pass does."""

    def _constant_node_attribute_to_tensor(
        self, node: ir.Node, attr_name: str, attr_value: ir.Attr, initializer_name: str
    ) -> ir.TensorProtocol | None:
        if attr_name == "value":
            tensor: ir.TensorProtocol = attr_value.value
            return tensor
        return super()._constant_node_attribute_to_tensor(node, attr_name, attr_value, initializer_name)


def _lift_constants(model: ir.Model) -> bool:
    if not any(node.op_type == "Constant" for node in all_nodes(model.graph)):
        return False  # the pass would take longer to find out
    return bool(_Lift(lift_all_constants=True, size_limit=0)(model).modified)


def _inline(model: ir.Model) -> bool:
    return bool(model.functions) and bool(passes.InlinePass()(model).modified)


def _fold_constants(model: ir.Model) -> bool:
    changed = False
    opset = model.graph.opset_imports.get("", onnx.defs.onnx_opset_version())
    for _ in range(_MOST_ROUNDS):
        found = fold_constants(
            model,
            onnx_shape_inference=False,
            input_size_limit=_LARGEST_FOLDED,
            should_fold=lambda node: _should_fold(node, opset),
        )
        if not found.modified:
            break
        passes.RemoveUnusedNodesPass()(model)
        changed = True
        if not any(is_op(node, "Shape", "Size", "Reshape", "Expand") for node in model.graph):
            break  # nothing is left that a better known shape could make a constant
        if not infer_shapes(model):
            break
    return changed


def _should_fold(node: ir.Node, opset: int) -> bool | None:
    """For onnxscript, which asks of nodes whose inputs are constants: True or False, None for its own rule.

    By that rule a ConstantOfShape is never folded, and with it no pad that an exporter fills up with zeros for the axes
    that are not padded.  The other rules look at the inputs only, not at how much is made of them.
    """
    if not is_op(node, *_GROWING):
        return None
    made = _elements_made(node, opset)
    if node.op_type == "ConstantOfShape":
        return True if made is not None and made <= _LARGEST_FILLED else None
    return None if made is not None and made <= _LARGEST_MADE else False


def _elements_made(node: ir.Node, opset: int) -> int | None:
    """How many elements a node with constant inputs makes, found without making them; None where onnx cannot tell."""
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for value in node.inputs:
        tensor = value.const_value if value is not None else None
        if value is None or tensor is None:
            continue
        dims = [int(dim) for dim in tensor.shape.numpy()]
        types[str(value.name)] = onnx.helper.make_tensor_type_proto(int(tensor.dtype), dims)
        if tensor.size <= _LARGEST_SIZES:
            data[str(value.name)] = ir.serde.serialize_tensor(tensor)
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
        found = onnx.shape_inference.infer_node_outputs(schema, ir.serde.serialize_node(node), types, data)
    except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, ValueError, RuntimeError, TypeError):
        return None
    shape = found.get(str(node.outputs[0].name), onnx.TypeProto()).tensor_type
    if not shape.HasField("shape") or any(dim.WhichOneof("value") != "dim_value" for dim in shape.shape.dim):
        return None
    sizes = [int(dim.dim_value) for dim in shape.shape.dim]
    return math.prod(sizes) if all(size >= 0 for size in sizes) else None


def _remove_unused(model: ir.Model) -> bool:
    return bool(passes.RemoveUnusedNodesPass()(model).modified)


def _merge_duplicates(model: ir.Model) -> bool:
    if not _has_duplicates(model.graph):
        return False  # equal constants would become one, and lose their names, for nothing
    passes.DeduplicateInitializersPass(size_limit=_LARGEST_SHARED)(model)
    return bool(passes.CommonSubexpressionEliminationPass()(model).modified)


def _has_duplicates(graph: ir.Graph) -> bool:
    """Whether two nodes look like the same one; the first of a row of duplicates always does."""
    seen: set[tuple[object, ...]] = set()
    for node in graph:
        inputs = [_identity(value) for value in node.inputs]
        attributes = sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())
        key = (node.op_identifier(), len(node.outputs), *inputs, *attributes)
        if key in seen:
            return True
        seen.add(key)
    return False


def _identity(value: ir.Value | None) -> object:
    tensor = value.const_value if value is not None else None
    if value is None or tensor is None or tensor.size > _LARGEST_SHARED or tensor.dtype.is_string():
        return id(value)
    return tensor.dtype, tuple(tensor.shape), tensor.tobytes()


def _fix_outputs(model: ir.Model) -> bool:
    return bool(passes.OutputFixPass()(model).modified)


def _fix_names(model: ir.Model) -> bool:
    return bool(passes.NameFixPass()(model).modified)


def _remove_notes(model: ir.Model) -> bool:
    changed = False
    for graph in all_graphs(model.graph):
        for holder in (*graph, *(value for node in graph for value in node.outputs), *graph.initializers.values()):
            for key in [key for key in holder.metadata_props if key.startswith(_NOTES)]:
                del holder.metadata_props[key]
                changed = True
    return changed


LISTING = (
    Step("make weights constants", _list_weights, quiet=True),
    Step("make Constant nodes initializers", _lift_constants, quiet=True),
    Step("infer shapes", infer_shapes, quiet=True),
    Step("name every value", _fix_names, quiet=True),
)
"""What is safe for a model that cannot be run here: no operator is touched."""

FOLDING = (
    Step("make weights constants", _list_weights, quiet=True),
    Step("inline functions", _inline),
    Step("make Constant nodes initializers", _lift_constants, quiet=True),
    Step("remove what nobody reads", _remove_unused, tidy=True),
    Step("infer shapes", infer_shapes, quiet=True),
    Step("fold constants", _fold_constants, tidy=True),
    Step("make folded Constant nodes initializers", _lift_constants, quiet=True),
    Step("remove Dropout", remove_dropout),
    Step("merge duplicates", _merge_duplicates),
    Step("cancel Squeeze, Unsqueeze and Reshape", cancel_pairs),
    Step("cancel Transposes", cancel_transposes),
    Step("make implicit padding explicit", spell_out_pads),
    Step("fold Pad into Conv", fold_pads),
    Step("fold scales and shifts into Conv", fold_affine),
    Step("give every output its own value", _fix_outputs, quiet=True),
    Step("name every value", _fix_names, quiet=True),
    Step("remove notes of the optimizer", _remove_notes, quiet=True),
    Step("infer shapes again", infer_shapes, quiet=True),
)
"""The steps in order; each finds what those before it have uncovered."""


def normalise(
    model: ir.Model, *, steps: tuple[Step, ...] = FOLDING, after: Callable[[Step], None] | None = None
) -> tuple[str, ...]:
    """Apply ``steps`` to ``model`` in place; returns the names of those that changed something.

    ``after`` is called behind each step that reports a change, for checks that want to know which one did what.

    Raises:
        ModelError: a step failed; the message names it.
    """
    opsets = dict(model.graph.opset_imports)
    done: list[str] = []
    for step in steps:
        try:
            with quiet():
                changed = step.apply(model)
                if changed and not (step.quiet or step.tidy):
                    _remove_unused(model)  # what nobody reads any more would still count as a reader
        except Exception as error:  # third-party passes raise whatever they like; the step is what the user needs
            raise ModelError(
                f"preparing the model broke at step '{step.name}' ({_first_line(error)}); please report it."
            ) from error
        # Passes may add opsets of their own; the output has to keep the input's.
        for domain, version in opsets.items():
            if model.graph.opset_imports.get(domain, version) != version:
                name = domain or "ai.onnx"
                raise ModelError(
                    f"preparing the model broke at step '{step.name}': it changed opset {name}; please report it."
                )
        if changed:
            if not step.quiet:
                done.append(step.name)
            if after is not None:
                after(step)
    return tuple(done)


def _first_line(error: BaseException) -> str:
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause).strip() or type(cause).__name__
    return text.splitlines()[0].rstrip(".")[:200]
