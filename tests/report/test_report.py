from __future__ import annotations

import json
import math

import pytest

from onnx_layermerge.candidates import enumerate_candidates
from onnx_layermerge.importance import Divergence
from onnx_layermerge.report import as_json, block_of
from tests import zoo


@pytest.mark.parametrize(
    ("name", "key", "certificate", "kernel", "convs"),
    [
        ("parallel", "merge 3x3 c3x3…add [11]", "exact", (3, 3), 2),
        ("nested", "merge 5x5 c1…c2 [11]", "border", (5, 5), 2),
        ("plain", "merge 7x7 c1…c3 [111]", "lossy", (7, 7), 3),
        ("plain", "drop c2…r2", "lossy", (), 1),
    ],
)
def test_a_block_says_what_stands_there_now(
    name: str, key: str, certificate: str, kernel: tuple[int, ...], convs: int
) -> None:
    network = zoo.network(name)
    candidates = {c.key: c for c in enumerate_candidates(network, kinds=("drop", "merge-all"))[0]}
    block = block_of(network, candidates[key], 5e-3, 2e-3, 0.5, None, ("olm/0",))
    assert (block.name, block.certificate, block.kernel, block.convs) == (key, certificate, kernel, convs)
    assert (block.saving_ms, block.loss_alone, block.fit_error, block.alpha) == (2.0, 0.5, None, None)
    assert (block.old_ms, block.made) == (5.0, ("olm/0",))
    assert len(block.replaced) == len(block.was) == convs
    assert [label.split()[0] for label in block.now] == ["×".join(map(str, kernel))] * bool(kernel)


def test_json_is_sorted_and_holds_no_numbers_that_json_lacks() -> None:
    text = as_json(Divergence(kl=math.inf, relative=0.5, agreement=math.nan))
    assert json.loads(text) == {"agreement": None, "kl": None, "relative": 0.5}
    assert text.index("agreement") < text.index("kl") < text.index("relative")
    nested = as_json({"b": (1, [math.inf, "x"]), "a": None})
    assert json.loads(nested) == {"a": None, "b": [1, [None, "x"]]}
