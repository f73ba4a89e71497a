"""The site builds without a warning and fetches nothing; its reference pages hold what the code holds."""

from __future__ import annotations

import html
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

import onnx_layermerge
from olm.app import olm
from tests.docs.snippets import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "cli"))),
        "NO_MKDOCS_2_WARNING": "1",
    }
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr + done.stdout
    return folder


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import hooks as module

    yield module
    for name in ("hooks", "json_keys"):
        sys.modules.pop(name, None)


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command of the tree with its words."""
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, f"{path} {name}")


def text_of(page: Path) -> str:
    """What a reader sees of a page's own part."""
    article = re.search(r"<article.*?</article>", page.read_text(encoding="utf-8"), re.DOTALL)
    assert article is not None
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", article[0])).split())


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetching = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^\"'> ]+")
    for page in site.rglob("*.html"):
        assert not fetching.findall(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    page = site / "reference" / "cli.html"
    text = text_of(page)
    headings = re.findall(r'<h\d id="([^"]+)"', page.read_text(encoding="utf-8"))
    for path, command in commands(olm, "olm"):
        if path != "olm":
            assert path.replace(" ", "-") in headings
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[0] in text, (path, parameter.opts)
    assert "(95 % confidence" not in text and "\b" not in text and "Sentinel" not in text


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "api.html").read_text(encoding="utf-8")
    ids = {identifier.rsplit(".", 1)[-1] for identifier in re.findall(r'<h3 id="([^"]+)"', page)}
    assert ids >= set(onnx_layermerge.__all__)


def test_every_json_is_described(site: Path, hooks: ModuleType) -> None:
    from json_keys import RESULTS, WITH_SCHEMA

    described = {re.sub(r" (\(.*|--.*)", "", name) for name in RESULTS} | set(WITH_SCHEMA)
    printing = {
        path for path, command in commands(olm, "olm")
        if path != "olm" and any("--json" in option.opts for option in command.params)
    }  # fmt: skip
    assert printing == described
    text = text_of(site / "reference" / "json.html")
    assert "usable true or false" in text and "chains[].blocks[].variants object by name: whole number" in text
    for schema in (ROOT / "docs" / "schemas").glob("*.json"):
        assert f"schemas/{schema.name}" in text and (site / "schemas" / schema.name).is_file()


def test_pages_from_elsewhere_link_to_where_they_are_now(site: Path) -> None:
    changes = (site / "changes.html").read_text(encoding="utf-8")
    assert 'href="finetuning.html"' in changes and "docs/finetuning.md)" not in changes
    assert "Add a device" in text_of(site / "latency-tables.html")


def link(hooks: ModuleType, markdown: str, here: str, source: str) -> str:
    return str(hooks._LINK.sub(lambda found: hooks._link(found, here, source), markdown))


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("[errors](errors.md#warnings)", "[errors](errors.md#warnings)"),
        ("[tables](../profiles/README.md)", "[tables](latency-tables.md)"),
        ("[`a.py`](../onnx_layermerge/errors.py)", "`a.py`"),
        ("[the code](../onnx_layermerge/errors.py)", "the code (`onnx_layermerge/errors.py`)"),
        ("`[x](nowhere.py)` and ```\n", "`[x](nowhere.py)` and ```\n"),
        ("[out](https://example.org/a.md)", "[out](https://example.org/a.md)"),
    ],
)
def test_links(hooks: ModuleType, markdown: str, expected: str) -> None:
    assert link(hooks, markdown, "gpu.md", "docs/gpu.md") == expected


def test_a_link_that_leads_nowhere_is_a_warning_and_so_an_error(
    hooks: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        link(hooks, "[x](../benchmarks/nowhere.py)", "gpu.md", "docs/gpu.md")
    assert "'../benchmarks/nowhere.py'" in caplog.text


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("text\n- a\n  b\n- c", "text\n\n- a\n    b\n- c"),
        ("1. a\n   - b\n\n   c\n2. d\n\ne", "1. a\n    - b\n\n    c\n\n2. d\n\ne"),
        ("```\n- a\n  b\n```", "```\n- a\n  b\n```"),
        ("- a\n\n    code", "- a\n\n      code"),
        ("- a\n\ntext\n\n    code", "- a\n\ntext\n\n    code"),
    ],
)
def test_lists(hooks: ModuleType, written: str, wanted: str) -> None:
    assert hooks._lists(written) == wanted
