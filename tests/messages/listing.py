"""``tests/messages.json``: for every message one test that was seen to produce it, or why none can."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.messages.scan import ROOT, Message

__all__ = ["FILE", "Listing", "exists", "keys", "load", "made_by", "save", "updated"]

FILE = ROOT / "tests" / "messages.json"
Key = tuple[str, str]
"""Where, as file::function, and the sentence; no line, so that edits elsewhere change nothing."""


@dataclass(frozen=True)
class Listing:
    """Tests by message, and reasons by the messages that no test can produce here."""

    tests: dict[Key, str]
    without: dict[Key, str]


def keys(messages: Iterable[Message]) -> list[Key]:
    """One for each message; the same sentence twice in one function is one, and what is passed on has no words."""
    return sorted({(message.place, message.text) for message in messages if not message.passed_on})


def load(file: Path = FILE) -> Listing:
    held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"tests": {}, "without": {}}
    tests, without = (
        {(place, text): said for place, texts in held[part].items() for text, said in texts.items()}
        for part in ("tests", "without")
    )
    return Listing(tests, without)


def save(listing: Listing, file: Path = FILE) -> None:
    held: dict[str, dict[str, dict[str, str]]] = {"tests": {}, "without": {}}
    for part, found in (("tests", listing.tests), ("without", listing.without)):
        for (place, text), said in sorted(found.items()):
            held[part].setdefault(place, {})[text] = said
    file.write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def made_by(messages: Sequence[Message], record: dict[str, Any]) -> dict[Key, list[str]]:
    """The tests that produced each message in a recorded run (`tests.messages.record`)."""
    starts: defaultdict[str, list[Message]] = defaultdict(list)
    for message in messages:
        starts[message.lines[0][0]].append(message)
    passed, found = set(record["tests"]), defaultdict(set)
    for event in record["events"]:
        lines = [(file, line) for file, line in event["lines"]]
        for text, tests in event["texts"].items():
            for message in starts[lines[0][0]]:
                if message.made(event["class"], lines, text):
                    found[message.place, message.text].update(passed.intersection(tests))
    return {key: sorted(tests) for key, tests in found.items() if tests}


def updated(
    messages: Sequence[Message], record: dict[str, Any], old: Listing, *, keep: bool = False
) -> tuple[Listing, list[Key]]:
    """The listing after a recorded run, and what has neither a test nor a reason.

    With ``keep`` the run was of some tests only, and what it did not produce keeps the test that it has.

    A test that is named already stays if it still produces its message; else one of the same room is taken, of the
    shortest name.
    """
    made, tests, missing = made_by(messages, record), {}, []
    wanted = keys(messages)
    without = {key: reason for key, reason in old.without.items() if key in wanted and key not in made}
    for key in wanted:
        if key in made:
            tests[key] = old.tests[key] if old.tests.get(key) in made[key] else min(made[key], key=_nearness(key))
        elif keep and key in old.tests:
            tests[key] = old.tests[key]
        elif key not in without:
            missing.append(key)
    return Listing(tests, without), missing


def _nearness(key: Key) -> Any:
    room = key[0].removeprefix("onnx_layermerge/").removeprefix("cli/olm").split("/")[0] or "cli"
    return lambda test: (not test.startswith(f"tests/{room}/"), len(test), test)


def exists(test: str, root: Path = ROOT) -> bool:
    """Whether a test of this name can be collected: the file is there, and in it the function, in the class if any."""
    path, *names = test.split("[", 1)[0].split("::")
    file = root / path
    if not names or not file.is_file():
        return False
    body: Sequence[ast.AST] = ast.parse(file.read_text(encoding="utf-8")).body
    for name in names:
        found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name]
        if not found:
            return False
        body = found[0].body
    return True
