from __future__ import annotations

import json
import math

import pytest

from onnx_layermerge.errors import DataError
from onnx_layermerge.report import as_json, from_json
from tests.report import made


def test_a_report_comes_back_as_it_was() -> None:
    whole = made.everything()
    assert from_json(as_json(whole)) == whole


def test_what_was_not_finite_comes_back_as_nan() -> None:
    back = from_json(as_json(made.report(divergence=math.inf)))
    assert math.isnan(back.divergence)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        json.dumps({**json.loads(as_json(made.report())), "blocks": 3}),
        json.dumps({**json.loads(as_json(made.report())), "input": 3}),
        json.dumps({key: value for key, value in json.loads(as_json(made.report())).items() if key != "keys"}),
    ],
)
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="no report of olm compress"):
        from_json(text)
