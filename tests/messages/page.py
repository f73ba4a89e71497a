"""``docs/troubleshooting.md``: every message that a user can meet, by exit code and by what it is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tests.messages.scan import ROOT, Message
from tests.messages.words import ADVICE, MORE, TITLES, TOPICS

__all__ = ["FILE", "page", "shown"]

FILE = ROOT / "docs" / "troubleshooting.md"

def shown(text: str) -> str:
    """A template as a reader meets it: facts about his own files as ⟨words⟩."""
    found = re.sub(r"\{\{|\}\}|\{[^{}]*\}", _word, text)
    return " ".join(found.split()).rstrip(".")


def _word(match: re.Match[str]) -> str:
    hole = match.group()
    if hole in ("{{", "}}"):
        return hole[0]
    inside = hole[1:-1]
    if " | " in inside:
        return f"⟨{inside}⟩"
    if re.search(r"\berror\b|first_line|_said|_words|refused", inside):
        return "⟨reason⟩"
    if inside.startswith("len("):
        return "⟨number⟩"
    names = re.fullmatch(r"(?:[\w.]+\()*([\w.]+)(?:\[[^\]]*\])*(?:\.\w+)?\)*", inside)
    if names is None:
        return "⟨…⟩"
    return f"⟨{names.group(1).split('.')[-1].strip('_').lower().replace('_', ' ')}⟩"


def page(messages: Sequence[Message]) -> str:
    """The whole page."""
    lines = [
        "# Troubleshooting",
        "",
        "Every message of `olm`, by its exit code and what it is about; what stands in ⟨ ⟩ is your own. Search for",
        "words of the message that you see. Exit codes, and what the commands leave behind: [errors](errors.md).",
        "This page is made from the code by `python -m tests.messages page`.",
    ]
    spoken = [message for message in messages if not message.passed_on]
    for code, title in TITLES.items():
        lines += ["", f"## {title}"]
        of_code = [message for message in spoken if message.exit_code == code]
        for topic in sorted({_topic(message.place) for message in of_code}):
            about = [message for message in of_code if _topic(message.place) == topic]
            more = [MORE[topic], ""] if topic in MORE else []
            lines += ["", f"### {topic}", "", *more, *_entries(about)]
    return "\n".join(lines) + "\n"


def _topic(place: str) -> str:
    return next(title for start, title in TOPICS if place.startswith(start))


def _entries(messages: Iterable[Message]) -> list[str]:
    found: dict[str, str] = {}
    for message in messages:
        advice = next((said for start, said in ADVICE.items() if message.text.startswith(start)), "")
        found[shown(message.text)] = advice
    ordered = sorted(found.items(), key=lambda item: re.sub(r"⟨[^⟩]*⟩|\W", "", item[0]).lower())
    # A message that begins with the program's name is no command to type.
    marked = [(f"`` {text} ``" if text.startswith("olm ") else f"`{text}`", advice) for text, advice in ordered]
    return [f"- {text}" + (f"<br>{advice}" if advice else "") for text, advice in marked]
