"""The wheel in an environment of its own: a working olm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest

from olm.errors import version
from tests.packaging.conftest import Installed
from tests.zoo import plain


@pytest.fixture
def model(tmp_path: Path) -> Path:
    net, last = plain()
    return net.save(tmp_path / "small.onnx", last)


def test_the_program_is_the_installed_one_and_not_the_tree(installed: Installed) -> None:
    done = installed.run("python", "-c", "import onnx_layermerge, olm; print(onnx_layermerge.__file__, olm.__file__)")
    assert done.returncode == 0, done.stderr
    assert all(Path(file).is_relative_to(installed.folder) for file in done.stdout.split())


def test_it_says_its_version(installed: Installed) -> None:
    done = installed.run("olm", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"olm {version()}\n", "")
    assert installed.run("python", "-m", "olm", "--version").stdout == done.stdout


def test_the_version_as_json_names_python_and_the_libraries(installed: Installed) -> None:
    done = installed.run("olm", "--version", "--json")
    said = json.loads(done.stdout)
    assert said["version"] == version()
    assert said["python"] == ".".join(str(number) for number in sys.version_info[:3])
    assert said["libraries"]["onnx"] == onnx.__version__
    assert {"onnxruntime", "numpy", "onnx-ir"} <= set(said["libraries"])


def test_doctor_finds_the_backend_of_the_cpu(installed: Installed) -> None:
    done = installed.run("olm", "doctor", "--json")
    assert done.returncode == 0, done.stderr
    checks = {check["name"]: check["usable"] for check in json.loads(done.stdout)}
    assert checks["onnxruntime"] is True


def test_inspect_reads_a_model(installed: Installed, model: Path) -> None:
    done = installed.run("olm", "inspect", str(model), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["blocks"]


def test_words_are_completed_by_the_installed_program(installed: Installed) -> None:
    words = {"_OLM_COMPLETE": "bash_complete", "COMP_WORDS": "olm comp", "COMP_CWORD": "1"}
    assert installed.run("olm", **words).stdout.split() == ["plain,compress"]
