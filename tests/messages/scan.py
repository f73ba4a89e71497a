"""Every place in the code that makes an error for users, and the sentences that it can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.messages.texts import CARRIERS, Module, Scope, Text, arguments, filled, pattern, texts

__all__ = ["ROOT", "Message", "scan"]

ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("onnx_layermerge", "cli/olm")
_CLICK = {"UsageError": 2, "BadParameter": 2}


@dataclass(frozen=True)
class Message:
    """One sentence: the function that says it, in which class, and the lines that are on the stack then.

    ``lines``: (file, first, last), the construction first, then the calls that fill it with words.
    """

    place: str
    text: Text
    kind: str
    exit_code: int
    lines: tuple[tuple[str, int, int], ...]

    @property
    def passed_on(self) -> bool:
        """Only what another error said, without words of its own."""
        return re.fullmatch(r"\s*(\{[^{}]*\}[\s.:]*)+", self.text) is not None

    def made(self, kind: str, lines: list[tuple[str, int]], said: Text) -> bool:
        """Whether an error of this class, made with these lines on the stack, is this message."""
        if kind != self.kind or not lines or not pattern(self.text).fullmatch(said):
            return False
        rest = iter(lines)
        first = next(rest)
        if not _on(self.lines[0], first):
            return False
        return all(any(_on(wanted, line) for line in rest) for wanted in self.lines[1:])


def _on(wanted: tuple[str, int, int], line: tuple[str, int]) -> bool:
    return wanted[0] == line[0] and wanted[1] <= line[1] <= wanted[2]


@dataclass(frozen=True)
class _Raw:
    """A message on its way: which function holds its words, and what of it callers fill in."""

    text: Text
    kind: str
    lines: tuple[tuple[str, int, int], ...]
    module: Module
    function: str


def scan(root: Path = ROOT) -> list[Message]:
    """All messages, by file and line; the same sentence twice in one function is listed twice."""
    files = [file for folder in _FOLDERS for file in sorted((root / folder).rglob("*.py"))]
    modules = {file.relative_to(root).as_posix(): _module(file, root) for file in files}
    for module in modules.values():
        for name, source in module.imported.items():
            for path in (f"{source}.py", f"{source}/__init__.py"):
                if path in modules and name in modules[path].constants:
                    module.constants.setdefault(name, modules[path].constants[name])
    code = Code(modules)
    kinds = code.kinds()
    raw = [each for module in modules.values() for each in code.constructions(module, kinds)]
    found = [done for each in raw for done in code.told(each)]
    listed = [
        Message(f"{each.module.path}::{each.function}", each.text, each.kind, kinds[each.kind], each.lines)
        for each in found
    ]
    return sorted(listed, key=lambda message: (message.lines[-1], message.text))


class Code:
    """All modules, with who calls whom."""

    def __init__(self, modules: dict[str, Module]) -> None:
        self.modules = modules
        self.calls: dict[str, list[tuple[Module, str, ast.Call]]] = {}
        for module in modules.values():
            for name, call in _calls(module):
                word = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                self.calls.setdefault(word, []).append((module, name, call))

    def kinds(self) -> dict[str, int]:
        """Exit codes of the classes of errors; Click's are named with it, as there is a UsageError of our own."""
        found = {f"click.{name}": code for name, code in _CLICK.items()}
        for node in self.modules["onnx_layermerge/errors.py"].tree.body:
            if isinstance(node, ast.ClassDef):
                codes = [each.value.value for each in node.body if isinstance(each, ast.Assign)
                         and isinstance(each.value, ast.Constant)]  # fmt: skip
                found[node.name] = codes[0] if codes else found["OlmError"]
        return found

    def find(self, module: Module, name: str) -> tuple[Module, ast.FunctionDef] | None:
        """The module-level function that a name means there."""
        if name in module.functions:
            return module, module.functions[name]
        source = module.imported.get(name, "")
        for path in (f"{source}.py", f"{source}/__init__.py"):
            if path in self.modules and name in self.modules[path].functions:
                return self.modules[path], self.modules[path].functions[name]
        return None

    def constructions(self, module: Module, kinds: dict[str, int]) -> Iterator[_Raw]:
        """Where a class of errors is called."""
        for name, call in _calls(module):
            kind = _kind(call, kinds, module)
            if kind is None or not call.args:
                continue
            first = call.args[0]
            if isinstance(first, ast.Starred):
                yield from self._appended(first.value, kind)
                continue
            scope = Scope(module, module.functions.get(name), self.find)
            line = (module.path, call.lineno, call.end_lineno or call.lineno)
            for sentence in texts(first, scope):
                yield _Raw(sentence, kind, (line,), module, name)

    def _appended(self, source: ast.expr, kind: str) -> Iterator[_Raw]:
        """Sentences that are put into a list of this name, wherever: the failures of a gate.  They are said when the
        list is handed over, so the lines are those of the whole function."""
        wanted = source.attr if isinstance(source, ast.Attribute) else ""
        for module, name, call in self.calls.get("append", []):
            owner = call.func.value if isinstance(call.func, ast.Attribute) else None
            function = module.functions.get(name)
            if function is not None and isinstance(owner, ast.Name) and owner.id == wanted:
                line = (module.path, function.lineno, function.end_lineno or function.lineno)
                for sentence in texts(call.args[0], Scope(module, function, self.find)):
                    yield _Raw(sentence, kind, (line,), module, name)

    def told(self, raw: _Raw, depth: int = 0) -> Iterator[_Raw]:
        """The message with every caller's words in place of parameters that carry them."""
        function = raw.module.functions.get(raw.function)
        scope = Scope(raw.module, function, self.find)
        open_words = [word for word in scope.parameters() if word in CARRIERS and f"{{{word}}}" in raw.text]
        callers = list(self._callers(raw.module, raw.function)) if open_words and depth < 3 else []
        if not callers:
            yield raw
        for module, name, call in callers:
            outside = Scope(module, module.functions.get(name), self.find)
            line = (module.path, call.lineno, call.end_lineno or call.lineno)
            given, usual = arguments(call, scope.parameters()), _defaults(function)
            wanted = {word: given[word] for word in open_words if word in given}
            left = {word: usual[word] for word in open_words if word in usual and word not in given}
            at_home = Scope(raw.module, None, self.find)
            known = [each for text in filled(raw.text, wanted, outside) for each in filled(text, left, at_home)]
            for text in known:
                yield from self.told(_Raw(text, raw.kind, (*raw.lines, line), module, name), depth + 1)

    def _callers(self, module: Module, name: str) -> Iterator[tuple[Module, str, ast.Call]]:
        short = name.rsplit(".", 1)[-1]
        for other, function, call in self.calls.get(short, []):
            if isinstance(call.func, ast.Attribute):
                if "." in name and "<locals>" not in name:
                    yield other, function, call
            elif "<locals>" in name:
                if other is module:
                    yield other, function, call
            elif "." not in name and self.find(other, short) == (module, module.functions[name]):
                yield other, function, call


