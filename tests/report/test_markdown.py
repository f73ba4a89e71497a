"""The summary: tables that are tables, and names that stay names."""

from __future__ import annotations

import dataclasses
import re

from onnx_layermerge.report import render_markdown
from tests.report import made


def tables(text: str) -> list[list[str]]:
    """Runs of lines that begin with a bar."""
    found: list[list[str]] = [[]]
    for each in text.splitlines():
        if each.startswith("|"):
            found[-1].append(each)
        elif found[-1]:
            found.append([])
    return [rows for rows in found if rows]


def cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row)) - 1


def test_it_holds_headline_blocks_warnings_and_the_command() -> None:
    text = render_markdown(made.everything())
    assert text.startswith("## out.onnx: 1.50× as fast\n")
    for part in ("1.470 to 1.530", "| asked | 1.40× |",
                 "| 1 | `b … c` | one fitted convolution | 1.00 | 0.750 | 0.250 |",
                 "> **Warning** give more samples", "| mine.py:accuracy | 0.871 → 0.869 |", "90.0 % / 92.8 %",
                 "```sh\nolm compress models/in.onnx out.onnx --speedup 1.4 --calib 'my images'\n```",
                 "seed 7"):  # fmt: skip
        assert part in text, part


def test_rows_have_as_many_cells_as_their_heads() -> None:
    names = made.blocks("a|b`c")
    found = tables(render_markdown(made.report(blocks=names, output="x|y.onnx", warnings=("a | b",))))
    assert [len(rows) for rows in found] == [8, 4]
    for rows in found:
        assert {cells(row) for row in rows} == {cells(rows[0])}


def test_names_are_no_markup() -> None:
    evil = dataclasses.replace(made.everything(), output=made.EVIL, device=made.EVIL, warnings=("*b* @me [x](y)\n# h",))
    text = render_markdown(evil)
    assert not re.search(r"(?<!\\)<script", text.replace("`", ""))
    assert "\\*b\\* &#64;me \\[x\\](y) \\# h" in text


def test_without_data_there_is_no_figure_of_the_outputs() -> None:
    text = render_markdown(made.report(validation=None, command=(), warnings=()))
    assert "divergence" not in text and "same top-1" not in text and "Reproduce" not in text and "Warning" not in text


def test_long_plans_are_cut_and_that_is_said() -> None:
    many = tuple(dataclasses.replace(made.blocks()[0], name=str(number)) for number in range(53))
    text = render_markdown(made.report(blocks=many))
    assert "### Replaced: 53" in text and "… and 13 more." in text
