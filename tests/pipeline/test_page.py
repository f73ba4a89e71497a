"""Every snippet of docs/ci.md: the YAML names what is there, the commands run."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import onnx
import pytest
import yaml
from click.testing import CliRunner

from olm.app import olm
from tests.machine import install
from tests.pipeline.conftest import ROOT
from tests.zoo import Net

PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def test_the_snippets_of_the_page_name_what_is_there() -> None:
    github, gitlab, hooks = (yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S))
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    steps = github["jobs"]["compress"]["steps"]
    (ours,) = (step for step in steps if step.get("id") == "olm")
    assert ours["with"].keys() <= action["inputs"].keys()
    assert all(name in ours["with"] for name, each in action["inputs"].items() if each["required"])
    assert re.search(r"steps\.olm\.outputs\.([\w-]+)", yaml.safe_dump(steps))[1] in action["outputs"]  # type: ignore[index]
    assert all(f"`{name}`" in PAGE for name in action["outputs"])
    (include,) = gitlab["include"]
    template = ROOT / include["local"].lstrip("/")
    # templates/NAME/template.yml is where GitLab looks for the component that ends in /NAME.
    (name,) = re.findall(r"`component: \S+/([^/\s]+)@\S+`", PAGE)
    assert template == ROOT / "templates" / name / "template.yml"
    spec = next(yaml.safe_load_all(template.read_text(encoding="utf-8")))
    assert include["inputs"].keys() <= spec["spec"]["inputs"].keys()
    there = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert [each["id"] for each in hooks["repos"][0]["hooks"]] == [each["id"] for each in there]


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device whose times follow from the model: what counts here is the words."""
    install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name in ("models", "profiles"):
        (tmp_path / name).mkdir()
    net = Net()
    value = net.relu(net.conv(net.input("x", ("N", 3, 8, 8)), "c0", 8), "r0")
    value = net.relu(net.add(net.conv(value, "c1"), value, "a1"), "r1")
    onnx.save(net.proto(net.classifier(value)), tmp_path / "models" / "detector.onnx")
    subprocess.run(["git", "init", "-q"], check=True)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    (planned,) = (" ".join(text.split()) for text in re.findall(r"`(olm plan [^`]*)`", PAGE))
    for line in [*lines, planned.replace(" model.onnx", " models/detector.onnx")]:
        tool, *words = shlex.split(line, comments=True)
        if tool == "olm":
            done = CliRunner().invoke(olm, words, prog_name="olm")
            assert done.exit_code == 0, (line, done.stderr)
        else:
            subprocess.run([tool, *words], check=True)
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout
    assert listed == "profiles/edge-box.json\n"
