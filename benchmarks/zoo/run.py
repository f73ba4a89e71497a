"""Look at every network of the zoo, write the record and the page; the fixtures of the test suite with --fixtures.

    python benchmarks/zoo/run.py [--only NAME …] [--exporters torchscript,dynamo,unfolded,shipped] [--compress]

For every network and exporter, each step in a process of its own:
1. **export** with torch into models/zoo/, unless the file is there (`--again` exports anew). Shipped models are taken
   from models/, which `make models` fills; what is not there is left out and said.
2. **inspect**: convolutions, legal blocks, refusals, seconds, memory; then the empty plan against the file.
3. **compress** (with --compress): 1.1× on random samples, and whether the file is what the plan says.

Rows of networks that are not run stay in the record as they were. The record is written after each step and the page
from it, so a crash loses one step at most. Exit code 1 when a step fails or does harm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# A new process inherits its parent's memory peak, so this one must stay small: no NumPy, no ONNX, no torch here.
from catalogue import ENTRIES, EXPORTERS, FIXTURES, MODELS, ROOT, SHIPPED, Entry
from page import render
from rich.console import Console

HERE = Path(__file__).resolve().parent
HARM = 1e-5
PACKAGES = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "torch")
Row = dict[str, Any]

err = Console(stderr=True, highlight=False, soft_wrap=True)


def spawn(script: str, arguments: list[str], answer: Path) -> Row:
    """Run a script beside this one; what it answered, or an error."""
    answer.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / script), *arguments, str(answer)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if answer.is_file():
        found: Row = json.loads(answer.read_text(encoding="utf-8"))
        return found
    return {"error": f"{script} ended with code {code} and no answer"}


def export(entry: Entry, exporters: list[str], into: Path, small: bool = False) -> None:
    """Ask torch for the files; what could not be exported is simply not there afterwards."""
    command = [sys.executable, str(HERE / "export.py"), entry.name, "--exporters", ",".join(exporters)]
    command += ["--into", str(into), *(["--small"] if small else [])]
    subprocess.run(command, cwd=ROOT, check=False)


def run_entry(entry: Entry, options: argparse.Namespace, scratch: Path) -> list[Row]:
    """One row for each exporter."""
    wanted = [exporter for exporter in entry.exporters if exporter in options.exporters]
    missing = [exporter for exporter in wanted if options.again or not entry.file(exporter).is_file()]
    if missing and not entry.shipped:
        export(entry, missing, MODELS)
    rows = []
    for exporter in wanted:
        path = entry.file(exporter)
        if not path.is_file():
            err.print(f"{entry.name}: {path.relative_to(ROOT)} is not there, and is left out")
            continue
        err.print(f"{entry.name}, {exporter}: inspect")
        spec = {"path": str(path.relative_to(ROOT)), "profile": str(MODELS / "profile.sqlite")}
        row: Row = {"name": entry.name, "title": entry.title, "exporter": exporter, "error": None}
        row["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        row |= spawn("examine.py", ["inspect", json.dumps(spec)], scratch / "answer.json")
        if options.compress and not row["error"]:
            err.print(f"{entry.name}, {exporter}: compress")
            if options.small:
                spec["path"] = str(small(entry, exporter))
            row["compressed"] = spawn("examine.py", ["compress", json.dumps(spec)], scratch / "answer.json")
            row["compressed"]["sizes"] = entry.small if options.small and not entry.shipped else entry.sample
        rows.append(row)
    return rows


def small(entry: Entry, exporter: str) -> Path:
    """The same network for smaller inputs: its widths and depth are whole, only the arithmetic is less."""
    folder = MODELS / "small"
    folder.mkdir(exist_ok=True)
    path = folder / entry.file(exporter).name
    if entry.shipped:
        return entry.file(exporter).relative_to(ROOT)
    if not path.is_file():
        export(entry, [exporter], folder, small=True)
    return path.relative_to(ROOT)


def merged(old: list[Row], new: list[Row]) -> list[Row]:
    """All rows in the order of the catalogue; a compression of the very same file is kept."""
    rows = {(row["name"], row["exporter"]): row for row in old}
    for row in new:
        before = rows.get((row["name"], row["exporter"]), {})
        if "compressed" not in row and before.get("sha256") == row["sha256"] and "compressed" in before:
            row["compressed"] = before["compressed"]
        rows[row["name"], row["exporter"]] = row
    order = [(entry.name, exporter) for entry in ENTRIES for exporter in entry.exporters]
    return [rows[key] for key in order if key in rows]


def harmed(row: Row) -> bool:
    """Whether a row holds what must not be."""
    found = row.get("compressed") or {}
    if row["error"] or found.get("error") or found.get("faults"):
        return True
    return not row["empty_plan"] <= HARM


def make_fixtures(entries: list[Entry], scratch: Path) -> int:
    """Write tests/zoo_models/*.onnx.gz and what is expected of them; how many failed."""
    expected_file = FIXTURES / "expected.json"
    expected = json.loads(expected_file.read_text(encoding="utf-8")) if expected_file.is_file() else {}
    failed = 0
    for entry in entries:
        if not entry.fixture:
            continue
        exporters = entry.exporters[:1] + (("dynamo",) if entry.dynamo_fixture else ())
        if not entry.shipped:
            export(entry, list(exporters), scratch, small=True)
        for exporter in exporters:
            name = f"{entry.name}.dynamo" if exporter == "dynamo" else entry.name
            path = entry.file(exporter) if entry.shipped else scratch / entry.file(exporter).name
            spec = json.dumps({"name": name, "path": str(path)})
            found = spawn("fixtures.py", [spec], scratch / "answer.json") if path.is_file() else {"error": "no file"}
            failed += "error" in found
            if "error" not in found:
                expected[name] = found
            err.print(f"{name}: {found}")
            path.unlink() if path.is_file() and not entry.shipped else None
    write(expected_file, json.dumps(dict(sorted(expected.items())), indent=1) + "\n")
    return failed


def machine() -> Row:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": (names or [platform.processor()])[0], "cores": os.cpu_count(), "system": platform.system()}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write(path: Path, text: str) -> None:
    """The whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [entry.name for entry in ENTRIES]
    parser.add_argument("--small", action="store_true", help="compress networks exported for smaller inputs")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--exporters", default=",".join((*EXPORTERS, SHIPPED)), help="default: %(default)s")
    parser.add_argument("--compress", action="store_true", help="also compress every file, which takes hours for all")
    parser.add_argument("--again", action="store_true", help="export anew what is there already")
    parser.add_argument("--record", type=Path, default=ROOT / "benchmarks/records/zoo.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/zoo.md")
    parser.add_argument("--fixtures", action="store_true", help="write the fixtures of the test suite, nothing else")
    options = parser.parse_args()
    options.exporters = options.exporters.split(",")
    unknown = set(options.exporters) - {*EXPORTERS, SHIPPED}
    if unknown:
        parser.error(f"--exporters knows {', '.join((*EXPORTERS, SHIPPED))}, not {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    options = options_of()
    entries = [entry for entry in ENTRIES if entry.name in options.only]
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        if options.fixtures:
            return 1 if make_fixtures(entries, Path(folder)) else 0
        rows = json.loads(options.record.read_text(encoding="utf-8"))["rows"] if options.record.is_file() else []
        made: list[Row] = []
        for entry in entries:
            new = run_entry(entry, options, Path(folder))
            made += new
            rows = merged(rows, new)
            record = {
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "machine": machine(),
                "versions": versions(),
                "rows": rows,
            }
            write(options.record, json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
            write(options.page, render(record))
    bad = [f"{row['name']}, {row['exporter']}" for row in made if harmed(row)]
    err.print(f"{len(made)} files; in {options.record}" + (f"; harm or failure: {'; '.join(bad)}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
