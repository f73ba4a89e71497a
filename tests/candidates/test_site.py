"""Where activations are flat, whatever an exporter wrote them with."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from onnx_layermerge.candidates import Site, enumerate_candidates, site_of
from onnx_layermerge.graph import network_of
from tests import zoo

FORMS = {
    "h = HardSwish(a)": (-3.0, np.inf),
    "s = HardSigmoid<alpha = 0.25, beta = 0.5>(a)\nh = Mul(a, s)": (-2.0, np.inf),
    "s = Add(a, three)\nt = Clip(s, zero, six)\nu = Mul(a, t)\nh = Div(u, six)": (-3.0, np.inf),
    "s = Add(three, a)\nt = Clip(s, zero, six)\nu = Div(t, six)\nh = Mul(u, a)": (-3.0, np.inf),
    "s = Add(a, three)\nt = Clip(s, half, six)\nu = Mul(a, t)\nh = Div(u, six)": (-np.inf, np.inf),
    "h = HardSigmoid(a)": (-2.5, 2.5),
    "s = Sigmoid(a)\nh = Mul(a, s)": (-np.inf, np.inf),
    "h = Clip(a, half, six)": (0.5, 6.0),
}
HEAD = '<ir_version: 8, opset_import: ["": 17]> g (float[N,2,H,W] {}) => (float[N,2,H,W] {})'
NUMBERS = "<float three = {3}, float zero = {0}, float six = {6}, float half = {0.5}>"


def proto_of(form: str, *, alone: bool) -> onnx.ModelProto:
    """The activation between two convolutions, or alone."""
    body = f"a = Conv<pads = [1, 1, 1, 1]>(x, w)\n{form}\ny = Conv<pads = [1, 1, 1, 1]>(h, w)"
    head = HEAD.format(*("ah" if alone else "xy"))
    proto = parser.parse_model(f"{head} {NUMBERS} {{ {form if alone else body} }}")
    weight = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32)
    if not alone:
        proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return proto


def site_before(form: str) -> Site:
    network = network_of(ir.from_proto(proto_of(form, alone=False)))
    sites = [site_of(network, candidate) for candidate in enumerate_candidates(network, kinds=("fit",))[0]]
    return next(site for site in sites if site.value == "a")


@pytest.mark.parametrize("form", FORMS)
def test_activations_are_known_to_be_flat_where_they_are_and_no_further(form: str) -> None:
    site = site_before(form)
    assert (site.low, site.high) == pytest.approx(FORMS[form])
    points = np.linspace(-9, 9, 3601, dtype=np.float32)
    curve = zoo.run(proto_of(form, alone=True), {"a": np.stack([points, points])[None, :, None]})["h"].ravel()[:3601]
    for end, behind in ((site.low, points < site.low), (site.high, points > site.high)):
        if np.isfinite(end):
            near = behind | (abs(points - end) < 0.5)
            assert np.ptp(curve[behind]) < 1e-6 < np.ptp(curve[near])


def test_a_gate_that_does_not_see_the_value_is_none() -> None:
    site = site_before("s = HardSigmoid<alpha = 0.25, beta = 0.5>(a)\nh = Mul(s, half)")
    assert site.low == pytest.approx(-2) and site.high == pytest.approx(2)
