"""The layers of an engine and the ONNX nodes that each of them stands for.

Two sources say the same in two forms:

1. the build log: with DETAILED verbosity, one message ``Layers:`` for every compute capability, a line a layer:
   ``Name: …, LayerType: …, Inputs: [ {…}], Constants: […], Outputs: […], TacticName: …, Metadata: [ONNX Layer: a]…``;
2. the inspector's JSON, where there is a GPU to load the engine on.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from typing import Any

__all__ = ["Layer", "Tensor", "layers_of_json", "layers_of_log"]

_HEAD = "Layers:"
_TENSOR = re.compile(
    r"Name: (?P<name>.*?), Dimensions: \[(?P<shape>[-\d, ]*)\],.*?"
    r"Datatype: (?P<dtype>\w+)(?:, Format: (?P<layout>[^}]*?))?\s*}"
)
_TYPES = {
    "Float": "fp32", "FP32": "fp32", "Half": "fp16", "FP16": "fp16", "BFloat16": "bf16", "BF16": "bf16",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tensor:
    """``dtype`` in our words where there is one (``fp32``, ``fp16``, ``bf16``), else in the library's."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str


@dataclasses.dataclass(frozen=True)
class Layer:
    """One kernel, or a few that belong together; ``nodes`` are the names of the ONNX nodes that it computes.

    Some kernels that compute come without names (a 1×1 convolution as a matrix product), so a `reformat` is told by
    having no weights either.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...] = ()
    tactic: str = ""

    @property
    def reformat(self) -> bool:
        """Whether it only moves a tensor into another layout."""
        return not self.nodes and not self.constants


def layers_of_log(messages: Iterable[tuple[str, str]]) -> tuple[Layer, ...]:
    """Layers of the first engine in a build log; none where the library does not print them."""
    for _, text in messages:
        if text.startswith(_HEAD):
            return tuple(_layer(line) for line in text[len(_HEAD) :].splitlines() if line.startswith("Name: "))
    return ()


def layers_of_json(text: str) -> tuple[Layer, ...]:
    """Layers in the inspector's JSON (``LayerInformationFormat.JSON``) of an engine built with DETAILED verbosity."""
    try:
        found = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return ()
    return tuple(_layer_of_json(each) for each in found if isinstance(each, dict))


def nodes_of(metadata: str) -> tuple[str, ...]:
    """ONNX nodes in a layer's metadata: ``[ONNX Layer: a][ONNX Layer: b]``, with or without separators between."""
    return tuple(re.findall(r"\[ONNX Layer: (.*?)\](?=\s*(?:\x1e|\x1f|\[ONNX Layer: |\[|$))", metadata))


def _layer(line: str) -> Layer:
    head, _, metadata = line.partition(", Metadata: ")
    name, _, rest = head.removeprefix("Name: ").partition(", LayerType: ")
    parts = {title: _section(rest, title) for title in ("Inputs", "Constants", "Outputs")}
    tactic = re.search(r", TacticName: ([^,]*)", rest)
    return Layer(
        name=name,
        kind=rest.partition(",")[0],
        nodes=nodes_of(metadata.strip()),
        inputs=parts["Inputs"],
        outputs=parts["Outputs"],
        constants=parts["Constants"],
        tactic=tactic[1] if tactic else "",
    )


def _section(text: str, title: str) -> tuple[Tensor, ...]:
    start = text.find(f"{title}: [")
    if start < 0:
        return ()
    # Ends where the next section begins: brackets also stand inside, around the dimensions.
    stops = [text.find(f", {word}: ", start) for word in ("Constants", "Outputs", "TacticName", "StreamId")]
    stop = min((at for at in stops if at > start), default=len(text))
    return tuple(
        Tensor(m["name"].strip(), _shape(m["shape"]), _type(m["dtype"]), (m["layout"] or "").strip())
        for m in _TENSOR.finditer(text[start:stop])
    )


def _layer_of_json(each: dict[str, Any]) -> Layer:
    return Layer(
        name=str(each.get("Name", "")),
        kind=str(each.get("LayerType", "")),
        nodes=nodes_of(str(each.get("Metadata", ""))),
        inputs=tuple(map(_tensor_of_json, each.get("Inputs", ()))),
        outputs=tuple(map(_tensor_of_json, each.get("Outputs", ()))),
        constants=tuple(map(_tensor_of_json, each.get("Constants", ()))),
        tactic=str(each.get("TacticName", "")),
    )


def _tensor_of_json(each: dict[str, Any]) -> Tensor:
    # Version 10 joins type and layout: "Format/Datatype": "Channel major FP16 format where channel % 8 == 0".
    joined = str(each.get("Format/Datatype", each.get("Format", "")))
    dtype = str(each.get("Datatype", ""))
    if not dtype:
        dtype = next((word for word in re.findall(r"\w+", joined) if word in _TYPES), "")
    shape = tuple(int(size) for size in each.get("Dimensions", ()))
    return Tensor(str(each.get("Name", "")), shape, _type(dtype), joined)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size.strip())


def _type(word: str) -> str:
    return _TYPES.get(word, word)
