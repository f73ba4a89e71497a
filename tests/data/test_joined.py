"""Whichever axis of an output counts the samples, joined outputs have it in front; what has none is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from onnx_layermerge.data import gather
from onnx_layermerge.errors import DataError
from onnx_layermerge.graph import Session

Runner = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
VALUES = np.random.default_rng(0).standard_normal((29, 3, 4)).astype(np.float32)


def batches(size: int, count: int = len(VALUES)) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, count, size):
        yield {"x": VALUES[start : min(start + size, count)]}


def runner(make: Callable[[np.ndarray], np.ndarray]) -> Runner:
    return lambda feeds: {"y": make(feeds["x"])}


def joined(make: Callable[[np.ndarray], np.ndarray], size: int, count: int = len(VALUES)) -> np.ndarray:
    parts, layout = gather(runner(make), batches(size, count))
    return layout.join(parts)["y"]


def later(shape: tuple[int, int, int], first: int | str) -> Session:
    """x [N, 3, 4] with its axes in another order, [3, N, 4]."""
    graph = helper.make_graph(
        [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0, 2])],
        "later",
        [helper.make_tensor_value_info("x", 1, [first, *shape[1:]])],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    return Session(ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)))


# 3 and 4 are as many as the output's other axes, 29 is one batch of all, and 8 leaves a smaller last one.
@pytest.mark.parametrize(("size", "count"), [(3, 27), (4, 28), (8, 29), (29, 29), (3, 3), (2, 2)])
def test_samples_on_a_later_axis_come_to_the_front(size: int, count: int) -> None:
    session = later(VALUES.shape, "N")
    parts, layout = gather(session.run, batches(size, count))
    np.testing.assert_array_equal(layout.join(parts)["y"], VALUES[:count])
    assert layout.axes == {"y": 1} and not layout.varying


def test_a_model_that_takes_one_size_only_is_judged_by_that() -> None:
    parts, layout = gather(later(VALUES.shape, 7).run, batches(7, 28))
    np.testing.assert_array_equal(layout.join(parts)["y"], VALUES[:28])


def test_a_fault_of_the_runner_itself_is_not_taken_for_that() -> None:
    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(feeds["x"]) < 7:
            raise ValueError("mine")
        return {"y": feeds["x"].transpose(1, 0, 2)}

    with pytest.raises(ValueError, match="mine"):
        gather(run, batches(7, 28))


def test_usual_outputs_are_joined_as_they_come_and_nothing_is_run_twice() -> None:
    calls = []

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        calls.append(len(feeds["x"]))
        return {"a": feeds["x"], "b": feeds["x"].sum(axis=2)}

    parts, layout = gather(run, batches(7, 28))
    found = layout.join(parts)
    np.testing.assert_array_equal(found["a"], VALUES[:28])
    np.testing.assert_array_equal(found["b"], np.concatenate([part["b"] for part in parts]))
    assert calls == [7] * 4


def test_a_squeeze_that_takes_a_single_sample_away_is_no_data_dependence() -> None:
    np.testing.assert_array_equal(joined(np.squeeze, 2, 2), VALUES[:2])


@pytest.mark.parametrize(("size", "count"), [(7, 28), (8, 29), (1, 5), (3, 27)])
def test_several_rows_a_sample_stay_in_order(size: int, count: int) -> None:
    np.testing.assert_array_equal(joined(lambda x: x.reshape(-1, 4), size, count), VALUES[:count].reshape(-1, 4))


def test_the_rows_of_all_samples_in_one_list_behind_an_axis_of_one() -> None:
    """[1, 3·N, 4]; a last batch of fewer, or smaller ones that are tried, tell it from a list of any size."""
    for size, count in ((8, 29), (7, 28)):
        found = joined(lambda x: x.reshape(1, -1, 4), size, count)
        np.testing.assert_array_equal(found, VALUES[:count].reshape(-1, 1, 4))
    parts, layout = gather(runner(lambda x: x.reshape(1, -1, 4)), batches(8))
    assert layout.axes == {"y": 1}
    np.testing.assert_array_equal(layout.join_in_place(parts)["y"], VALUES.reshape(1, -1, 4))
    rows = layout.rows(layout.join(parts))
    np.testing.assert_array_equal(rows["y"], VALUES.reshape(len(VALUES), -1))


@pytest.mark.parametrize("size", [7, 8])
def test_constants_and_means_over_the_batch_stay_what_they_are(size: int) -> None:
    assert joined(lambda x: np.ones(5), size, 28).shape == (5 * 4,)
    assert joined(lambda x: x.mean(), size, 28).shape == (4,)


# 16 samples are one batch: that its size depends on the data shows on smaller ones alone.
@pytest.mark.parametrize("count", [29, 16, 3])
def test_what_depends_on_the_data_is_left_out(count: int) -> None:
    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": feeds["x"], "found": np.argwhere(feeds["x"] > 0.3).T, "boxes": feeds["x"][feeds["x"] > 0.3]}

    parts, layout = gather(run, batches(16, count))
    assert layout.varying == ("found", "boxes") and list(layout.join(parts)) == ["y"]
    with pytest.raises(DataError, match=r"'y' depends on what is in the samples.*: cut the model in front of"):
        joined(lambda x: np.argwhere(x > 0.3).T, 16, count)


@pytest.mark.parametrize("size", [28, 7])
def test_a_selection_that_finds_nothing_is_left_out(size: int) -> None:
    with pytest.raises(DataError, match="depends on what is in the samples"):
        joined(lambda x: x[x > 99], size, 28)


def test_one_that_fits_no_longer_is_missing() -> None:
    parts, layout = gather(runner(lambda x: x), batches(8))
    parts[1] = {"y": parts[1]["y"][:, :2]}
    assert layout.join(parts) == {}


def test_in_place_axes_stay_where_the_model_has_them() -> None:
    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"later": feeds["x"].transpose(1, 0, 2), "boxes": feeds["x"][feeds["x"] > 0.3]}

    parts, layout = gather(run, batches(8))
    found = layout.join_in_place(parts)
    np.testing.assert_array_equal(found["later"], VALUES.transpose(1, 0, 2))
    np.testing.assert_array_equal(found["boxes"], VALUES[VALUES > 0.3])
