"""A run as one HTML page: no network, no script, readable on a phone, on paper, on light and on dark."""

from __future__ import annotations

from onnx_layermerge.report._beside import Caption, beside
from onnx_layermerge.report._charts import built_chart, frontier_chart, speed_strip
from onnx_layermerge.report._markup import Content, document, el
from onnx_layermerge.report._report import Report
from onnx_layermerge.report._style import STYLE
from onnx_layermerge.report._svg import counted
from onnx_layermerge.report._tables import (
    blocks_table,
    boxes_table,
    drift_table,
    facts_table,
    plans_table,
    stages_table,
)
from onnx_layermerge.report._words import (
    STEPS,
    agreement,
    digits,
    duration,
    error,
    file_name,
    metric_name,
    ms,
    plain,
    recipe,
    reproduce,
    share,
    source_of,
    times,
)

__all__ = ["render_html"]

DATA_FREE = (
    "No samples were given, so there is no figure of what the result still gets right. Blocks and plans were ranked on "
    "noise: every loss and divergence on this page is one of noise."
)


def render_html(report: Report) -> str:
    """The page; everything on it is in ``report``, which may have come back from its JSON."""
    return document(
        f"{file_name(report.output)}: {times(report.speedup.ratio)}",
        STYLE,
        el("main", _head(report), _frontier(report), _network(report), _blocks(report), _outputs(report),
           _kept(report), _plans(report), _time(report), _reproduce(report)),
        el("footer", "olm ", report.keys.versions.get("onnx-layermerge", ""), " · every figure is from the run itself; "
           "what was not measured is not shown."),
    )  # fmt: skip


def _head(report: Report) -> Content:
    ratio = report.speedup
    source = source_of(report)
    big = el("div", times(ratio.ratio), el("small", "as fast"), cls="big")
    interval = el("p", f"95 % interval {ratio.low:.3f} to {ratio.high:.3f}, {source}")
    change = el(
        "p", el("b", f"{ms(ratio.a_s * 1e3)} ms → {ms(ratio.b_s * 1e3)} ms"), f" for one run, over {ratio.n} rounds"
    )
    tiles: list[tuple[str, str, str]] = [
        ("asked", times(report.asked), f"met by the lower end, {ratio.low:.3f}×"),
        (
            "predicted by the table",
            times(report.predicted),
            f"{100 * abs(error(report)):.1f} % {'above' if error(report) > 0 else 'below'} the measurement",
        ),
        (
            "convolutions",
            f"{report.convs_before} → {report.convs_after}",
            counted(len(report.blocks), "block") + " replaced",
        ),
        ("expected loss", digits(report.expected), "KL, Σ of each block alone"),
    ]
    if report.validation is not None:
        tiles.append(("divergence", digits(report.validation.kl), "KL of the outputs, held-out samples"))
    if (agreed := agreement(report)) is not None:
        tiles.append(("same answer", share(agreed), "top-1, held-out samples"))
    if report.metric is not None:
        values = f"{report.metric.original:.6g} → {report.metric.compressed:.6g}"
        tiles.append(("your metric", values, metric_name(report.metric.name)))
    return (
        el(
            "header",
            el("p", "olm compress", cls="eyebrow"),
            el("h1", plain(file_name(report.output))),
            el("p", "made from ", el("code", plain(report.input)), cls="note"),
            el("p", "on ", plain(report.device), cls="note"),
        ),
        el(
            "div",
            el("div", big, change, interval),
            el("figure", speed_strip(report)),
            cls="hero",
        ),
        el("dl", (el("div", el("dt", name), el("dd", value, el("small", more))) for name, value, more in tiles),
           cls="tiles"),
        (el("p", el("b", "Warning "), plain(text), cls="warning", role="note") for text in report.warnings),
    )  # fmt: skip


def _frontier(report: Report) -> Content:
    expected, built = frontier_chart(report), built_chart(report)
    if expected is None and built is None:
        return None
    figures = []
    if expected is not None:
        line = "Line: the frontier, predicted from blocks that were timed and judged one by one. "
        if report.points and report.drop_only:
            line += "Dashed: the same with drops alone. "
        line += (
            "Diamond: the chosen plan. Circles: plans that were built and not chosen, at the speed that was measured."
        )
        figures.append(el("figure", expected, el("figcaption", line)))
    if built is not None:
        words = "The same plans built: what they did to the outputs, before the chosen one's weights were finished."
        figures.append(el("figure", built, el("figcaption", words)))
    return el("section", el("h2", "Speed-up against loss"), el("div", figures, cls="pair"))


