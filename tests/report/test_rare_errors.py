"""A report of a form that this version does not know."""

from __future__ import annotations

import dataclasses

import pytest

from onnx_layermerge.errors import DataError
from onnx_layermerge.report import as_json, from_json
from tests.report.made import report


def test_a_report_of_another_form() -> None:
    text = as_json(dataclasses.replace(report(), schema="olm.report/99"))
    with pytest.raises(DataError, match=r"this report is of the form olm\.report/99, not .*; read it with the olm"):
        from_json(text)
