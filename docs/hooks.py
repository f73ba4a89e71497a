"""What the site adds to the pages of this folder (named under ``hooks`` in mkdocs.yml; no page itself).

1. Two pages from elsewhere in the repository: the change log, and what is said of latency tables beside them.
2. Links from a page to a file of the repository that is no page become the file's name; one that leads nowhere is an
   error, as in the rest of the site.
3. Lists are indented as this Markdown wants them.
4. ``<!-- cli -->``, ``<!-- api -->``, ``<!-- json -->`` and ``<!-- schemas -->`` alone on a line become what the code,
   or the folder, says at that moment.
"""

from __future__ import annotations

import inspect
import logging
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from json_keys import json_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.olm")
ROOT = Path(__file__).resolve().parent.parent

ELSEWHERE = {"changes.md": "CHANGELOG.md", "latency-tables.md": "profiles/README.md"}
# A block of code, a link, or code in a line: whichever begins first, so that links in code are none.
_LINK = re.compile(
    r"^```.*?^```|(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)|`[^`\n]*`",
    re.MULTILINE | re.DOTALL,
)
_ITEM = re.compile(r"(?:[-*]|\d+\.) +(?=\S)")
_MARK = re.compile(r"^<!-- (\w+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what comes from code, then see to the links."""
    markdown = _lists(_MARK.sub(lambda mark: _made(mark[1], files), markdown))
    here = page.file.src_uri
    source = ELSEWHERE.get(here, f"docs/{here}")

    return _LINK.sub(lambda found: _link(found, here, source), markdown)


def _lists(markdown: str) -> str:
    """Lists as this Markdown wants them: what belongs to an item indented by four, and a blank line before the first,
    and before all others once one of them has paragraphs.

    The pages are written for code forges, too, where the width of the marker is enough.
    """
    lines: list[str] = []
    width, loose, fenced = 0, False, False
    for line in markdown.split("\n"):
        indent = len(line) - len(line.lstrip())
        fenced ^= line.lstrip().startswith("```")
        item = None if fenced else _ITEM.match(line)
        if item is not None:
            if (loose or not width) and lines and lines[-1].strip():
                lines.append("")
            width = item.end()
        elif line.strip() and indent < width and (fenced or not lines[-1].strip()):
            width = 0
        loose = width > 0 and (loose or not line.strip())
        lines.append(" " * (4 - width) + line if 0 < width <= indent and line.strip() and width < 4 else line)
    return "\n".join(lines)


def _link(found: re.Match[str], here: str, source: str) -> str:
    image, text, target = found["image"], found["text"], found["target"]
    if target is None:
        return found[0]
    path, _, anchor = target.partition("#")
    if not path or "://" in target or target.startswith("mailto:"):
        return found[0]
    there = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    pages = {elsewhere: page for page, elsewhere in ELSEWHERE.items()}
    page = pages.get(there) or (there.removeprefix("docs/") if there.startswith("docs/") else None)
    if page is not None:
        relative = posixpath.relpath(page, posixpath.dirname(here) or ".")
        return f"{image}[{text}]({relative}{'#' + anchor if anchor else ''})"
    if not (ROOT / there).exists():
        log.warning("'%s' links to '%s', which is not in the repository", source, target)
    return text if text.startswith("`") else f"{text} (`{there}`)"


def _made(mark: str, files: Files) -> str:
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "cli": cli_pages,
        "api": api_pages,
        "json": json_pages,
        "schemas": lambda: _schemas(files),
    }
    if mark not in makers:
        log.warning("nothing is known that makes <!-- %s -->", mark)
        return ""
    return "\n".join(makers[mark]())


def api_pages() -> Iterator[str]:
    """Every public name, for mkdocstrings: functions, then what they take and return, then errors."""
    import onnx_layermerge

    names = sorted(onnx_layermerge.__all__)
    objects = {name: getattr(onnx_layermerge, name) for name in names}
    errors = [n for n in names if isinstance(objects[n], type) and issubclass(objects[n], Exception)]
    functions = [n for n in names if not isinstance(objects[n], type)]
    classes = [n for n in names if n not in errors and n not in functions]
    for title, members in (("Functions", functions), ("Options and results", classes), ("Errors", errors)):
        yield f"## {title}\n"
        for name in members:
            # By where it is written: a room and a function may share a name.
            yield f"::: {objects[name].__module__}.{name}\n"


def cli_pages() -> Iterator[str]:
    """Every command with its words, and a table of its options."""
    from olm.app import olm

    yield from _command(olm, click.Context(olm, info_name="olm", **olm.context_settings))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    if context.parent is not None:
        yield f"{'#' * (1 + context.command_path.count(' '))} {context.command_path}\n"
    yield _prose(command.help or "")
    words = command.collect_usage_pieces(context)
    yield f"\n```text\n{' '.join([context.command_path, *words])}\n```\n"
    options = [parameter for parameter in command.get_params(context) if isinstance(parameter, click.Option)]
    rows = [record for option in options if (record := option.get_help_record(context)) is not None]
    if rows:
        yield "| option | |\n| --- | --- |"
        for names, text in rows:
            yield f"| `{names}` | {' '.join(_escaped(text).split())} |"
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _command(inner, click.Context(inner, info_name=name, parent=context))


def _prose(text: str) -> str:
    r"""A help text as Markdown; what stands behind \b keeps its lines."""
    parts = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            title, *lines = paragraph.removeprefix("\b\n").split("\n")
            parts.append("\n".join([_escaped(title), "", "```text", *(line.strip() for line in lines), "```"]))
        else:
            parts.append(_escaped(" ".join(paragraph.split())))
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    """Text that Markdown and tables take literally; what stands in backticks stays code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if number % 2 else re.sub(r"([\\*_<>\[\]|#])", r"\\\1", part)
        for number, part in enumerate(parts)
    )


def _schemas(files: Files) -> Iterator[str]:
    found = sorted(file.src_uri for file in files if re.fullmatch(r"schemas/[^/]+\.json", file.src_uri))
    for uri in found:
        yield f"- [`{uri}`](../{uri})"