def _network(report: Report) -> Content:
    captions = {
        number: Caption(
            f"{number} · {recipe(block)} · −{ms(block.saving_ms)} ms",
            f"block {number}: {block.name}\n{ms(block.old_ms)} ms, saves {ms(block.saving_ms)} ms\n"
            f"alone it costs {digits(block.loss_alone)} (KL); {block.certificate}",
            f"#block-{number}",
        )
        for number, block in enumerate(report.blocks, 1)
    }
    drawn = beside(report.before, report.after, captions, report.refitted)
    heads = "before", "after"
    segments = [
        el("div", el("div", (el("span", head) for head in heads), cls="heads", aria_hidden="true"), svg)
        for svg in drawn.segments
    ]
    words = (
        "Top to bottom, left column before, right column after. Dashed orange was replaced, blue with a thick edge "
        "stands there now, grey was kept, long runs of it are folded"
    )
    words += "; a dashed blue edge is a kept convolution with refitted weights. " if report.refitted else ". "
    words += "In the boxes: kernel, channels in→out, s stride, d dilation, g groups, dw depthwise."
    left_out = [
        counted(count, what) for count, what in ((drawn.convs, "convolution"), (drawn.arcs, "connection")) if count
    ]
    if left_out:
        words += f" Not drawn: {', '.join(left_out)}."
    return el(
        "section", el("h2", "What changed in the network"), el("p", words, cls="note narrow"),
        el("div", segments, cls="nets"),
    )  # fmt: skip


def _blocks(report: Report) -> Content:
    words = (
        "Latencies are the table's for the block in its surroundings; what is saved is corrected by what whole plans "
        "gave in place, and “now” is the difference. Importance is what this block alone does to the outputs (KL). The "
        "fit's error is relative, on samples held out from that fit."
    )
    return el("section", el("h2", "Replaced blocks"), el("p", words, cls="note narrow"), blocks_table(report))


def _outputs(report: Report) -> Content:
    parts: list[Content] = [el("h2", "What it does to the outputs")]
    if report.validation is None:
        parts.append(el("p", DATA_FREE, cls="note narrow"))
    if report.outputs:
        parts.append(drift_table(report))
    if report.boxes is not None:
        parts.append(boxes_table(report.boxes))
    lines: list[str] = []
    if report.metric is not None:
        metric = report.metric
        lines.append(f"Your metric ({plain(metric.name)}): {metric.original:.6g} → {metric.compressed:.6g}.")
    if report.fits is not None:
        fits = report.fits
        lines.append(
            f"Fits: KL {digits(fits.fit_loss)} on {fits.samples} samples that they saw, {digits(fits.held_out_loss)} "
            "on held-out ones."
        )
    if report.fitted_on > report.judged_on:
        lines.append(
            f"The weights in the file were fitted on all {report.fitted_on} samples; what is said of the outputs here "
            f"is of fits on {report.judged_on}, which never saw the others."
        )
    parts += [el("p", line, cls="narrow") for line in lines]
    return el("section", parts)


def _kept(report: Report) -> Content:
    if not (report.recovery or report.refitted):
        return None
    words = "; ".join(STEPS.get(step, step) for step in report.recovery)
    first = f"After the blocks were replaced, {words}. " if words else ""
    others = "as they were once the model was prepared (norms and scales folded)"
    rest = f"Only inside of blocks: all other weights are {others}."
    if report.refitted:
        moved = counted(len(report.refitted), "kept convolution")
        rest = f"The weights of {moved} moved along, those of all others are {others}:"
    elif "finetune" in report.recovery:
        rest = "The training reached every layer, not only the blocks: no weight has to be what it was."
    return el(
        "section",
        el("h2", "Finishing the weights"),
        el("p", first + rest, cls="narrow"),
        el("ul", (el("li", plain(name), cls="mono") for name in report.refitted), cls="names")
        if report.refitted
        else None,
    )  # fmt: skip


def _plans(report: Report) -> Content:
    if not report.rejected:
        return None
    words = "Every plan that was built, the chosen one first. Divergence is measured before weights were finished."
    return el("section", el("h2", "Plans that were built"), el("p", words, cls="note narrow"), plans_table(report))


def _time(report: Report) -> Content:
    blocks = f"{report.timed_blocks} blocks were timed, {report.reused_blocks} read from the latency table."
    words = f"{duration(report)} in all. {blocks}"
    return el("section", el("h2", "Where the time went"), el("p", words, cls="note"), stages_table(report))


def _reproduce(report: Report) -> Content:
    command = reproduce(report)
    words = (
        "The same input, samples, latency table, seed and versions give the same bytes. Without the table blocks are "
        "timed again, and times differ a little between runs, so another plan may be chosen."
    )
    return el(
        "section",
        el("h2", "How to reproduce"),
        el("pre", el("code", plain(command))) if command else None,
        el("p", words, cls="note narrow"),
        facts_table(report),
    )
