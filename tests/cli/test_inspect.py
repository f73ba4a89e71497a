"""``olm inspect``: text and JSON say the same, tables fit, and a picture appears whole or not at all."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests import zoo

WIDTH = 100


@pytest.fixture
def wordy(tmp_path: Path) -> Path:
    """Chains, barriers of several reasons, a convolution in no block, and names that fit into no table."""
    net = zoo.Net()
    value = net.input(shape=("N", 4, 8, 8))
    for number in range(4):
        prefix = f"/a/rather/long/path/that/exporters/write/blocks.{number}/and/so/on/for/ever/and/ever"
        value = net.relu(net.conv(value, f"{prefix}/Conv", 4), f"{prefix}/Relu")
    last = net.conv(value, "pointwise", 1, 1, stride=2, pads=0)
    path = tmp_path / "wordy.onnx"
    net.save(path, *(net.classifier(last, f"scores{number}") for number in range(3)), value)
    return path


def as_json(run: Any, *words: object) -> Any:
    result = run("inspect", *words, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def section(text: str, start: str) -> list[str]:
    """The rows of the table under the title that begins with ``start``, without its header."""
    lines = text.split("\n")
    begin = next(number for number, line in enumerate(lines) if line.startswith(start))
    end = lines.index("", begin)
    return lines[begin + 2 : end]


def test_text_and_json_say_the_same(wordy: Path, run: Any) -> None:
    found = as_json(run, wordy)
    text = run("inspect", wordy, "--all", "-q").stdout
    assert f"{found['nodes']} nodes, {found['convs']} convolutions, {found['covered']} of them replaceable" in text
    layers = [layer for chain in found["chains"] for layer in chain["layers"]]
    rows = section(text, "Layers in")
    assert [row.split()[2] for row in rows] == [layer["node"] for layer in layers]
    held = [sum(layer["node"] in b["convs"] for c in found["chains"] for b in c["blocks"]) for layer in layers]
    assert [int(row.split()[-1]) for row in rows] == held and max(held) > 1

    counts = {row.split()[0]: [int(n) for n in row.split()[1:3]] for row in section(text, "Legal blocks:")}
    assert {recipe: both[1] for recipe, both in counts.items()} == found["blocks"]
    blocks = [(number, b) for number, chain in enumerate(found["chains"], 1) for b in chain["blocks"]]
    numbers = {layer["node"]: number for number, layer in enumerate(layers, 1)}
    shown = [tuple(row.split()[:6]) for row in section(text, "Every block")]
    assert found["legal_blocks"] == len(blocks) == len(shown)
    for number, block in blocks:
        first, last = numbers[block["first"]], numbers[block["last"]]
        span = str(first) if first == last else f"{first}–{last}"
        drop = "yes" if block["variants"]["drop"] else "–"
        row = (str(number), span, str(len(block["convs"])), block["begin_op"], block["end_op"], drop)
        assert row in shown

    named = [row.split(maxsplit=2) for row in section(text, "Left alone:")]
    assert named == [[r["node"], r["op_type"], r["reason"]] for r in found["refusals"]]
    assert {"Conv", "Gemm"} <= {operator for _, operator, _ in named}


def test_refusals_are_grouped_by_reason(wordy: Path, run: Any) -> None:
    refusals = as_json(run, wordy)["refusals"]
    text = run("inspect", wordy, "-q").stdout
    rows = [row for row in section(text, f"Left alone: {len(refusals)}") if row[:5].strip().isdigit()]
    counts = [int(row.split()[0]) for row in rows]
    assert counts == sorted(counts, reverse=True) and sum(counts) == len(refusals) > len(rows)
    (heads,) = (row for row in rows if "fully connected" in row)
    assert heads.split()[:2] == ["3", "Gemm"] and heads.endswith("scores0")
    assert "(--all names every node)" in text


def test_tables_fit_and_only_all_leaves_long_names_whole(wordy: Path, run: Any, tmp_path: Path) -> None:
    name = "blocks.3/and/so/on/for/ever/and/ever/Conv"
    short, whole = (run("inspect", wordy, "-q", *words).stdout.replace(str(tmp_path), "") for words in ((), ("--all",)))
    assert max(map(len, short.split("\n"))) <= WIDTH
    assert f"/exporters/write/{name}" in whole and f"/exporters/write/{name}" not in short
    assert "…" in short and "ever/and/ever/Conv" in short
    assert "\x1b" not in short


def test_lists_are_cut_with_a_hint(model: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = as_json(run, model)["legal_blocks"]
    text = run("inspect", model, "-q").stdout
    assert f"... and {blocks - 1} inside them (--all shows them)" in text
    monkeypatch.setattr("olm.commands.inspect.MOST_REASONS", 1)
    assert "... and 2 more (--all shows them)" in run("inspect", model, "-q").stdout


def test_a_name_cannot_command_the_terminal(model: Path, run: Any) -> None:
    proto = onnx.load(model)
    proto.graph.node[0].name = "evil\x1b[2J\nname"
    onnx.save(proto, model)
    for words in ((), ("--all",)):
        result = run("inspect", model, "-q", *words)
        assert "evil\ufffd[2J\ufffdname" in result.stdout and "\x1b" not in result.stdout


def test_keys_of_the_json_are_sorted_and_stable(model: Path, run: Any) -> None:
    first, again = (run("inspect", model, "--json", "-q").stdout for _ in range(2))
    assert first == again
    pairs = json.loads(first, object_pairs_hook=lambda items: items)
    assert [key for key, _ in pairs] == sorted(key for key, _ in pairs)


def test_the_documented_keys_are_those_of_the_json(model: Path, run: Any) -> None:
    page = (Path(__file__).parents[2] / "docs" / "inspect.md").read_text(encoding="utf-8")
    found = as_json(run, model)
    block = found["chains"][0]["blocks"][0]
    for key in {*found, *block, *found["chains"][0]["layers"][0], *found["refusals"][0]}:
        assert f"`{key}`" in page or f"`{key}[]" in page, key


def test_the_picture(model: Path, run: Any) -> None:
    target = model.with_name("net.svg")
    result = run("inspect", model, "--svg", target, "-q")
    assert result.exit_code == 0 and result.stdout.endswith(f"drawn in {target}\n")
    first = target.read_bytes()
    assert ET.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"
    assert as_json(run, model, "--svg", target)["convs"] == 5
    assert target.read_bytes() == first


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("missing/net.svg", "does not exist"),
        ("folder.svg", "is a directory"),
        ("in.onnx", "not a .svg file"),
        ("net", "not a .svg file"),
        ("link.svg", "is the input itself"),
    ],
)
def test_bad_targets_of_the_picture(target: str, words: str, model: Path, run: Any) -> None:
    folder = model.parent
    (folder / "folder.svg").mkdir()
    (folder / "link.svg").symlink_to(model)
    before = {path.name for path in folder.iterdir()}, model.read_bytes()
    result = run("inspect", model, "--svg", folder / target, "-q")
    assert result.exit_code == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and line.endswith(".") and words in line
    assert ({path.name for path in folder.iterdir()}, model.read_bytes()) == before
