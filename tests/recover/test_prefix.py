"""Samples at a cut: the same whether inputs are held or read again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from onnx_layermerge.candidates import enumerate_candidates
from onnx_layermerge.data import Calibration, InputSpec, load_calibration
from onnx_layermerge.recover import _prefix, build
from onnx_layermerge.recover._prefix import Prefix
from tests.recover.test_build import deep


def data_for(network: object, count: int, *, fixed: int | None = None) -> Calibration:
    (info,) = network.inputs  # type: ignore[attr-defined]
    spec = InputSpec(info.name, (fixed or "N", *info.shape[1:]), info.dtype)
    values = np.random.default_rng(0).standard_normal((count, *info.shape[1:])).astype(info.dtype)
    return load_calibration({info.name: values}, [spec])


@pytest.mark.parametrize(("images", "fixed"), [(10, None), (13, None), (40, None), (10, 4)])
def test_inputs_that_are_read_again_are_those_that_would_be_held(
    images: int, fixed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, network = deep()
    data = data_for(network, 13, fixed=fixed)
    held = Prefix(network, data, 4, images)
    monkeypatch.setattr(_prefix, "BYTES", 0)
    again = Prefix(network, data, 4, images)
    assert isinstance(held.original, list) and not isinstance(again.original, list)
    assert len(held.original) == len(again.original) == len(list(again.original))
    values = [[one["r1"] for one, _ in each.runs(network.model, ["r1"], ["r1"])] for each in (held, again)]
    np.testing.assert_array_equal(*map(np.concatenate, values))
    assert sum(map(len, values[1])) == (12 if fixed else min(images, 13))


def test_a_build_reads_inputs_that_it_cannot_hold_again_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    _, network = deep()
    data = data_for(network, 24)
    plan = [each for each in enumerate_candidates(network, kinds=("fit",))[0] if len(each.region.convs) == 2][:1]
    whole = build(network, plan, data, images=24, batch=4)
    alive: list[int] = []

    def counted(self: Calibration, size: int) -> Iterator[dict[str, np.ndarray]]:
        for feeds in plain(self, size):
            alive.append(1)
            yield feeds

    plain = Calibration.batches
    monkeypatch.setattr(Calibration, "batches", counted)
    monkeypatch.setattr(_prefix, "BYTES", 0)
    again = build(network, plan, data, images=24, batch=4)
    for key, fit in whole.fits.items():
        np.testing.assert_allclose(again.fits[key].weight, fit.weight, rtol=0, atol=1e-4)
    assert len(alive) > 24 / 4
