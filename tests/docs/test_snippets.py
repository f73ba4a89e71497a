"""Every command that a page gives exists with its options, and every Python block names what there is.

The README's blocks run in tests/test_readme.py, the tutorial's in test_tutorial.py.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest

from olm.app import olm
from tests.docs.snippets import ROOT, SHELL, blocks, lines, pages, spans, words

PAGES = [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in pages()]
# First words of a line that are no command of ours, with the reason why nothing is checked of them here.
OTHERS = {
    "make": "its targets are looked up below",
    "pip": "installs from an index; tests/packaging installs the wheel",
    "python": "a script of benchmarks/, looked up below",
    "python3": "makes an environment",
    ".": "enters an environment",
    "docker": "tests/pipeline reads the Dockerfile",
    "git": "another program",
    "pre-commit": "another program",
    "cd": "a folder of the reader's",
}


def refused(line: str) -> str | None:
    """Why the command line would be refused before any work (None: it would not)."""
    name, *rest = words(line)
    command: click.Command = olm
    context = click.Context(olm, info_name=name, **olm.context_settings)
    try:
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            inner = command.get_command(context, rest[0])
            if inner is None:
                return f"no command {rest[0]}"
            command, name, rest = inner, rest[0], rest[1:]
            context = click.Context(command, info_name=name, parent=context)
        if not isinstance(command, click.Group):
            command.make_context(name, rest, parent=context.parent)
    except click.exceptions.Exit:  # --help, --version
        return None
    except click.UsageError as error:
        return error.format_message()
    return None


def test_a_wrong_line_is_refused() -> None:
    assert refused("olm compress a.onnx b.onnx --speedup 1.3 --calib images/") is None
    assert refused("olm profiles list -p x.json   # a comment") is None
    assert refused("olm compress a.onnx b.onnx --speed-up 1.3") is not None
    assert refused("olm compress a.onnx b.onnx --speedup fast") is not None
    assert refused("olm compress a.onnx --speedup 1.3") is not None
    assert refused("olm profiles lost") is not None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = {}
    for block in blocks(page):
        for line in lines(block):
            if line.startswith("olm ") and (block.language in (*SHELL, "")):
                wrong[line] = refused(line)
            elif block.language in SHELL and (found := words(line)):
                assert found[0] in OTHERS, f"{line!r} in {page.name}: checked by nothing"
    assert not {line: why for line, why in wrong.items() if why is not None}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_a_sentence_has_its_options(page: Path) -> None:
    for span in spans(page):
        command: click.Command = olm
        context = click.Context(olm, info_name="olm")
        for word in span.split()[1:]:
            if isinstance(command, click.Group) and (inner := command.get_command(context, word)) is not None:
                command = inner
            elif word.startswith("--"):
                known = {name for option in command.get_params(context) for name in option.opts + option.secondary_opts}
                assert word.split("=")[0] in known, f"`{span}` in {page.name}"
        assert command is not olm or span.split()[1].startswith(("-", "COMMAND", "…")), f"`{span}` in {page.name}"


def test_scripts_and_targets_that_pages_name_are_there() -> None:
    targets = {line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if "##" in line}
    for page in pages():
        for block in blocks(page):
            for line in lines(block):
                if block.language not in (*SHELL, "") or not line.startswith(("make ", "python ")):
                    continue
                found = words(line)
                if found[0] == "make":
                    assert found[1] in targets, line
                elif found[1].endswith(".py"):
                    assert (ROOT / found[1]).is_file(), line


class Names(ast.NodeVisitor):
    """Follows names from imports through calls and attributes as far as annotations tell; notes what is not there."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.missing: list[str] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            module = importlib.import_module(alias.name)
            self.known[alias.asname or alias.name.split(".")[0]] = (
                module if alias.asname else importlib.import_module(alias.name.split(".")[0])
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = importlib.import_module(node.module or "")
        for alias in node.names:
            if hasattr(module, alias.name):
                self.known[alias.asname or alias.name] = getattr(module, alias.name)
            else:
                self.missing.append(f"{node.module}.{alias.name}")

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        value = self.value(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.known[target.id] = value

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = self.value(node.value)
        gone = isinstance(owner, types.ModuleType) and not hasattr(owner, node.attr)
        if gone or (is_record(owner) and node.attr not in members(owner)):
            self.missing.append(f"{owner.__name__}.{node.attr}")

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        function = self.value(node.func)
        if isinstance(function, types.FunctionType) or is_record(function):
            given = {keyword.arg for keyword in node.keywords if keyword.arg}
            if unknown := given - set(inspect.signature(function).parameters):
                self.missing.append(f"{function.__name__}({', '.join(sorted(unknown))}=)")

    def value(self, node: ast.AST) -> Any:
        """The module, class or function that an expression is; for what a call returns its class; else None."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.value(node.value)
            if isinstance(owner, types.ModuleType):
                return getattr(owner, node.attr, None)
            if is_record(owner):
                return members(owner).get(node.attr)
            return None
        if isinstance(node, ast.Call):
            function = self.value(node.func)
            if isinstance(function, types.FunctionType):
                return get_type_hints(function).get("return")
            return function if is_record(function) else None
        return None


def is_record(value: Any) -> bool:
    """Whether it is a dataclass, not one's instance."""
    return isinstance(value, type) and dataclasses.is_dataclass(value)


def members(owner: type) -> Mapping[str, Any]:
    """The fields of a dataclass with their types, and its other public names."""
    return dict.fromkeys(dir(owner)) | get_type_hints(owner)


def missing(source: str) -> list[str]:
    """What a Python block names that is not there."""
    names = Names()
    names.visit(ast.parse(source))
    return names.missing


def test_a_name_that_is_not_there_is_found() -> None:
    start = "import onnx_layermerge as olm\nreport = olm.compress('a', 'b', speedup=1.3)\n"
    assert missing(start + "print(report.speedup.ratio)") == []
    assert missing(start + "print(report.speedup.ration)") == ["Ratio.ration"]
    assert missing("import onnx_layermerge as olm\nolm.compres") == ["onnx_layermerge.compres"]
    assert missing("from onnx_layermerge import verify\nverify('a', 'b', calibration=1)") == ["verify(calibration=)"]
    assert missing("from onnx_layermerge import Gates") == ["onnx_layermerge.Gates"]


@pytest.mark.parametrize("page", PAGES)
def test_every_python_block_names_what_there_is(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            assert missing(block.text) == []
