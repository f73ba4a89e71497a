"""`finetune --unmerged`: a plan's merges as the convolutions that they are made of, and merged again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_layermerge as olm
from onnx_layermerge.candidates import METHODS, enumerate_candidates
from onnx_layermerge.fit import series_of
from onnx_layermerge.flow import _subject
from onnx_layermerge.graph import read, write
from onnx_layermerge.recover import assemble
from onnx_layermerge.rewrite import finish
from tests import zoo

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="fine-tuning is an extra: torch is not installed")

MERGED, DROPPED = "merge 5x5 c1…a1 [11]", "drop c4…r4"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """So that sums are made in one order, and small networks are not held up by waiting threads."""
    import torch  # noqa: TID251

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net(norms: bool = False) -> tuple[zoo.Net, str]:
    """A residual block whose merge loses an activation, and two more convolutions."""
    made = zoo.Net(seed=6)

    def conv(source: str, name: str, **words: Any) -> str:
        if not norms:
            return made.conv(source, name, 6, **words)
        return made.batch_norm(made.conv(source, name, 6, bias=False, **words), f"{name}n")

    start = made.relu(conv(made.input(shape=("N", 3, 8, 8)), "c0"), "r0")
    inner = conv(made.relu(conv(start, "c1"), "r1"), "c2")
    value = made.relu(made.add(inner, start, "a1"), "r2")
    value = made.relu(made.conv(value, "c3", 6, stride=2), "r3")
    return made, made.classifier(made.relu(made.conv(value, "c4", 6), "r4"))


def compressed(folder: Path, *keys: str, method: str = "layermerge", **notes: str) -> Path:
    """What `compress` writes for the plan."""
    network = read(folder / "in.onnx")
    kinds = (*METHODS[method], "drop")
    known = {each.key: each for each in enumerate_candidates(network, kinds=kinds)[0]}
    model, _ = assemble(network, [known[key] for key in keys], lambda number, each, *_: series_of(network, each, None))
    told = {"plan": json.dumps(keys), "method": method, "input.sha256": network.digest, **notes}
    write(finish(network, model, {key: text for key, text in told.items() if text}), folder / "small.onnx")
    return folder / "small.onnx"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    made, output = net()
    made.save(tmp_path / "in.onnx", output)
    compressed(tmp_path, MERGED)
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(1).standard_normal((128, 3, 8, 8)).astype(np.float32))
    return tmp_path


def tuned(desk: Path, name: str = "out.onnx", **words: Any) -> olm.FinetuneReport:
    given = {"data": str(desk / "data.npz"), "steps": 30, "lr": 2e-2, "unmerged": True, **words}
    return olm.finetune(desk / "in.onnx", desk / "small.onnx", desk / name, **given)


def weights(path: Path) -> Mapping[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_the_merged_file_is_what_was_trained(desk: Path) -> None:
    """The report's end is of the file, and lies where the training saw the unmerged model end."""
    report = tuned(desk)
    assert report.improved and report.unmerged == (MERGED,) and report.norms == 0
    before, after = onnx.load(desk / "small.onnx"), onnx.load(desk / "out.onnx")
    assert [node.SerializeToString() for node in before.graph.node] == [
        node.SerializeToString() for node in after.graph.node
    ]
    assert {"olm/0.weight", "olm/0.bias", "c0.w", "c3.w"} <= set(report.changed)
    assert report.end.kl == pytest.approx(report.end_loss, rel=1e-4)
    assert report.end.kl < 0.7 * report.start.kl
    note = json.loads({each.key: each.value for each in after.metadata_props}["olm.finetune"])
    assert note["unmerged"] == 1 and note["norms"] == 0


def test_it_starts_where_the_merged_one_does_and_goes_another_way(desk: Path) -> None:
    apart, merged = tuned(desk), tuned(desk, "merged.onnx", unmerged=False)
    assert merged.unmerged == () and merged.start.kl == pytest.approx(apart.start.kl, rel=1e-5)
    one, two = weights(desk / "out.onnx"), weights(desk / "merged.onnx")
    assert np.abs(one["olm/0.weight"] - two["olm/0.weight"]).max() > 1e-3


def test_what_gains_nothing_keeps_every_bit(desk: Path) -> None:
    report = tuned(desk, steps=4, lr=30.0)
    assert not report.improved and report.changed == ()
    one, two = weights(desk / "out.onnx"), weights(desk / "small.onnx")
    assert {name: array.tobytes() for name, array in one.items()} == {name: a.tobytes() for name, a in two.items()}


def test_features_at_the_ends_of_blocks_are_those_of_both(desk: Path) -> None:
    assert "a1" in tuned(desk, steps=2, feature_weight=1.0).taps


