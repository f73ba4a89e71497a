"""What the pages tell their readers to type: blocks of commands and of Python, wherever they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "SHELL", "Block", "blocks", "lines", "pages", "spans", "words"]

ROOT = Path(__file__).resolve().parents[2]
SHELL = ("bash", "sh", "shell", "console")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`(olm [^`]+)`")


@dataclass(frozen=True)
class Block:
    """One block of code and the language that it is in ("": indented text)."""

    language: str
    text: str


def pages() -> list[Path]:
    """Every page with words of ours."""
    return [ROOT / "README.md", ROOT / "profiles" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in order; text that is indented as code counts as one of no language."""
    text = page.read_text(encoding="utf-8")
    found = [(m.start(), Block(m[2], m[3])) for m in _FENCE.finditer(text)]
    plain = _FENCE.sub(lambda m: re.sub(r"[^\n]", "", m[0]).ljust(len(m[0])), text)
    found += [(m.start(), Block("", m[0])) for m in re.finditer(r"(?:^    \S.*\n)+", plain, re.MULTILINE)]
    return [block for _, block in sorted(found, key=lambda each: each[0])]


def lines(block: Block) -> Iterator[str]:
    """The commands of a block, those over several lines joined, prompts taken off."""
    for line in block.text.replace("\\\n", " ").splitlines():
        yield re.sub(r"^\$ ", "", line.strip())


def words(line: str) -> list[str]:
    """A command as the shell takes it apart, up to where it is piped or written to a file."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>&;")
    lexer.whitespace_split = True
    found: list[str] = []
    for word in lexer:
        if set(word) <= set("|>&;"):
            break
        found.append(word)
    return found


def spans(page: Path) -> list[str]:
    """What stands as `olm …` inside of sentences."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(span.split()) for span in _SPAN.findall(text)]
