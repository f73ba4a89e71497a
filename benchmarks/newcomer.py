"""The first hour of somebody who has a wheel, a model and a folder of images, and types what the tutorial says.

    python benchmarks/newcomer.py [--model FILE --images FOLDER] [--lines N] [--json FILE]

1. The wheel is built from this tree; a fresh folder gets it, the model as model.onnx and the images as images/.
2. The `bash` blocks of docs/tutorial.md are run there, line by line, in order, in one shell with nothing else from
   this checkout on its paths.  The tutorial's own line installs the wheel; just before it the locked dependencies go
   into the new environment (hashes checked; this needs a network or a cache of pip's), so that runs can be compared.
3. Each line's time is taken.  *First model* is the time from the start to the end of the first `olm compress`; with and
   without setting up.  The project wants at most `MOST_S` for the latter on two cores, for a small network.

Without --model, the digits network of examples/mnist is the model, and 300 digits are its images (they come from the
wheel that `make` installs).  Exit code 1 when a line fails or the first model comes too late.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
MOST_S = 300.0
IMAGES = 300
LOCKS = ("run", "images")

err = Console(stderr=True, highlight=False, soft_wrap=True)


def tutorial_lines() -> list[str]:
    """The commands of the bash blocks, in order, those over several lines joined, comments left out."""
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    text = "".join(re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    return [line for line in (each.strip() for each in text.splitlines()) if line and not line.startswith("#")]


def build_wheel(folder: Path) -> Path:
    """The wheel, made by pip and the build backend of this environment, without a network."""
    words = ["wheel", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words, str(ROOT)], check=True)
    (wheel,) = folder.glob("onnx_layermerge-*.whl")
    return wheel


def put_digits(folder: Path) -> None:
    """Images of the digits, as a folder of PNG."""
    from PIL import Image

    sys.path.insert(0, str(ROOT / "examples" / "mnist"))
    from data import calibration  # type: ignore[import-not-found]

    folder.mkdir()
    for number, sample in enumerate(islice(calibration(), IMAGES)):
        Image.fromarray((sample["image"][0, 0] * 255).round().astype("uint8")).save(folder / f"{number}.png")


def script(lines: list[str]) -> str:
    """A shell script that writes `seconds<TAB>exit code` for each line into times.tsv, and goes on after a failure."""
    locks = " ".join(f"-r '{ROOT / 'requirements' / name}.txt'" for name in LOCKS)
    text = ["cd \"$DESK\""]
    for line in lines:
        if line.startswith("pip install"):
            text.append(f"pip install --disable-pip-version-check -q --require-hashes {locks}")
        text += [f"{line}; code=$?", 'printf "%s\\t%s\\n" "$(date +%s.%N)" "$code" >> times.tsv']
    return "\n".join(text) + "\n"


def steps(desk: Path, lines: list[str], began_s: float) -> list[dict[str, Any]]:
    """What each line took and how it ended; lines that were not reached are missing."""
    found, last = [], began_s
    for line, told in zip(lines, (desk / "times.tsv").read_text(encoding="utf-8").splitlines(), strict=False):
        ended, code = told.split("\t")
        found.append({"line": line, "seconds": round(float(ended) - last, 1), "exit_code": int(code)})
        last = float(ended)
    return found


def first_model_s(found: list[dict[str, Any]]) -> tuple[float | None, float | None]:
    """Seconds up to the end of the first compress: all of them, and from the first olm on."""
    ends = [number for number, step in enumerate(found) if step["line"].startswith("olm compress")]
    if not ends or found[ends[0]]["exit_code"]:
        return None, None
    upto = found[: ends[0] + 1]
    first = next(number for number, step in enumerate(upto) if step["line"].startswith("olm "))
    return sum(step["seconds"] for step in upto), sum(step["seconds"] for step in upto[first:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="an ONNX model of your own; --images goes with it")
    parser.add_argument("--images", type=Path, help="a folder of images that it is made for")
    parser.add_argument("--lines", type=int, help="only the first N lines: a dry run, which writes no record")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "records" / "newcomer.json")
    options = parser.parse_args()
    if (options.model is None) != (options.images is None):
        parser.error("--model and --images go together")
    lines = tutorial_lines()[: options.lines]
    with tempfile.TemporaryDirectory(prefix="newcomer-") as name:
        desk = Path(name)
        err.print("building the wheel …")
        build_wheel(desk)
        shutil.copy(options.model or ROOT / "examples" / "mnist" / "resnet20.onnx", desk / "model.onnx")
        if options.images:
            shutil.copytree(options.images, desk / "images")
        else:
            put_digits(desk / "images")
        # Neither this checkout nor this environment is to be found from there.
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        here = str(Path(sys.executable).parent)
        path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != here)
        kept |= {"DESK": name, "PATH": path, "XDG_CACHE_HOME": str(desk / "cache")}
        kept.setdefault("PIP_CACHE_DIR", str(Path("~/.cache/pip").expanduser()))
        began_s = time.time()
        done = subprocess.run(["bash", "-c", script(lines)], env=kept)
        found = steps(desk, lines, began_s)
    whole_s, compress_s = first_model_s(found)
    show(found, whole_s, compress_s)
    failed = done.returncode != 0 or len(found) < len(lines) or any(step["exit_code"] for step in found)
    if options.lines is None:
        record = {
            "date": datetime.now(timezone.utc).date().isoformat(),
            "machine": {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
            "model": (options.model or Path("resnet20.onnx")).name,
            "first_model_s": compress_s,
            "first_model_with_setup_s": whole_s,
            "most_s": MOST_S,
            "steps": found,
        }
        options.json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    late = options.lines is None and (compress_s is None or compress_s > MOST_S)
    return int(failed or late)


def show(found: list[dict[str, Any]], whole_s: float | None, compress_s: float | None) -> None:
    table = Table("seconds", "exit", "line", title="The tutorial, typed")
    for step in found:
        table.add_row(f"{step['seconds']:.1f}", str(step["exit_code"]), escape(step["line"]))
    err.print(table)
    if compress_s is not None and whole_s is not None:
        err.print(f"first model after {compress_s:.0f} s, {whole_s:.0f} s with the set-up (wanted: {MOST_S:.0f} s)")


if __name__ == "__main__":
    sys.exit(main())
