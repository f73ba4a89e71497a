from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_layermerge.errors import UsageError
from onnx_layermerge.verify import Boxes, decoder_of

UNIT = [0.0, 0.0, 10.0, 10.0]


def image(*boxes: list[float], classes: list[int] | None = None, scores: list[float] | None = None) -> Any:
    count = len(boxes)
    return list(boxes), scores if scores is not None else [0.9] * count, classes if classes is not None else [1] * count


def compare(first: list[Any], second: list[Any]) -> Boxes:
    """Detections as they are: the decoder only picks one model's."""
    pages = [first, second]
    decoder = decoder_of(lambda outputs: pages[int(outputs["page"][0])])
    return decoder.compare({"page": np.array([0])}, {"page": np.array([1])})


def moved(by: float, box: list[float] = UNIT) -> list[float]:
    return [box[0] + by, box[1], box[2] + by, box[3]]


def test_shares_in_both_directions() -> None:
    first = [image(UNIT, moved(20), moved(40), scores=[0.9, 0.8, 0.7]), image(UNIT)]
    second = [image(moved(41), moved(1), scores=[0.5, 0.95]), image()]
    found = compare(first, second)
    assert (found.original, found.compressed, found.matched) == (4, 2, 2)
    assert (found.found, found.right, found.f1) == (0.5, 1.0, pytest.approx(2 / 3))
    assert found.score_change == pytest.approx((0.2 + 0.05) / 2)


@pytest.mark.parametrize(("by", "matched"), [(10 / 3 - 0.01, 1), (10 / 3 + 0.01, 0)])
def test_boxes_match_from_an_overlap_of_a_half(by: float, matched: int) -> None:
    assert compare([image(UNIT)], [image(moved(by))]).matched == matched


def test_another_class_or_another_image_is_no_match() -> None:
    assert compare([image(UNIT)], [image(UNIT, classes=[2])]).matched == 0
    assert compare([image(UNIT), image()], [image(), image(UNIT)]).matched == 0


def test_each_box_is_matched_once_and_by_the_nearest() -> None:
    assert compare([image(UNIT, UNIT)], [image(UNIT)]).matched == 1
    # In the order of the list the first would take the second's only partner.
    found = compare([image(moved(3), UNIT, scores=[0.1, 0.9])], [image(UNIT, moved(5), scores=[0.9, 0.2])])
    assert found.matched == 2 and found.score_change == pytest.approx(0.05)


def test_no_boxes_have_no_share() -> None:
    assert compare([image()], [image()]) == Boxes(0, 0, 0, None, None, None, None)
    found = compare([image()], [image(UNIT)])
    assert (found.found, found.right, found.f1) == (None, 0.0, 0.0)
    flat = [0.0, 0.0, 0.0, 5.0]
    assert compare([image(flat)], [image(flat)]).matched == 0


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returned a NoneType"),
        ([3], "for image 0"),
        ([image(), (np.zeros((2, 5)), [1, 1], [1, 1])], "for image 1"),
        ([(np.zeros((4, 2)), [1, 1], [1, 1])], "for image 0"),
        ([(np.zeros((2, 4)), [1], [1, 1])], "for image 0"),
        ([(np.full((1, 4), np.nan), [1], [1])], "for image 0"),
        ([(np.zeros((1, 4)), [1])], "for image 0"),
    ],
)
def test_other_detections_are_refused(returned: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        decoder_of(lambda outputs: returned).check({})
    assert str(caught.value).startswith("--decoder")


def test_both_models_must_be_of_the_same_images() -> None:
    with pytest.raises(UsageError, match="2 images of the original and 1 of the compressed"):
        compare([image(), image()], [image()])


def test_a_script_decodes(tmp_path: Path) -> None:
    (tmp_path / "d.py").write_text("def boxes(outputs):\n    return [(b, [1.0], [0]) for b in outputs['b']]\n")
    boxes = np.array([[UNIT], [moved(50)]])
    decoder = decoder_of(f"{tmp_path / 'd.py'}:boxes")
    assert decoder.compare({"b": boxes}, {"b": boxes + 1}).f1 == 1
    with pytest.raises(UsageError, match="--decoder .*KeyError"):
        decoder.check({"c": boxes})