def _defaults(function: ast.FunctionDef | None) -> dict[str, ast.expr]:
    if function is None or not function.args.defaults:
        return {}
    names = [each.arg for each in function.args.args][-len(function.args.defaults) :]
    return dict(zip(names, function.args.defaults, strict=True))


def _kind(call: ast.Call, kinds: dict[str, int], module: Module) -> str | None:
    function = call.func
    if isinstance(function, ast.Name):
        return function.id if function.id in kinds else None
    if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
        return None
    if function.value.id == "self" and function.attr == "fail" and module.path.startswith("cli/"):
        return "click.BadParameter"
    name = f"click.{function.attr}" if function.value.id == "click" else function.attr
    return name if name in kinds else None


def _module(file: Path, root: Path) -> Module:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    module = Module(file.relative_to(root).as_posix(), tree)
    for name, function in _functions(tree, ""):
        module.functions[name] = function
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            module.constants[node.targets[0].id] = node.value
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            top = "cli/" if node.module.split(".")[0] == "olm" else ""
            for each in node.names:
                module.imported[each.asname or each.name] = top + node.module.replace(".", "/")
    return module


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child
            yield from _functions(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)


def _calls(module: Module) -> Iterator[tuple[str, ast.Call]]:
    """Each call, under the name of the innermost function around it."""
    names = {id(node): name for name, node in module.functions.items()}

    def within(node: ast.AST, name: str) -> Iterator[tuple[str, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield name, child
            yield from within(child, names.get(id(child), name))

    return within(module.tree, "")
