"""The tables of the page; on a phone each row of a wide one becomes a card."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from onnx_layermerge.report._markup import Content, el
from onnx_layermerge.report._report import Block, Report
from onnx_layermerge.report._words import (
    digits,
    file_name,
    ms,
    place,
    plain,
    recipe,
    seconds,
    share,
    times,
    verdict,
)
from onnx_layermerge.verify import Boxes

__all__ = ["blocks_table", "boxes_table", "drift_table", "facts_table", "plans_table", "stages_table"]

DRIFT = {
    "kl": "KL, nats",
    "relative": "relative error",
    "cosine": "cosine",
    "snr_db": "SNR, dB",
    "largest": "largest difference",
    "rank_correlation": "rank correlation",
    "agreement": "same answer",
}


# In the order in which they run; a report that was read from JSON has lost it.
STAGES = ("read", "time blocks", "score blocks", "build and verify", "judge", "write")


def _table(
    caption: str, columns: Sequence[str], rows: Iterable[ET.Element], foot: ET.Element | None = None, css: str = ""
) -> ET.Element:
    """A column whose name starts with ``>`` holds numbers."""
    heads = (el("th", name.lstrip(">"), scope="col", cls="num" if name.startswith(">") else None) for name in columns)
    return el(
        "table",
        el("caption", caption) if caption else None,
        el("thead", el("tr", heads)),
        el("tbody", rows),
        el("tfoot", foot) if foot is not None else None,
        cls=f"cards {css}".strip(),
    )


def _row(columns: Sequence[str], cells: Sequence[Content], **attributes: str | None) -> ET.Element:
    """The first cell names the row."""
    rest = (
        el("td", cell, cls="num" if name.startswith(">") else None, data_label=name.lstrip(">"))
        for name, cell in zip(columns[1:], cells[1:], strict=True)
    )
    return el("tr", el("th", cells[0], scope="row"), rest, **attributes)


def blocks_table(report: Report) -> ET.Element:
    """What stood there, what stands there now, what it saves and what it costs."""
    columns = ("block", "was → is", ">old, ms", ">now, ms", ">saved, ms", ">importance", "certificate", ">fit error")
    most = max((block.saving_ms for block in report.blocks), default=0.0)
    rows = [_block(columns, number, block, most) for number, block in enumerate(report.blocks, 1)]
    old, saved = (sum(getattr(b, name) for b in report.blocks) for name in ("old_ms", "saving_ms"))
    total = (f"all {len(rows)}", "", ms(old), ms(old - saved), ms(saved), digits(report.expected), "", "")
    return _table("", columns, rows, _row(columns, total), "blocks")


def _block(columns: Sequence[str], number: int, block: Block, most: float) -> ET.Element:
    width = 100 * max(block.saving_ms, 0.0) / most if most > 0 else 0.0
    fit = "" if block.fit_error is None else digits(block.fit_error)
    few = block.rows_per_unknown
    told = el("small", f"{digits(few)} rows an unknown") if few is not None else None
    cells: tuple[Content, ...] = (
        (f"{number} · {recipe(block)}", el("small", place(block), cls="mono")),
        el("span", _sizes(block.was), el("small", f"→ {_sizes(block.now) or 'nothing'}")),
        ms(block.old_ms),
        ms(block.old_ms - block.saving_ms),
        (ms(block.saving_ms), el("div", cls="bar", style=f"width:{width:.0f}%", aria_hidden="true")),
        digits(block.loss_alone),
        block.certificate,
        (fit, told) if fit else "",
    )
    return _row(columns, cells, id=f"block-{number}")


def _sizes(labels: Sequence[str]) -> str:
    """Sizes one after another; of a long series the ends."""
    shown = [" ".join(label.split()) for label in labels]
    if len(shown) > 3:
        shown = [shown[0], f"… {len(shown) - 2} more …", shown[-1]]
    return ", ".join(shown)


def drift_table(report: Report) -> ET.Element:
    """A row for each output, with the columns that apply to any of them."""
    used = [name for name in DRIFT if any(getattr(output, name) is not None for output in report.outputs)]
    columns = ("output", *(f">{DRIFT[name]}" for name in used))
    rows = [
        _row(columns, (el("span", plain(output.name), cls="mono"), *(_cell(n, getattr(output, n)) for n in used)))
        for output in report.outputs
    ]
    return _table("Drift of each output on samples that no fit has seen", columns, rows)


def _cell(name: str, value: float | None) -> str:
    if name == "agreement":
        return share(value)
    if name in ("cosine", "rank_correlation") and value is not None and math.isfinite(value):
        return f"{value:.5f}"
    return digits(value)


def boxes_table(boxes: Boxes) -> ET.Element:
    """Detections of both models."""
    columns = ("boxes", ">original", ">compressed", ">matched", ">found", ">right", ">F1")
    cells = (
        "both models, decoded",
        str(boxes.original),
        str(boxes.compressed),
        str(boxes.matched),
        share(boxes.found),
        share(boxes.right),
        digits(boxes.f1),
    )
    return _table("Found: of the original's boxes; right: of the compressed model's", columns, [_row(columns, cells)])


def plans_table(report: Report) -> ET.Element:
    """The chosen plan first, then the others by divergence."""
    scored = any(plan.metric is not None for plan in report.rejected)
    columns = ["plan by", ">measured", ">predicted", ">expected loss", ">divergence", ">blocks"]
    columns += [">your metric"] if scored else []
    columns += ["why not"]
    found = report.metric
    mine = ([f"{found.compressed:.6g}" if found is not None else "–"]) if scored else []
    chosen = [
        report.basis, times(report.speedup.ratio, 3), times(report.predicted, 3), digits(report.expected),
        digits(report.divergence), str(len(report.blocks)), *mine, "chosen",
    ]  # fmt: skip
    rows = [_row(columns, chosen, cls="taken")]
    for plan in sorted(report.rejected, key=lambda plan: (plan.divergence, plan.blocks)):
        own = ["–" if plan.metric is None else f"{plan.metric:.6g}"] if scored else []
        cells = [
            plan.basis, times(plan.speedup, 3) if plan.speedup > 0 else "–", times(plan.predicted, 3),
            digits(plan.expected), digits(plan.divergence), str(len(plan.blocks)), *own, verdict(plan),
        ]  # fmt: skip
        rows.append(_row(columns, cells))
    return _table("", columns, rows)


def stages_table(report: Report) -> ET.Element:
    """Wall seconds of each stage, with a bar."""
    columns = ("stage", ">time", "share")
    whole = sum(report.seconds.values()) or 1.0
    ordered = sorted(
        report.seconds.items(), key=lambda item: STAGES.index(item[0]) if item[0] in STAGES else len(STAGES)
    )
    rows = [
        el(
            "tr",
            el("th", stage, scope="row"),
            el("td", seconds(spent), cls="num"),
            el("td", el("div", cls="bar", style=f"width:{100 * spent / whole:.1f}%"), cls="share"),
        )
        for stage, spent in ordered
    ]
    heads = (el("th", name.lstrip(">"), scope="col", cls="num" if name[0] == ">" else None) for name in columns)
    return el("table", el("thead", el("tr", heads)), el("tbody", rows), cls="stages")


def facts_table(report: Report) -> ET.Element:
    """Settings and keys: what another run has to have in common with this one."""
    keys = report.keys
    versions = ", ".join(f"{name} {text}" for name, text in sorted(keys.versions.items()))
    facts: list[tuple[str, Content]] = [
        ("input", (plain(report.input), el("small", f"SHA-256 {keys.input}", cls="mono"))),
        ("output", (plain(report.output), el("small", f"SHA-256 {keys.output}", cls="mono"))),
        ("samples", el("span", keys.calibration, cls="mono") if keys.calibration else "none"),
        ("latency table", (plain(file_name(keys.profile)) if keys.profile else "the user's own",
                           el("small", f"device key {keys.device}", cls="mono"))),
        ("device", plain(report.device)),
        ("settings", f"method {report.method}, effort {report.effort}, seed {report.seed}"),
        ("versions", versions),
    ]  # fmt: skip
    return el("table", el("tbody", (el("tr", el("th", name, scope="row"), el("td", what)) for name, what in facts)),
              cls="facts")  # fmt: skip
