"""What each block cost in a short training, in a file: written whole after every entry, read from several at once.

So an interrupted run loses one block, and shards that ran on several machines are put together by naming their files.
What another process wrote meanwhile is kept, as far as it was there when the file was read, just before it is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.errors import DataError, UsageError
from onnx_layermerge.graph import check_target, write_bytes
from onnx_layermerge.importance import Divergence

__all__ = ["Entry", "ImportanceFiles", "open_files"]

FORMAT = "olm-importance-1"


@dataclass(frozen=True)
class Entry:
    """One block after its training at ``rate``: divergence of the outputs, and ``gain``, the performance minus the
    original's (−∞ where the outputs are not finite); ``untrained`` is the KL before.  ``structure`` is the candidate's.
    """

    structure: str
    divergence: Divergence
    gain: float
    untrained: float
    rate: float


@dataclass(eq=False)
class ImportanceFiles:
    """Entries by candidate key; new ones go into ``path`` (None: nowhere), with those that it has already."""

    path: Path | None
    fingerprint: Mapping[str, str]
    known: dict[str, Entry] = field(default_factory=dict)
    own: dict[str, Entry] = field(default_factory=dict)

    def get(self, candidate: Candidate) -> Entry | None:
        """The candidate's entry, if there is one of the same structure."""
        entry = self.known.get(candidate.key)
        return entry if entry is not None and entry.structure == candidate.structure else None

    @property
    def rate(self) -> float | None:
        """The rate that all entries were trained at."""
        return next((entry.rate for entry in self.known.values()), None)

    def take(self, path: Path, entries: Mapping[str, Entry]) -> None:
        """Know the entries of the file at ``path`` too; those of a key that is known stay.

        Raises:
            DataError: they were trained at another rate: losses could not be compared.
        """
        rates = sorted({entry.rate for entry in (*self.known.values(), *entries.values())})
        if len(rates) > 1:
            shown = " and ".join(f"{rate:g}" for rate in rates)
            raise DataError(
                f"{path} has scores of another rate than those beside it ({shown}), and they do not compare: train all "
                "parts with one --importance-lr, into new files."
            )
        self.known = {**entries, **self.known}
        if path == self.path:
            self.own = {**entries, **self.own}

    def add(self, key: str, entry: Entry) -> None:
        """
        Raises:
            OutputError: the file cannot be written.
            DataError: another process has put something else there.
        """
        self.known[key] = self.own[key] = entry
        if self.path is not None:
            if self.path.exists():
                self.take(self.path, _read(self.path, self.fingerprint))
            self._write(self.path)

    def begin(self) -> None:
        """Write the file where there is none: a part without blocks has one as well.

        Raises:
            OutputError: the file cannot be written.
        """
        if self.path is not None and not self.path.exists():
            self._write(self.path)

    def _write(self, path: Path) -> None:
        entries = {name: _told(each) for name, each in sorted(self.own.items())}
        told = {"format": FORMAT, "of": dict(self.fingerprint), "entries": entries}
        write_bytes(path, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())


def open_files(paths: Sequence[Path], fingerprint: Mapping[str, str], taken: Sequence[Path]) -> ImportanceFiles:
    """Those of ``paths`` that are there; the first one, there or not, is what is added to.  ``taken`` are files that
    the run reads or writes for something else.

    Raises:
        OutputError: the first cannot be written.
        UsageError: it is one of ``taken``.
        DataError: one is no such file, or was made with something else than ``fingerprint`` says, or at another rate
            than the others.
    """
    found = ImportanceFiles(paths[0] if paths else None, fingerprint)
    if paths:
        check_target(paths[0])
        if any(paths[0].resolve() == other.resolve() for other in taken):
            raise UsageError(f"--importance {paths[0]} is a file that this run works with; choose another.")
    for number, path in enumerate(paths):
        if number == 0 and not path.exists():
            continue
        found.take(path, _read(path, fingerprint))
    return found


def _read(path: Path, fingerprint: Mapping[str, str]) -> dict[str, Entry]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError("another format")
        of = {str(name): str(value) for name, value in told["of"].items()}
        entries = {str(key): _entry(each) for key, each in told["entries"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is no file of --importance ({reason}); name another.") from error
    other = [name for name in {**fingerprint, **of} if fingerprint.get(name) != of.get(name)]
    if other:
        raise DataError(
            f"{path} is of another run ({', '.join(sorted(other))} differ): give what it was made with, or another "
            "--importance."
        )
    return entries


def _entry(told: Mapping[str, Any]) -> Entry:
    agreement = math.nan if told["agreement"] is None else float(told["agreement"])
    apart = Divergence(_number(told["kl"]), _number(told["relative"]), agreement)
    gain = -math.inf if told["gain"] is None else float(told["gain"])
    return Entry(str(told["structure"]), apart, gain, _number(told["untrained"]), float(told["rate"]))


def _told(entry: Entry) -> dict[str, Any]:
    """JSON has no infinity: null is what is infinitely far, and gains infinitely little."""
    apart = entry.divergence
    numbers = {"gain": entry.gain, "untrained": entry.untrained, "kl": apart.kl, "relative": apart.relative}
    agreement = None if math.isnan(apart.agreement) else apart.agreement
    return {
        "structure": entry.structure,
        **{name: number if math.isfinite(number) else None for name, number in numbers.items()},
        "agreement": agreement,
        "rate": entry.rate,
    }


def _number(told: Any) -> float:
    return math.inf if told is None else float(told)
