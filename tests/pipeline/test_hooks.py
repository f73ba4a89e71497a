"""The hooks, started as pre-commit starts them: the entry's words, then the files."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import yaml

from olm.precommit import _digests, main
from onnx_layermerge.graph import read
from tests.pipeline.conftest import ROOT
from tests.pipeline.github import Job
from tests.zoo import Net

HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))}


def network(seed: int = 0) -> onnx.ModelProto:
    net = Net(seed=seed)
    return net.proto(net.conv(net.input(), "c"))


def compressed(digest: str) -> onnx.ModelProto:
    """A model with the line of the record that says what it was made from."""
    model = network(5)
    entry = model.metadata_props.add()
    entry.key, entry.value = "olm.input.sha256", digest
    return model


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An original and what was made of it, tracked by git."""
    onnx.save(network(), tmp_path / "an original.onnx")
    onnx.save(compressed(read(tmp_path / "an original.onnx").digest), tmp_path / "fast.onnx")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_entries_are_commands_of_the_package(shipped: Job, tmp_path: Path) -> None:
    """With what the real run of the action wrote; each hook once, in a process of its own."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    shutil.copytree(shipped.workspace / "nets", tmp_path / "nets")
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    files = ["nets/tiny net.onnx", "nets/tiny net.fast.onnx"]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for hook in HOOKS.values():
        assert hook["language"] == "python" and all(re.search(hook["files"], file) for file in files)
        words = [
            *shlex.split(hook["entry"]),
            *hook.get("args", []),
            *(files if hook.get("pass_filenames", True) else []),
        ]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_compressed_file_of_last_weeks_model_is_found(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["origin"]) == 0
    onnx.save(network(1), repository / "an original.onnx")
    assert main(["origin"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: fast.onnx was made from a model with SHA-256 ")


def test_files_that_are_named_are_the_only_ones(repository: Path) -> None:
    assert main(["origin", "fast.onnx"]) == 1
    assert main(["origin", "fast.onnx", "an original.onnx"]) == 0
    assert main(["origin", "an original.onnx"]) == 0


def test_only_what_git_tracks_counts(repository: Path) -> None:
    (repository / "an original.onnx").rename(repository / "moved.onnx")
    assert main(["origin"]) == 1
    subprocess.run(["git", "add", "moved.onnx"], check=True)
    assert main(["origin"]) == 0, "the original may have any name"


def test_an_original_with_its_weights_beside_it_is_known(repository: Path) -> None:
    onnx.save(network(2), repository / "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0)
    onnx.save(compressed(read(repository / "big.onnx").digest), repository / "big.fast.onnx")
    assert main(["origin", "big.onnx", "big.fast.onnx"]) == 0
    (repository / "big.data").write_bytes((repository / "big.data").read_bytes()[::-1])
    assert main(["origin", "big.onnx", "big.fast.onnx"]) == 1


def test_a_file_that_was_cut_short_is_found(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (repository / "fast.onnx").read_bytes()
    assert main(["check", "fast.onnx", "an original.onnx"]) == 0
    (repository / "fast.onnx").write_bytes(whole[: len(whole) // 2])
    for command in ("check", "origin"):
        assert main([command, "fast.onnx", "an original.onnx"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("Error: fast.onnx cannot be read")


def test_names_that_are_no_files_get_a_line_each(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "folder.onnx").mkdir()
    for command in ("check", "origin"):
        assert main([command, "fast.onnx", "an original.onnx", "nofile.onnx", "folder.onnx"]) == 1
        first, second = capsys.readouterr().err.splitlines()
        assert first.startswith("Error: nofile.onnx ") and second.startswith("Error: folder.onnx ")


def test_an_original_that_is_not_there_is_nobodys(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "an original.onnx").unlink()
    assert main(["origin", "fast.onnx", "an original.onnx"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Error: an original.onnx cannot be read as ONNX (FileNotFoundError): bring ")
    assert second.startswith("Error: fast.onnx was made from ")


def test_a_file_that_goes_away_between_two_looks(repository: Path) -> None:
    assert _digests(["an original.onnx", "gone.onnx", "."]) == {read("an original.onnx").digest}


def test_a_submodule_is_no_model(repository: Path) -> None:
    subprocess.run(["git", "init", "-q", "zoo.onnx"], check=True)
    link = f"160000,{'1' * 40},zoo.onnx"
    subprocess.run(["git", "update-index", "--add", "--cacheinfo", link], check=True)
    assert "zoo.onnx" in subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout
    assert main(["origin"]) == 0


def test_words_without_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert main([]) == 2 and main(["inspect"]) == 2 and main(["origin"]) == 2
    assert [line[:11] for line in capsys.readouterr().err.splitlines()] == ["Error: say ", "Error: say ", "Error: git "]
