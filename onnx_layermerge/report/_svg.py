"""Small words for an SVG: elements with short numbers, text that fits, and the colours of both modes.

Only the reader's own fonts are used, so widths of text are estimates on the wide side.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

__all__ = ["STYLE", "add", "clean", "counted", "fit_left", "fit_right", "number", "path_data", "text_px"]

# Rules with plain colours, twice, and not custom properties: viewers other than browsers do not know those.
STYLE = """
svg{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;color-scheme:light dark}
.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.h1{font-size:20px;font-weight:600}.h2{font-size:12px}.t{font-size:11px}.s{font-size:9px}.b{font-weight:600}
.mid{text-anchor:middle}.end{text-anchor:end}
.page{fill:#fff}.ink{fill:#1f2328}.muted{fill:#59636e}
.card{fill:#f6f8fa;stroke:#e4e8ec}
.conv{fill:#e3eefc;stroke:#3b82d9}.tag{fill:#2368bd}.tagged{fill:#fff}.label{fill:#0b3a75}.name{fill:#4d6788}
.alone{fill:#fff;stroke:#b5702f;stroke-dasharray:3 2}.dull{fill:#b5702f}
.barrier{fill:#fdeedd;stroke:#c98544}.why{fill:#8a4b10}
.chip{fill:#fff;stroke:#c4ccd5}.join{fill:#fff;stroke:#59636e;stroke-width:1.2}.port{fill:#e9edf1;stroke:#b6bfc9}
.wire{fill:none;stroke:#8c959f;stroke-width:1.3}.tip{fill:#8c959f}.rule{stroke:#d8dee4}
.block{fill:none;stroke:#1f8a4c;stroke-width:1.7;stroke-linecap:round}.block:hover{stroke-width:3.4}
.heat{fill:#1f8a4c}.count{fill:#1a6b3c}
@media(prefers-color-scheme:dark){
.page{fill:#0d1117}.ink{fill:#e6edf3}.muted{fill:#9da7b3}
.card{fill:#151b23;stroke:#262d37}
.conv{fill:#14294a;stroke:#4c8fe0}.tag{fill:#3a78c9}.label{fill:#d5e6ff}.name{fill:#94aed0}
.alone{fill:#0d1117;stroke:#d18f4c}.dull{fill:#9c6127}
.barrier{fill:#33230f;stroke:#b0763a}.why{fill:#f0b177}
.chip{fill:#0d1117;stroke:#48515c}.join{fill:#0d1117;stroke:#9da7b3}.port{fill:#21262d;stroke:#48515c}
.wire{stroke:#7d8590}.tip{fill:#7d8590}.rule{stroke:#2d343d}
.block{stroke:#3fb56f}.heat{fill:#3fb56f}.count{fill:#67d08f}
}
"""

# Widths of a letter in ems: of the widest font in the list above, for text with few capitals.
SANS_EM, MONO_EM = 0.61, 0.605


def number(value: float | str) -> str:
    """At most one decimal, none where it is zero."""
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def counted(count: int, what: str) -> str:
    """``1 node``, ``2,000 nodes``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def clean(text: str) -> str:
    """Text without the characters that XML 1.0 cannot hold, which become U+FFFD."""
    return "".join(c if _allowed(c) else "\ufffd" for c in text)


def _allowed(c: str) -> bool:
    return c in "\t\n" or " " <= c < "\ud800" or "\ue000" <= c <= "\ufffd" or c > "\uffff"


def add(parent: ET.Element, tag: str, css: str = "", text: str = "", **attributes: float | str) -> ET.Element:
    """A child element; ``title`` among the attributes becomes a tooltip."""
    found = ET.SubElement(parent, tag, {"class": css} if css else {})
    found.text = clean(text) or None
    title = attributes.pop("title", "")
    for name, value in attributes.items():
        found.set(name.replace("_", "-"), number(value))
    if title:
        ET.SubElement(found, "title").text = clean(str(title))
    return found


def path_data(*words: float | str) -> str:
    """Path data: commands and numbers."""
    return " ".join(map(number, words)) + " "


def text_px(text: str, size: float, *, mono: bool = False) -> float:
    """About how wide ``text`` is at a font size, in pixels."""
    return len(text) * size * (MONO_EM if mono else SANS_EM)


def fit_right(text: str, width: float, size: float, *, mono: bool = False) -> str:
    """The beginning of ``text`` that fits into ``width`` pixels."""
    most = max(2, int(width / text_px("m", size, mono=mono)))
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def fit_left(text: str, width: float, size: float, *, mono: bool = False) -> str:
    """The end of ``text`` that fits: of a node's name it tells more than the beginning."""
    most = max(2, int(width / text_px("m", size, mono=mono)))
    return text if len(text) <= most else f"…{text[1 - most :]}"
