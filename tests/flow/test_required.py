"""Plans held to a report of what builds, and the precision on its way to the backend."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_layermerge.errors import DeviceError, ProfileError, UsageError
from onnx_layermerge.flow import _compress, _plan, _profile, _verify, compress, plan, profile, verify
from onnx_layermerge.flow._build_only import BlockBuild, BuildReport
from onnx_layermerge.flow._prepare import Prepared, prepare
from onnx_layermerge.flow._required import buildable, read_builds
from onnx_layermerge.flow._sheet import sheet_of
from onnx_layermerge.latency import DeviceKey, LatencyTable
from onnx_layermerge.report import as_json
from tests.machine import Machine
from tests.zoo import Net


@pytest.fixture
def path(tmp_path: Path) -> Path:
    net = Net()
    value = net.relu(net.conv(net.input("x", (1, 3, 16, 16)), "stem", 16), "stem.relu")
    for index in range(3):
        value = net.relu(net.conv(value, f"conv{index}"), f"relu{index}")
    onnx.save(net.proto(net.classifier(value)), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


Report = Callable[..., Path]


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """A report of ``--build-only``: key → the reason why it was not built, or None."""

    def write(reasons: dict[str, str | None], precision: str = "fp32") -> Path:
        blocks = tuple(BlockBuild(key, "block", reason, 0, (), 0.1, 0.1) for key, reason in reasons.items())
        made = BuildReport("tensorrt-rtx 1", ("8.6",), precision, {}, blocks, 0.1, 0.1)
        (tmp_path / "builds.json").write_text(as_json(made))
        return tmp_path / "builds.json"

    return write


def keys_of(prepared: Prepared) -> dict[str, str]:
    return {use.candidate.key: use.new for use in sheet_of(prepared).uses}


def test_what_failed_or_is_missing_is_not_offered(path: Path, report: Report) -> None:
    prepared = prepare(path)
    keys = sorted(set(keys_of(prepared).values()))
    failed, missing, built = keys[0], keys[1], keys[2:]
    builds = read_builds(report({**dict.fromkeys(built), failed: "no such layer"}, "fp16"))
    kept, said = buildable(prepared, builds, "fp32")
    assert {keys_of(kept)[c.key] for c in kept.candidates} == set(built)
    gone = [sum(key == each for key in keys_of(prepared).values()) for each in (failed, missing)]
    assert f"{gone[0]} were left out" in said[0] and f"{gone[1]} which" in said[0]
    assert "built in fp16, but this plan is for fp32" in said[1]
    assert buildable(prepared, read_builds(report(dict.fromkeys(keys))), "fp32") == (prepared, ())


def test_a_report_of_another_model_leaves_nothing(path: Path, report: Report) -> None:
    with pytest.raises(ProfileError, match="no built block of this model; run olm profile --build-only"):
        buildable(prepare(path), read_builds(report({"sha256:else": None})), "fp32")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("\udcff", "is no JSON"),
        ("[]", "is no report"),
        ("{}", "is no report"),
        ('{"precision": "fp32", "blocks": [{"key": "k"}]}', "is no report"),
        ('{"precision": 3, "blocks": []}', "is no report"),
        ('{"precision": "fp32", "blocks": [{"key": 3, "reason": null}]}', "is no report"),
        ('{"precision": "fp32", "blocks": [{"key": "k", "reason": false}]}', "is no report"),
        ('{"precision": "fp32", "blocks": 7}', "is no report"),
        ('{"precision": "fp32", "blocks": [{"key": [], "reason": null}]}', "is no report"),
    ],
)
def test_other_files_are_refused_with_a_sentence(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "r.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ProfileError, match=words):
        read_builds(tmp_path / "r.json")


def test_no_plan_holds_a_block_that_does_not_build(
    path: Path, report: Report, machine: Machine, tmp_path: Path
) -> None:
    data = {"calib": {"x": np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)}}
    words = {"profile": tmp_path / "t.sqlite", **data}
    free = plan(path, **words)  # type: ignore[arg-type]
    keys, used = keys_of(prepare(path)), {block for point in free.points for block in point.blocks}
    assert used
    allowed = report({key: "no" if key in {keys[each] for each in used} else None for key in set(keys.values())})
    held = plan(path, require_builds=allowed, **words)  # type: ignore[arg-type]
    assert held.points and not used & {block for point in held.points for block in point.blocks}
    assert any("do not build" in text for text in held.warnings)
    with pytest.raises(ProfileError, match="cannot be read"):
        compress(path, tmp_path / "o.onnx", speedup=1.1, require_builds=tmp_path / "none.json", **words)  # type: ignore[arg-type]
    written = compress(path, tmp_path / "o.onnx", speedup=1.02, require_builds=allowed, rivals=2, **words)  # type: ignore[arg-type]
    assert written.blocks and not used & set(json.loads(_metadata(tmp_path / "o.onnx")["plan"]))


def _metadata(path: Path) -> dict[str, str]:
    return {each.key.rpartition("olm.")[2]: each.value for each in onnx.load(path).metadata_props}


def test_every_command_opens_the_backend_in_the_precision_asked_for(
    path: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def opened(name: str, device: str, precision: str, engines: object) -> Machine:
        seen.append((name, device, precision))
        machine.describe = lambda: DeviceKey("fake", "1", "machine", 1, precision)  # type: ignore[method-assign]
        return machine

    for module in (_compress, _plan, _profile, _verify):
        monkeypatch.setattr(module, "open_backend", opened)
    words = {"backend": "tensorrt", "device": "cuda:0", "precision": "fp16"}
    table = tmp_path / "t.sqlite"
    profile([path], profile=table, **words)  # type: ignore[arg-type]
    plan(path, profile=table, **words)  # type: ignore[arg-type]
    done = compress(path, tmp_path / "o.onnx", speedup=1.1, profile=table, **words)  # type: ignore[arg-type]
    verdict = verify(path, tmp_path / "o.onnx", **words)  # type: ignore[arg-type]
    assert seen == [("tensorrt", "cuda:0", "fp16")] * 4
    assert done.device == verdict.timing.device == machine.describe().text() and "fp16" in done.device  # type: ignore[union-attr]
    types = {weight.data_type for weight in onnx.load(tmp_path / "o.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in types, "what is written keeps its own types"
    with pytest.raises(ProfileError, match=r"fp16.*fp32"):
        compress(path, tmp_path / "p.onnx", speedup=1.1, profile=table, **{**words, "precision": "fp32"})  # type: ignore[arg-type]
    with LatencyTable.open(table) as held:
        assert {device.precision for device in held.devices()} == {"fp16"}


def test_a_table_stands_in_for_a_device_in_its_own_precision_alone(
    path: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "t.sqlite"
    for precision in ("fp16", "fp32"):
        key = DeviceKey("tensorrt", "10", "A GPU", 0, precision)
        machine.describe = lambda key=key: key  # type: ignore[misc]
        profile([path], profile=table)

    def absent(name: str, device: str, precision: str, engines: object) -> Machine:
        raise DeviceError("It is not here.")

    monkeypatch.setattr(_plan, "open_backend", absent)
    words = {"backend": "tensorrt", "device": "cuda:0", "profile": table}
    assert "/ fp16 /" in plan(path, precision="fp16", **words).device  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="no such device in bf16"):
        plan(path, precision="bf16", **words)  # type: ignore[arg-type]


def test_a_precision_that_the_backend_has_not_ends_every_command_before_any_work(path: Path, tmp_path: Path) -> None:
    for call in (
        lambda: profile([path], precision="fp16"),
        lambda: plan(path, precision="fp16", profile=tmp_path / "t.sqlite"),
        lambda: compress(path, tmp_path / "o.onnx", speedup=1.1, precision="fp16"),
        lambda: verify(path, path, precision="fp16"),
    ):
        with pytest.raises(UsageError, match="computes in fp32 on a CPU, not in fp16"):
            call()


def test_models_are_saved_in_the_types_that_were_timed(path: Path, machine: Machine, tmp_path: Path) -> None:
    machine.describe = lambda: DeviceKey("tensorrt", "10.1", "A GPU", 0, "fp16", settings="io=channels_last")  # type: ignore[method-assign]
    named = verify(path, path, precision="fp16").timing
    assert named is not None and named.unwritten and "--onnx=original.fp16.onnx" in named.commands[0]
    saved = verify(path, path, precision="fp16", save_onnx=tmp_path).timing
    assert saved is not None and not saved.unwritten
    for name, command in zip(("original", "compressed"), saved.commands, strict=True):
        file = tmp_path / f"{name}.fp16.onnx"
        assert f"--onnx={file}" in command
        held = onnx.load(file)
        assert {weight.data_type for weight in held.graph.initializer} == {onnx.TensorProto.FLOAT16}
    given = verify(path, path, precision="tf32").timing
    assert given is not None and f"--onnx={path}" in given.commands[0] and not given.unwritten
    assert dataclasses.asdict(given)["kind"] == "GPU compute time" and given.a_ms == pytest.approx(given.b_ms)
