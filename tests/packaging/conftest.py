"""Both archives, built once from a copy of the tree, and an environment that holds nothing of ours but the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What is no part of the project, or is brought by make models.
OUTSIDE = (".*", "__pycache__", "models", "build", "dist", "data", "*.egg-info", "site")
KEPT = (".gitignore", ".dockerignore", ".pre-commit-hooks.yaml", ".ci")


def _outside(folder: str, names: list[str]) -> set[str]:
    found = set(shutil.ignore_patterns(*OUTSIDE)(folder, names)) - set(KEPT)
    return found if Path(folder) == ROOT else found & {"__pycache__", ".pytest_cache", ".hypothesis"}


@dataclass(frozen=True)
class Built:
    """The copy of the tree, and what was built from it; members as posix paths, of the sdist without its folder."""

    tree: Path
    wheel: Path
    sdist: Path

    def wheel_names(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    def sdist_names(self) -> set[str]:
        with tarfile.open(self.sdist) as archive:
            return {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}


def build(tree: Path, target: Path, *kinds: str) -> None:
    """Run the build backend that pyproject.toml names, without a network."""
    words = [sys.executable, "-m", "hatchling", "build", "-d", str(target)]
    subprocess.run([*words, *(word for kind in kinds for word in ("-t", kind))], cwd=tree, check=True, timeout=300)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    pytest.importorskip("hatchling", reason="make installs it: requirements/build.txt")
    tree, target = tmp_path_factory.mktemp("packaging") / "tree", tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, tree, ignore=_outside)
    build(tree, target, "wheel", "sdist")
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return Built(tree, wheel, sdist)


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel; the libraries that it needs are borrowed from the one that runs the tests."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / ("Scripts" if sys.platform == "win32" else "bin")

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, in its folder, with none of the caller's paths."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        program = str(self.bin / words[0])
        return subprocess.run(
            [program, *words[1:]], cwd=self.folder, env=kept | more, capture_output=True, text=True, timeout=300
        )


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    # A pip of its own takes most of the time that this takes; from 22.3 on, the one that is here can install there.
    alone = tuple(int(part) for part in metadata.version("pip").split(".")[:2]) < (22, 3)
    bare = [] if alone else ["--without-pip"]
    subprocess.run([sys.executable, "-m", "venv", *bare, str(folder)], check=True, timeout=300)
    found = Installed(folder)
    (site,) = (Path(line) for line in found.run(
        "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
    ).stdout.splitlines())  # fmt: skip
    # A path in a .pth file is searched, but its own .pth files are not read: the editable install stays out of sight.
    lines = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "libraries.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    python = str(found.bin / "python")
    pip = [python, "-m", "pip"] if alone else [sys.executable, "-m", "pip", "--python", python]
    words = ["--disable-pip-version-check", "-q", "install", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([*pip, *words, str(built.wheel)], check=True, timeout=300)
    return found
