"""HTML as a tree: whatever a model's names hold is text there, never markup."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Union

from onnx_layermerge.report._svg import clean

__all__ = ["Content", "document", "el"]

# A forward reference inside, which "|" cannot take at run time.
Content = Union[str, ET.Element, None, Iterable["Content"]]  # noqa: UP007


def el(tag: str, *content: Content, **attributes: str | None) -> ET.Element:
    """An element; ``cls`` stands for ``class``, ``_`` for ``-``; attributes that are None are left out."""
    found = ET.Element(tag)
    for name, value in attributes.items():
        if value is not None:
            found.set("class" if name == "cls" else name.rstrip("_").replace("_", "-"), clean(value))
    _append(found, content)
    return found


def _append(parent: ET.Element, content: Content) -> None:
    if content is None:
        return
    if isinstance(content, str):
        if len(parent):
            parent[-1].tail = (parent[-1].tail or "") + clean(content)
        else:
            parent.text = (parent.text or "") + clean(content)
    elif isinstance(content, ET.Element):
        parent.append(content)
    else:
        for each in content:
            _append(parent, each)


def document(title: str, style: str, *body: Content) -> str:
    """A whole page, in which nothing is read from anywhere else."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        # Whatever should slip through the tree: no script runs, and nothing is fetched.
        el("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        el("title", title),
        el("style", style),
    )
    page = el("html", head, el("body", *body), lang="en")
    return "<!doctype html>\n" + ET.tostring(page, encoding="unicode", method="html") + "\n"
