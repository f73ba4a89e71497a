"""The Dockerfile as far as it can be held to something without building it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from olm.app import olm
from tests.pipeline.conftest import ROOT

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
LINES = re.sub(r"\\\n\s*", "", "\n".join(line for line in TEXT.splitlines() if not line.startswith("#"))).splitlines()
STEPS = [(line.split()[0], line.split(maxsplit=1)[1]) for line in LINES if line.strip()]
COPIED = [source for name, rest in STEPS if name == "COPY" and "--from" not in rest for source in rest.split()[:-1]]
RUNS = [shlex.split(part) for name, rest in STEPS if name == "RUN" for part in rest.split("&&")]
INSTALLS = [words for words in RUNS if words[1:4] == ["-m", "pip", "install"]]


def commands(text: str) -> list[list[str]]:
    """The docker lines in it, joined, as words."""
    joined = re.sub(r"\\\n(#\s*)?", " ", text)
    return [
        shlex.split(line.lstrip("# ")) for line in joined.splitlines() if re.match(r"#?\s*docker (build|run) ", line)
    ]


def test_the_base_is_one_release_of_the_vendors_image() -> None:
    (base,) = [rest for name, rest in STEPS if name == "ARG"]
    assert re.fullmatch(r"BASE=nvcr\.io/nvidia/tensorrt:\d\d\.\d\d-py3", base)
    assert [rest.split()[0] for name, rest in STEPS if name == "FROM"] == ["${BASE}", "${BASE}"]
    assert base.removeprefix("BASE=") in PAGE


@pytest.mark.parametrize("source", COPIED)
def test_what_is_copied_is_there_and_reaches_the_builder(source: str) -> None:
    assert (ROOT / source).exists()
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignore.index("*") < ignore.index(f"!{source.split('/')[0]}")


def test_all_that_a_wheel_is_built_from_is_copied() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = json.loads(re.search(r"^packages = (\[.*\])$", project, re.M)[1])  # type: ignore[index]
    assert {"pyproject.toml", "README.md", "LICENSE", *(path.split("/")[0] for path in packages)} <= set(COPIED)


def test_everything_from_an_index_is_locked_and_none_of_it_is_a_tensorrt() -> None:
    assert len(INSTALLS) == 3
    for words in INSTALLS:
        files = [words[place + 1] for place, word in enumerate(words) if word == "-r"]
        if not files:
            assert "--no-deps" in words and words[-1] == "/setup/wheels/*.whl"
            continue
        assert "--require-hashes" in words and len(words) == 5 + 2 * len(files), "something else is installed"
        for file in files:
            assert f"requirements/{Path(file).name}" in COPIED
            lock = (ROOT / "requirements" / Path(file).name).read_text(encoding="utf-8")
            assert "--hash=" in lock and not re.search(r"^tensorrt", lock, re.M)
    assert "--system-site-packages" in TEXT


def test_the_bindings_are_those_of_the_images_cuda() -> None:
    lock = (ROOT / "requirements" / "container.txt").read_text(encoding="utf-8")
    assert (
        re.search(r"^cuda-python==12\.", lock, re.M)
        and "CUDA 12.9" in TEXT
        and re.search("^nvidia-ml-py==", lock, re.M)
    )


def test_it_ends_as_a_user_who_is_not_root_and_starts_olm() -> None:
    last = dict(STEPS)
    assert last["USER"] not in ("root", "0") and f"useradd --create-home --uid 10001 {last['USER']}" in TEXT
    assert json.loads(last["ENTRYPOINT"]) == ["olm"] and json.loads(last["CMD"]) == ["--help"]
    assert re.search(r'^olm = "olm\.', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)


def test_page_and_dockerfile_have_the_same_commands_and_olm_knows_them() -> None:
    build, run, *rest = commands(TEXT)
    assert not rest and commands(PAGE) == [build, run]
    command, *words = run[run.index("olm", run.index("-v")) + 1 :]
    known = {name for parameter in olm.commands[command].params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
