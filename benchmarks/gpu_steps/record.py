"""What is kept between the runs of the check, and what of it is this run's."""

from __future__ import annotations

import datetime
import gzip
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpu_steps.page import render

__all__ = ["Record"]

Row = dict[str, Any]


class Record:
    """What is known of one device so far: a JSON file, its tables, and all samples.

    ``old`` is the device of a record that was found here and is of another one, with the name that its file has now.
    """

    def __init__(self, folder: Path, on_cpu: bool, device: str) -> None:
        name = "gpu_check_cpu" if on_cpu else "gpu_check"
        folder.mkdir(parents=True, exist_ok=True)
        self._base, self.path, self._page = folder / name, folder / f"{name}.json", folder / f"{name}.md"
        self._samples_path = folder / f"{name}.samples.json.gz"
        self._title = "Timing harness on the CPU (onnxruntime): nothing here ran on a GPU" if on_cpu else "GPU check"
        self.parts: dict[str, dict[str, Row]] = {}
        self.old: tuple[str, str] | None = None
        self._samples: Row = {}
        self._device = device
        self._new: list[tuple[str, str]] = []
        if self.path.exists():
            known = json.loads(self.path.read_text(encoding="utf-8"))
            if known["device"] != device:
                self.old = known["device"] or "a device without a name", self._set_aside()
                return
            self.parts = known["parts"]
            if self._samples_path.exists():
                self._samples = json.loads(gzip.decompress(self._samples_path.read_bytes()))

    def put(self, part: str, name: str, found: Row, samples: Row) -> None:
        """Write all again, so that a crash loses one step at most."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.parts.setdefault(part, {})[name] = {**found, "date": now}
        self._new.append((part, name))
        self._samples.pop(f"{part}: {name}", None)
        if samples:
            self._samples[f"{part}: {name}"] = samples
        record = {"title": self._title, "date": now, "device": self._device, "parts": self.parts}
        self.path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        self._page.write_text(render(record), encoding="utf-8")
        data = json.dumps(self._samples).encode()
        self._samples_path.write_bytes(gzip.compress(data, mtime=0))

    def drop(self, part: str, name: str) -> None:
        """Forget what an earlier run said; the files follow with the next `put`."""
        self.parts.get(part, {}).pop(name, None)

    def missed(self, parts: Iterable[str]) -> list[tuple[str, str, str]]:
        """Of what was put since this was opened: part, backend, what missed a bound; and each part that put nothing."""
        new = dict.fromkeys(self._new)
        found = [(part, name, text) for part, name in new for text in self.parts[part][name]["missed"]]
        ran = {part for part, _ in new}
        return [*found, *((part, "", "did not run on any backend") for part in parts if part not in ran)]

    def _set_aside(self) -> str:
        """Rename the three files, over nothing; the new name of the first."""
        numbers = itertools.count(2)
        old = "old"
        while self._base.with_suffix(f".{old}.json").exists():
            old = f"old{next(numbers)}"
        for path in (self.path, self._page, self._samples_path):
            if path.exists():
                path.rename(path.with_name(path.name.replace(self._base.name, f"{self._base.name}.{old}", 1)))
        return f"{self._base.name}.{old}.json"
