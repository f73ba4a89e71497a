"""The record of the zoo → docs/zoo.md."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

INTRODUCTION = """\
# The zoo

What `olm` makes of well-known networks, as exported by both of torch's exporters and as others ship them. This page is
generated: `make zoo` exports what is not there yet, looks at every file, writes `benchmarks/records/zoo.json` and this
page (`make zoo ZOO=--compress` also compresses every file, which takes hours).

The networks of `benchmarks/zoo/nets/` have their real widths and seeded random weights; BatchNorms have running
statistics that matter. **torchscript** and **dynamo** are torch's older and newer exporter; **unfolded** is the older
one with nothing folded, so that every BatchNormalization is still in the file; **shipped** files come from packages.

- **in blocks**: convolutions inside at least one legal block, of all convolutions. What lies outside, and why, stands
  below the table.
- **blocks**: how many replacements are legal, by recipe: nothing at all (drop), one fitted convolution (fit), an exact
  merge (merge), the same layers with fewer channels (width), two convolutions with few channels between (low-rank).
- **inspect**: seconds and additional memory of one `inspect`, beyond what the imports took; one process each.
- **empty plan**: largest difference between the outputs of the file and of what is written when nothing is replaced,
  relative to the output's largest magnitude, on random inputs. At most 1e-5 is asked for.
- **compressed**: asked for 1.1× on the processor with random samples, then checked: the ONNX checker, onnxruntime, the
  planned number of convolutions, and that nodes outside the plan have the same operator, attributes and weights, bit
  for bit. With random weights this shows that the work is sound, and nothing about accuracy.
"""
RECIPES = ("drop", "fit", "merge", "width", "low-rank")


def render(record: Row) -> str:
    """The whole page."""
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    machine = record["machine"]
    lines = [INTRODUCTION, f"{record['date'][:10]}, {machine['cpu']}, {machine['cores']} cores; {versions}.", ""]
    lines += table(record["rows"])
    lines += ["", "## What is left alone, and why", ""]
    lines += [line for title, rows in by_network(record["rows"]) for line in section(title, rows)]
    return "\n".join(lines).rstrip() + "\n"


def table(rows: list[Row]) -> list[str]:
    heads = (
        *("network", "exporter", "file", "nodes", "convs", "in blocks", "share"),
        *(*RECIPES, "inspect", "empty plan", "compressed"),
    )
    lines = ["| " + " | ".join(heads) + " |", "| --- | --- |" + " ---: |" * (len(heads) - 3) + " --- |"]
    last = ""
    for row in rows:
        title, last = ("" if row["title"] == last else row["title"]), row["title"]
        lines.append("| " + " | ".join((title, row["exporter"], *cells(row))) + " |")
    return lines


def cells(row: Row) -> tuple[str, ...]:
    if row.get("error"):
        return (f"**{row['error']}**", *[""] * 12)
    return (
        f"{row['file_mb']:.0f} MB",
        str(row["nodes"]),
        str(row["convs"]),
        str(row["covered"]),
        f"{row['covered'] / row['convs']:.0%}",
        *(str(row["blocks"].get(recipe, 0)) for recipe in RECIPES),
        f"{row['inspect_s']:.1f} s, {row['peak_mb']:.0f} MB",
        f"{row['empty_plan']:.0e}" if row["empty_plan"] else "0",
        compressed(row.get("compressed")),
    )


def compressed(found: Row | None) -> str:
    if found is None:
        return "not run"
    if found.get("error"):
        return f"**{found['error']}**"
    if found.get("unreachable"):
        return found["unreachable"]
    said = f"{found['speedup']:.2f}×, {found['convs_after']} convs"
    if found.get("sizes"):
        said += f" ({', '.join('×'.join(map(str, size[1:])) for size in found['sizes'].values() if len(size) > 1)})"
    return f"{said}, **{len(found['faults'])} faults**" if found["faults"] else said


def by_network(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    titles = dict.fromkeys(row["title"] for row in rows)
    return [(title, [row for row in rows if row["title"] == title]) for title in titles]


def section(title: str, rows: list[Row]) -> list[str]:
    """One network; exporters that differ in nothing share a paragraph."""
    lines = [f"### {title}", ""]
    said: dict[str, list[str]] = {}
    for row in rows:
        if not row.get("error"):
            said.setdefault(explanation(row), []).append(row["exporter"])
    for text, exporters in said.items():
        lines.append(f"- *{', '.join(exporters)}*: {text}")
    for row in rows:
        lines += [f"- **{row['exporter']}**: {fault}" for fault in (row.get("compressed") or {}).get("faults", ())]
    return [*lines, ""]


def explanation(row: Row) -> str:
    outside = row["convs"] - row["covered"]
    if outside:
        reasons = "; ".join(f"{count} × {what}" for what, count in row["shortfall"].items())
        head = f"{outside} of {row['convs']} convolutions in no legal block: {reasons}."
    else:
        head = f"all {row['convs']} convolutions lie in legal blocks."
    barred = ", ".join(f"{count} {op} ({reason})" for op, reason, count in row["refusals"])
    return f"{head} Refused: {barred}." if barred else head

