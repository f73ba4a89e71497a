"""Which rows there are, and where their records lie.  No heavy import here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import ROOT

__all__ = [
    *("DEFAULT_STEPS", "DEVICES", "FOLDER", "HELD_OUT", "ROWS", "TABLES", "Line", "Table"),
    *("file_of", "importance_steps", "known", "load_all"),
]

FOLDER = ROOT / "benchmarks/records/training"
# Where trainings run.  Plans are made for the processor, and speed-ups are its own, wherever that is.
DEVICES = ("cpu", "cuda")
# Of the calibration samples, what every call of a table is given as `--val`; nothing is fitted to these or learns from
# them.
HELD_OUT = {"share": 0.25, "seed": 0}
# Of `--importance-steps`.
DEFAULT_STEPS = 20
Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A row of a table.

    ``method`` is `olm compress`'s.  ``training``: "none"; "merged", "unmerged" or "norms" by `olm finetune` on the
    file of the same method without training; "whole" by `olm compress --finetune`.
    """

    title: str
    method: str
    training: str

    @property
    def base(self) -> str | None:
        """The row whose file is trained on."""
        return self.method if self.training in ("merged", "unmerged", "norms") else None


ROWS = {
    "olm": Line("ours, no training (`olm compress`)", "olm", "none"),
    "olm+finetune": Line("ours, then `olm finetune`", "olm", "merged"),
    "olm+unmerged": Line("ours, then `olm finetune --unmerged`", "olm", "unmerged"),
    "layermerge": Line("the paper's merges, no training (`--method layermerge`)", "layermerge", "none"),
    "layermerge+finetune": Line("the paper's merges, then `olm finetune`", "layermerge", "merged"),
    "layermerge+unmerged": Line("the paper's merges, then `olm finetune --unmerged`", "layermerge", "unmerged"),
    "layermerge+norms": Line("the paper's merges, then `olm finetune --unmerged --norms`", "layermerge", "norms"),
    "layermerge-whole": Line("the paper's method (`--method layermerge --finetune`)", "layermerge", "whole"),
    "depth-whole": Line("the paper's depth baseline (`--method depth --finetune`)", "depth", "whole"),
    "layeronly-whole": Line("the paper's layer baseline (`--method layeronly --finetune`)", "layeronly", "whole"),
}


@dataclass(frozen=True)
class Table:
    """A network's speed-ups and rows.

    ``minutes`` of CPU a training may take.  ``samples`` of calibration, for compression and training alike.
    ``importance_steps`` of each block's short training in the rows of "whole", on a processor; ``why_steps`` they are
    not the default.
    """

    speedups: tuple[float, ...]
    rows: tuple[str, ...]
    minutes: float
    samples: int
    importance_steps: int = DEFAULT_STEPS
    why_steps: str = ""


TABLES = {
    "resnet20": Table((1.5, 2.0), tuple(ROWS), 2, 1024),
    # Beside the paper's method, at equal minutes, is its plan without importance, trained unmerged.
    "lite0": Table(
        (1.3, 1.6),
        ("olm", "olm+finetune", "layermerge", "layermerge+unmerged", "layermerge-whole"),
        10,
        1024,
        1,
        "two took 22 to 24 s of CPU a block, and there are a hundred blocks and more",
    ),
}


def importance_steps(network: str, device: str) -> int:
    """Steps of each block's short training; what the table has instead of the default is for want of CPU minutes."""
    return TABLES[network].importance_steps if device == "cpu" else DEFAULT_STEPS


def file_of(network: str, speedup: float, row: str, minutes: float, device: str = "cpu") -> Path:
    """Where the record lies; a row without training is the same for all minutes and devices."""
    parts = [network, f"{speedup:g}", row]
    if ROWS[row].training != "none":
        parts += [f"{minutes:g}min", *([] if device == "cpu" else [device])]
    return FOLDER / ("-".join(parts) + ".json")


def known(place: Path) -> Row | None:
    """The record that lies there, if it is one of a row that came to its end."""
    if not place.is_file():
        return None
    found: Row = json.loads(place.read_text(encoding="utf-8"))
    # That a method cannot reach a speed-up (4), or that there is nothing to do, is a result; what broke off is none.
    return found if found.get("scores") or found.get("exit_code") == 4 or found.get("nothing") else None


def load_all(folder: Path = FOLDER) -> list[Row]:
    """All records, in the order of their names."""
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]
