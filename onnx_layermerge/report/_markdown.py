"""A run as a short Markdown text, such as a step of a pipeline shows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from onnx_layermerge.report._report import Report
from onnx_layermerge.report._words import (
    STEPS,
    agreement,
    digits,
    duration,
    error,
    file_name,
    metric_name,
    ms,
    place,
    plain,
    recipe,
    reproduce,
    source_of,
    times,
)
from onnx_layermerge.report._words import share as percent

__all__ = ["render_markdown"]

# What Markdown, or HTML inside of it, would take for markup.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")
MOST_BLOCKS = 40


def render_markdown(report: Report) -> str:
    """Headline, figures, blocks, warnings and how to reproduce, as GitHub and GitLab show it."""
    ratio = report.speedup
    source = source_of(report)
    lines = [
        f"## {_text(file_name(report.output))}: {times(ratio.ratio)} as fast",
        "",
        f"{ms(ratio.a_s * 1e3)} ms → {ms(ratio.b_s * 1e3)} ms, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}, "
        f"{source} on {_text(report.device)}.",
        "",
        *_table(("", ""), _figures(report)),
        "",
        *(f"> **Warning** {_text(text)}\n" for text in report.warnings),
        f"### Replaced: {len(report.blocks)}",
        "",
        *_table(
            ("#", "where", "what", ">old, ms", ">now, ms", ">saved, ms", ">importance (KL)", "certificate"),
            [
                (
                    str(number),
                    _code(place(block)),
                    recipe(block),
                    ms(block.old_ms),
                    ms(block.old_ms - block.saving_ms),
                    ms(block.saving_ms),
                    digits(block.loss_alone),
                    block.certificate,
                )
                for number, block in enumerate(report.blocks[:MOST_BLOCKS], 1)
            ],
        ),
    ]
    if len(report.blocks) > MOST_BLOCKS:
        lines += ["", f"… and {len(report.blocks) - MOST_BLOCKS} more."]
    lines += ["", f"{duration(report)} in all; {len(report.rejected)} other plans were built and not chosen.", ""]
    command = reproduce(report)
    keys = report.keys
    if command:
        lines += ["### Reproduce", "", *_fenced(plain(command)), ""]
    lines += [
        f"Input `{keys.input[:16]}…`, output `{keys.output[:16]}…`, table key `{keys.device}`, seed {report.seed}, "
        + ", ".join(f"{name} {text}" for name, text in sorted(keys.versions.items()))
        + ".",
        "",
    ]
    return "\n".join(lines)


def _figures(report: Report) -> list[tuple[str, str]]:
    rows = [
        ("asked", times(report.asked)),
        ("predicted", f"{times(report.predicted)} ({100 * error(report):+.1f} %)"),
        ("convolutions", f"{report.convs_before} → {report.convs_after}"),
        ("expected loss (KL, Σ of each block alone)", digits(report.expected)),
    ]
    if report.validation is not None:
        rows.append(("divergence (KL, held-out samples)", digits(report.validation.kl)))
    if (agreed := agreement(report)) is not None:
        rows.append(("same top-1 answer (held-out samples)", percent(agreed)))
    if report.metric is not None:
        metric = report.metric
        rows.append((f"{_text(metric_name(metric.name))}", f"{metric.original:.6g} → {metric.compressed:.6g}"))
    if report.boxes is not None:
        rows.append(("boxes found / right", f"{percent(report.boxes.found)} / {percent(report.boxes.right)}"))
    if report.recovery:
        rows.append(("weights", "; ".join(STEPS.get(step, step) for step in report.recovery)))
    return rows


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A column whose name starts with ``>`` is aligned right."""
    return [
        f"| {' | '.join(name.lstrip('>') for name in columns)} |",
        f"| {' | '.join('---:' if name.startswith('>') else '---' for name in columns)} |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _text(text: str) -> str:
    """Nothing in it is markup; the model has named it, or the user."""
    return _SPECIAL.sub(r"\\\1", plain(text)).replace("@", "&#64;")


def _code(text: str) -> str:
    """A name in a cell of a table, in which a bar would end the cell even inside of code."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", "\\|")


def _fenced(text: str) -> list[str]:
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return [f"{fence}sh", text, fence]
