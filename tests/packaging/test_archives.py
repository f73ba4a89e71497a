"""What is in the wheel and in the source archive, and what is not."""

from __future__ import annotations

import email
import email.message
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, Built, build

SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)((a|b|rc)\d+)?")
# A path that a test puts together: ROOT / "docs" / "errors.md", parents[2] / "profiles".
_PATH = re.compile(r'(?:ROOT|parents\[\d\])((?:\s*/\s*"[\w./-]+")+)')


def modules(folder: Path) -> set[str]:
    return {path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.py")}


def metadata(built: Built) -> email.message.Message:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_holds_the_package_the_command_line_and_the_mark_of_types_and_nothing_else(built: Built) -> None:
    names = built.wheel_names()
    wanted = modules(ROOT / "onnx_layermerge") | modules(ROOT / "cli" / "olm") | {"onnx_layermerge/py.typed"}
    assert wanted <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"onnx_layermerge", "olm"}
    assert not [name for name in names if name.endswith((".pyc", ".onnx", ".sqlite"))]


def test_the_wheel_says_what_it_is_and_what_it_needs(built: Built) -> None:
    said = metadata(built)
    assert said["Name"] == "onnx-layermerge"
    assert said["Requires-Python"] == ">=3.10"
    needed = [line for line in said.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split(r"[<>=!~ ]", line)[0] for line in needed} >= {"onnx", "onnx-ir", "onnxruntime", "numpy", "click"}
    assert {"torch", "tensorrt", "images"} <= set(said.get_all("Provides-Extra", []))
    with zipfile.ZipFile(built.wheel) as archive:
        (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "olm = olm.__main__:main" in archive.read(points).decode()


def test_the_version_is_a_semantic_one_and_the_change_log_begins_with_it(built: Built) -> None:
    version = str(metadata(built)["Version"])
    assert SEMANTIC.fullmatch(version)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = next(line for line in changes.splitlines() if re.match(r"## \[?\d", line))
    assert newest.replace("[", "").split()[1].rstrip("]") == version


def test_the_source_archive_holds_all_tests_and_every_file_that_they_name(built: Built) -> None:
    names = built.sdist_names()
    tests = {path for path in (built.tree / "tests").rglob("*") if path.is_file()}
    assert {path.relative_to(built.tree).as_posix() for path in tests} <= names
    named = set()
    for path in (path for path in tests if path.suffix == ".py"):
        for parts in _PATH.findall(path.read_text(encoding="utf-8")):
            named.add("/".join(re.findall(r'"([^"]+)"', parts)))
    there = {name for name in named if (built.tree / name).exists()}
    assert {"README.md", "profiles", "benchmarks/quality"} <= there
    lacking = {name for name in there if not any(held == name or held.startswith(f"{name}/") for held in names)}
    assert lacking == set(), "add them to [tool.hatch.build.targets.sdist]"


def test_the_source_archive_holds_what_a_developer_needs_and_no_models(built: Built) -> None:
    names = built.sdist_names()
    assert {"pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"} <= names
    assert {"requirements/run.txt", "requirements/dev.txt", "requirements/build.txt"} <= names
    tops = {name.split("/")[0] for name in names}
    assert not tops & {"models", "build", "dist", ".venv", ".git"}
    assert built.sdist.stat().st_size < 10 * 2**20


def test_the_wheel_from_the_source_archive_is_the_wheel_from_the_tree(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path / "unpacked")  # of our own making
    (tree,) = (tmp_path / "unpacked").iterdir()
    build(tree, tmp_path / "again", "wheel")
    (wheel,) = (tmp_path / "again").glob("*.whl")
    assert wheel.name == built.wheel.name
    assert wheel.read_bytes() == built.wheel.read_bytes()


@pytest.mark.parametrize("folder", ["onnx_layermerge", "cli/olm"])
def test_no_module_is_left_out_by_a_pattern_of_files_to_ignore(built: Built, folder: str) -> None:
    """A name in .gitignore hides files from the build as well."""
    held = {path.relative_to(built.tree).as_posix() for path in (built.tree / folder).rglob("*") if path.is_file()}
    assert held <= built.sdist_names()