def test_norms_are_where_the_file_has_them_and_gone_at_the_end(tmp_path: Path, desk: Path) -> None:
    made, output = net(norms=True)
    made.save(desk / "in.onnx", output)
    compressed(desk, MERGED)
    report = tuned(desk, norms=True)
    assert report.norms == 3 and report.improved
    assert report.end.kl == pytest.approx(report.end_loss, rel=1e-3)
    assert not any(node.op_type == "BatchNormalization" for node in onnx.load(desk / "out.onnx").graph.node)
    assert "c1.bias" not in weights(desk / "out.onnx") and {"c0.w", "olm/0.weight"} <= set(report.changed)


def test_a_file_without_norms_may_have_had_one_anywhere(desk: Path) -> None:
    assert tuned(desk, steps=2, norms=True).norms == 5


def test_drops_and_merges_of_the_projects_own_method(desk: Path) -> None:
    compressed(desk, DROPPED, method="olm")
    report = tuned(desk, steps=2)
    assert report.unmerged == () and any("no block of" in warning for warning in report.warnings)
    compressed(desk, MERGED, DROPPED)
    with pytest.raises(olm.ModelError, match="block 'drop c4…r4' that this version does not find"):
        tuned(desk, steps=2)


def test_a_checkpoint_is_of_the_unmerged_training(desk: Path) -> None:
    tuned(desk, steps=2, checkpoint=desk / "state.npz", checkpoint_minutes=1e-9)
    with pytest.raises(olm.DataError, match="the compressed model"):
        tuned(desk, steps=2, checkpoint=desk / "state.npz", resume=True, unmerged=False)


def test_merges_that_were_trained_stay_as_they_are(desk: Path) -> None:
    """What they would be unmerged is not known: beginning again would throw away what was learned."""
    first = tuned(desk)
    (desk / "out.onnx").replace(desk / "small.onnx")
    again = tuned(desk, steps=2)
    assert again.unmerged == () and again.start.kl == pytest.approx(first.end.kl, rel=1e-6)
    (said,) = (each for each in again.warnings if "were trained since" in each)
    assert said.startswith("1 of 1 merges") and not any("no block of" in each for each in again.warnings)
    assert "olm/0.weight" in again.changed or not again.improved


def test_only_merges_that_were_not_trained_are_taken_apart(desk: Path) -> None:
    behind = "merge 7x7 c3…c4 [11]"
    compressed(desk, MERGED, behind)
    model = onnx.load(desk / "small.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "olm/1.weight":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(1.001) * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, desk / "small.onnx")
    report = tuned(desk)
    assert report.unmerged == (MERGED,) and any("1 of 2 merges" in each for each in report.warnings)
    assert {"olm/0.weight", "olm/1.weight"} <= set(report.changed)
    assert report.end.kl == pytest.approx(report.end_loss, rel=1e-4)


def test_what_is_lost_by_the_merge_is_a_warning(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("merged again" in each for each in tuned(desk, steps=2).warnings)
    merged = _subject.merged_weights

    def spoilt(*given: Any) -> dict[str, np.ndarray]:
        return {name: 1.5 * array for name, array in merged(*given).items()}

    monkeypatch.setattr(_subject, "merged_weights", spoilt)
    assert any("merged again the model lies at KL" in each for each in tuned(desk).warnings)


# --- what is refused -----------------------------------------------------------------------------------------------


def refused(desk: Path, error: type[Exception], match: str, **words: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        tuned(desk, **words)
    assert str(caught.value).rstrip().endswith(".") and "\n" not in str(caught.value)
    assert not (desk / "out.onnx").exists()


def test_norms_alone(desk: Path) -> None:
    refused(desk, olm.UsageError, "give --unmerged too", norms=True, unmerged=False)


def test_a_file_without_a_plan(desk: Path) -> None:
    compressed(desk, MERGED, plan="")
    refused(desk, olm.ModelError, "holds no plan")


@pytest.mark.parametrize("plan", ["{", "[1]", '{"a": 1}'])
def test_a_damaged_plan(desk: Path, plan: str) -> None:
    compressed(desk, MERGED, plan=plan)
    refused(desk, olm.ModelError, "is damaged")


def test_a_plan_of_another_model(desk: Path) -> None:
    compressed(desk, MERGED, **{"input.sha256": "0" * 64})
    refused(desk, olm.ModelError, "was not made from")


def test_a_file_that_was_changed(desk: Path) -> None:
    model = onnx.load(desk / "small.onnx")
    for node in model.graph.node:
        if node.name == "olm/0":
            node.op_type = "Relu"
            del node.input[1:], node.attribute[:]
    onnx.save(model, desk / "small.onnx")
    refused(desk, olm.ModelError, "was changed since")


def test_bfloat16(desk: Path) -> None:
    for name in ("in", "small"):
        model = onnx.load(desk / f"{name}.onnx")
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32:
                wide = array.astype(onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))
                tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            value.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
        model.opset_import[0].version = 22
        onnx.save(model, desk / f"{name}.onnx")
    data = {"x": np.load(desk / "data.npz")["x"].astype(np.float16)}
    refused(desk, olm.UsageError, "bfloat16", data=data)
