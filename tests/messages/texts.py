"""The sentences that an expression of the code can give, with what is only known at run time as ``{…}``.

1. Literals, f-strings, ``+``, ``… if … else …`` and ``or`` are taken apart.
2. A call of a function of ours that returns text, and ``CONSTANT.format(…)``, give that text.
3. A name is replaced by the texts that it is given, if it is a constant, or is one of ``CARRIERS``: words that hold a
   part of the sentence, not a fact about the user's files.  One that is a parameter stays, for callers to fill it.
4. Where one piece of an f-string can be several texts, each gives a sentence; where several pieces can, they stay
   ``{one | other}``.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["CARRIERS", "Module", "Scope", "Text", "pattern", "texts"]

CARRIERS = frozenset(
    ["advice", "fault", "held", "hint", "kinds", "known", "limits", "problem", "reason", "said", "verdict", "way"]
    + ["what", "whole", "why"]
)
_MOST = 24
Text = str


@dataclass(frozen=True)
class Module:
    """One file: its functions by qualified name, its constants, and where its imported names come from."""

    path: str
    tree: ast.Module
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    imported: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: in a function of a module, or outside of all (None)."""

    module: Module
    function: ast.FunctionDef | None
    find: Callable[[Module, str], tuple[Module, ast.FunctionDef] | None]
    depth: int = 0

    def parameters(self) -> list[str]:
        if self.function is None:
            return []
        words = self.function.args
        return [each.arg for each in (*words.posonlyargs, *words.args, *words.kwonlyargs)]


def texts(node: ast.expr, scope: Scope) -> list[Text]:
    """All sentences that ``node`` can be; one ``{source}`` alone where it is no text that can be known."""
    found = list(dict.fromkeys(itertools.islice(_texts(node, scope), _MOST + 1)))
    return found if found and len(found) <= _MOST else [_hole(node)]


def _texts(node: ast.expr, scope: Scope) -> Iterator[Text]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
        yield str(node.value).replace("{", "{{").replace("}", "}}")
    elif isinstance(node, ast.JoinedStr):
        parts = [_part(value, scope) for value in node.values]
        if sum(len(part) > 1 for part in parts) > 1:
            parts = [[_choice(part)] if len(part) > 1 else part for part in parts]
        yield from ("".join(words) for words in itertools.product(*parts))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        for left, right in itertools.product(texts(node.left, scope), texts(node.right, scope)):
            yield left + right
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body, scope)
        yield from texts(node.orelse, scope)
    elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        for value in node.values:
            yield from texts(value, scope)
    elif isinstance(node, ast.Name):
        yield from _named(node, scope)
    elif isinstance(node, ast.Subscript) and ast.unparse(node.slice) == ":-1":  # a sentence without its full stop
        yield from (text if text.endswith("}") else text[:-1] for text in texts(node.value, scope))
    elif isinstance(node, ast.Call):
        yield from _called(node, scope)
    else:
        yield _hole(node)


def _part(value: ast.expr, scope: Scope) -> list[Text]:
    """One piece of an f-string."""
    if not isinstance(value, ast.FormattedValue):
        return texts(value, scope)
    if value.conversion != -1 or value.format_spec is not None:
        return [_hole(value.value)]
    inner = value.value
    if isinstance(inner, ast.IfExp | ast.Name | ast.Constant | ast.Subscript) or (
        isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name)
    ):
        found = texts(inner, scope)
        # A choice between two words is part of the sentence; a choice between two facts is not.
        if isinstance(inner, ast.IfExp) and any(each.startswith("{") for each in found):
            return [_hole(inner)]
        return found
    return [_hole(inner)]


def _choice(part: list[Text]) -> Text:
    """Several texts in one place."""
    return "{" + " | ".join(re.sub(r"[{}]", "", each).strip() or "nothing" for each in part) + "}"


def _named(node: ast.Name, scope: Scope) -> Iterator[Text]:
    function, carrier = scope.function, node.id in CARRIERS
    given = [] if function is None or not carrier else list(_given(function, node.id))
    if given and scope.depth < 4:
        deeper = Scope(scope.module, function, scope.find, scope.depth + 1)
        for value in given:
            yield from texts(value, deeper)
    elif node.id in scope.module.constants and node.id not in scope.parameters():
        yield from texts(scope.module.constants[node.id], Scope(scope.module, None, scope.find, scope.depth + 1))
    else:
        yield _hole(node)


def _given(function: ast.FunctionDef, name: str) -> Iterator[ast.expr]:
    """What a local name is bound to, wherever in the function."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
            if isinstance(target, ast.Name) and target.id == name:
                yield value
            elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                for each, part in zip(target.elts, value.elts, strict=False):
                    if isinstance(each, ast.Name) and each.id == name:
                        yield part


def _called(node: ast.Call, scope: Scope) -> Iterator[Text]:
    if isinstance(node.func, ast.Attribute) and node.func.attr == "format" and isinstance(node.func.value, ast.Name):
        for text in texts(node.func.value, scope):
            yield text.replace("{{", "{").replace("}}", "}")
        return
    if isinstance(node.func, ast.Name) and node.func.id == "str" and node.args:
        yield _hole(node.args[0])
        return
    known = scope.find(scope.module, node.func.id) if isinstance(node.func, ast.Name) and scope.depth < 4 else None
    returned = [] if known is None else [each.value for each in ast.walk(known[1]) if isinstance(each, ast.Return)]
    inside = None if known is None else Scope(known[0], known[1], scope.find, scope.depth + 1)
    found = [] if inside is None else [text for value in returned if value is not None for text in texts(value, inside)]
    optional = any(text[:1] == " " for text in found)  # what is added behind a word brings its own space
    found = [text for text in found if text or optional]
    if not found or inside is None or not all(_wordy(text) for text in found if text):
        yield _hole(node)
        return
    for text in found:
        yield from filled(text, arguments(node, inside.parameters()), scope)


def _wordy(text: Text) -> bool:
    return bool(re.search(r"[a-z]{2,}", re.sub(r"\{[^{}]*\}", "", text)))


def arguments(call: ast.Call, parameters: list[str]) -> dict[str, ast.expr]:
    """What a call gives to the parameters, by name; ``self`` is not counted."""
    names = [name for name in parameters if name not in ("self", "cls")]
    given = dict(zip(names, (each for each in call.args if not isinstance(each, ast.Starred)), strict=False))
    return given | {word.arg: word.value for word in call.keywords if word.arg}


def filled(text: Text, given: dict[str, ast.expr], scope: Scope) -> list[Text]:
    """A function's text with its parameters replaced by what the caller gives."""
    found = [text]
    for name, value in given.items():
        if f"{{{name}}}" in text:
            found = [each.replace(f"{{{name}}}", part) for each in found for part in texts(value, scope)]
    return found


def _hole(node: ast.expr) -> Text:
    return "{" + ast.unparse(node).replace("{", "(").replace("}", ")") + "}"


def pattern(text: Text) -> re.Pattern[str]:
    """What a message made from ``text`` matches."""
    parts = re.split(r"(\{\{|\}\}|\{[^{}]*\})", text)
    words = ("\\{" if part == "{{" else "\\}" if part == "}}" else ".*" if part[:1] == "{" else re.escape(part)
             for part in parts)  # fmt: skip
    return re.compile("".join(words), re.DOTALL)
