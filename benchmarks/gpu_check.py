"""What a GPU is good for here, and whether its timings can be trusted; every step in a process with a time limit.

    python benchmarks/gpu_check.py [--only PART]… [--backend NAME]… [--precision fp16] [--model NAME]… [--out FOLDER]

Parts, in this order (all of them unless --only says which):

1. **backends**: what runs, and the one-line reason of what does not;
2. **drivers**: the contract tests of cuda-python and pycuda on this GPU (pytest; said where it is missing);
3. **repeat**: 20 block shapes, the interval of each at most 1 %, again in a second process within 2 %;
4. **additivity**: a chain of 8 blocks against 8 times one, within 5 %; a replayed graph against work enqueued anew;
   warm against cold second-level cache; clocks and what slows them, before and after;
5. **flow**: profile, compress at 1.3× and verify EfficientNet-Lite0 and ResNet-34 with every usable backend.

Each part fits into nine minutes for one --backend, ``flow`` for one --model besides; what does not is said to be left.
Parts that were run before stay in the record, gpu_check.json, beside which lie all samples (gpu_check.samples.json.gz)
and the tables (gpu_check.md).

Exit code 0: all bounds kept; 1: one missed, or a step failed; 5: there is no GPU.  ``--device cpu`` runs repeat and
additivity with onnxruntime on the CPU, into gpu_check_cpu.*: a check of this script, and no figure of any GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gzip
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

from gpu_steps import judge  # noqa: E402
from gpu_steps.flow import MODELS, contract_tests, run, whole_flow  # noqa: E402
from gpu_steps.page import render  # noqa: E402

PARTS = ("backends", "drivers", "repeat", "additivity", "flow")
ON_CPU = ("repeat", "additivity")
PART_S = 540.0
LEAST_S = 10.0
NO_GPU = 5
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu to check this script")
    parser.add_argument("--backend", action="append", help="those that open here, if none is named")
    parser.add_argument("--precision", help="fp16 on a GPU, fp32 on the CPU, if none is named")
    parser.add_argument("--model", action="append", choices=tuple(MODELS))
    parser.add_argument("--shapes", type=int, default=20, help="block shapes to time")
    parser.add_argument("--seconds", type=float, default=PART_S, help="wall seconds for each part")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.job:
        return answer(json.loads(words.job), words.answer)
    on_cpu = words.device == "cpu"
    if not on_cpu and not gpus():
        print("No NVIDIA GPU is visible here (libcuda.so.1 finds none); --device cpu checks the harness without one.")
        return NO_GPU
    parts = words.only or (ON_CPU if on_cpu else PARTS)
    if on_cpu and set(parts) - set(ON_CPU):
        parser.error(f"--device cpu runs {' and '.join(ON_CPU)} only")
    words.precision = words.precision or ("fp32" if on_cpu else "fp16")
    record = Record(words.out, on_cpu)
    for part in parts:
        Part(part, words, record).run()
    missed = [f"{part} {name}: {text}" for part, name, text in record.missed(parts)]
    for text in missed:
        print("missed:", text)
    print(f"{record.path}: {'bounds missed: ' + str(len(missed)) if missed else 'all bounds kept'}")
    return int(bool(missed))


def gpus() -> int:
    """GPUs that the driver shows to this process; needs no Python package."""
    try:
        library = ctypes.CDLL("libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def answer(words: Row, path: Path) -> int:
    """Be the process of one job."""
    from gpu_steps.jobs import JOBS

    path.write_text(json.dumps(JOBS[words["job"]](words)), encoding="utf-8")
    return 0


class Part:
    """One part of the check, for every backend that it is to run on; what comes of it goes into the record at once."""

    def __init__(self, name: str, words: argparse.Namespace, record: Record) -> None:
        self.name, self.words, self.record = name, words, record
        self.stop_s = time.monotonic() + words.seconds

    def run(self) -> None:
        print(f"{self.name} …", flush=True)
        if self.name == "backends":
            self.record.put(self.name, "", self.backends(), {})
        elif self.name == "drivers":
            with tempfile.TemporaryDirectory() as folder:
                self.record.put(self.name, "", judge.drivers(contract_tests(Path(folder), self.left_s())), {})
        elif self.name == "flow":
            self.flow()
        else:
            for backend in self.usable():
                print(f"  {backend}, {self.words.precision}", flush=True)
                found, samples = self.repeat(backend) if self.name == "repeat" else self.additivity(backend)
                self.record.put(self.name, f"{backend}, {self.words.precision}", found, samples)

    def backends(self) -> Row:
        found = self.job("backends")
        if "failure" in found:
            nothing: Row = {"lines": [], "opens": {}, "usable": [], "engine_validity": {}, "versions": {}, "python": ""}
            device = {"reason": found["failure"], "clocks": ""}
            return {**nothing, "device": device, "missed": [found["failure"]], "ok": False}
        return {**found, **judge.backends(found["opens"])}

    def repeat(self, backend: str) -> tuple[Row, Row]:
        first = self.job("repeat", backend=backend)
        second = self.job("repeat", backend=backend, seed=1)
        failure = first.get("failure") or second.get("failure")
        if failure:
            return failed(failure), {}
        samples = {"first process": first.pop("samples"), "second process": second.pop("samples")}
        found = {**first, **judge.repeat(first["rows"], second["rows"])}
        found["warnings"] = list(dict.fromkeys([*first["warnings"], *second["warnings"]]))
        return found, samples

    def additivity(self, backend: str) -> tuple[Row, Row]:
        from gpu_steps.shapes import CHAIN

        found = self.job("additivity", backend=backend, shapes=min(self.words.shapes, 6))
        if "failure" in found:
            return failed(found["failure"]) | {"ways": []}, {}
        samples = found.pop("samples")
        return {**found, **judge.additivity(found["rows"], CHAIN)}, samples

    def flow(self) -> None:
        folder = self.words.out / "gpu_check_flow"
        folder.mkdir(parents=True, exist_ok=True)
        for model in self.words.model or MODELS:
            for backend in self.usable():
                print(f"  {model}, {backend}, {self.words.precision}", flush=True)
                words = self.words
                steps = whole_flow(model, backend, words.device, words.precision, folder, self.left_s())
                self.record.put("flow", f"{model}, {backend}, {words.precision}", judge.flow(steps), {})

    def usable(self) -> list[str]:
        """Backends that open here in this precision, from the record where the part ``backends`` was run before."""
        if self.words.device == "cpu":
            return ["onnxruntime"]
        if self.words.backend:
            return list(self.words.backend)
        known = self.record.parts.get("backends", {}).get("") or self.backends()
        return [name for name, reasons in known["opens"].items() if reasons.get(self.words.precision) == ""]

    def left_s(self) -> float:
        return max(1.0, self.stop_s - time.monotonic())

    def job(self, name: str, **words: Any) -> Row:
        """What a job answered, or a failure with its last words."""
        if self.left_s() < LEAST_S:
            return {"failure": f"{name}: not begun, the {self.words.seconds:.0f} s of this part were used up"}
        plain = {"device": self.words.device, "precision": self.words.precision, "shapes": self.words.shapes}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "answer.json"
            job = json.dumps({**plain, **words, "job": name})
            command = [sys.executable, str(Path(__file__).resolve()), "--job", job, "--answer", str(path)]
            code, _, said = run(command, self.left_s())
            if code == 0 and path.exists():
                found: Row = json.loads(path.read_text(encoding="utf-8"))
                return found
        return {"failure": f"{name}: {said or f'ended with code {code}'}"}


def failed(reason: str) -> Row:
    """A part that came to nothing."""
    return {"rows": [], "missed": [reason], "ok": False, "key": "", "clocks": [], "clocks_missing": "", "warnings": []}


class Record:
    """What is known of this device so far: a JSON file, its tables, and all samples."""

    def __init__(self, folder: Path, on_cpu: bool) -> None:
        name = "gpu_check_cpu" if on_cpu else "gpu_check"
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._page = folder / f"{name}.json", folder / f"{name}.md"
        self._samples_path = folder / f"{name}.samples.json.gz"
        self._title = "Timing harness on the CPU (onnxruntime): nothing here ran on a GPU" if on_cpu else "GPU check"
        self.parts: dict[str, dict[str, Row]] = {}
        self._samples: Row = {}
        self._device = platform.processor() or platform.machine() if on_cpu else ""
        if self.path.exists():
            known = json.loads(self.path.read_text(encoding="utf-8"))
            self.parts, self._device = known["parts"], known["device"]
            if self._samples_path.exists():
                self._samples = json.loads(gzip.decompress(self._samples_path.read_bytes()))

    def put(self, part: str, name: str, found: Row, samples: Row) -> None:
        """Write all again, so that a crash loses one step at most."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.parts.setdefault(part, {})[name] = {**found, "date": now}
        if samples:
            self._samples[f"{part}: {name}"] = samples
        device = found.get("device", {})
        if part == "backends" and "name" in device:
            self._device = f"{device['name']}, compute capability {device['capability']}, {device['driver']}"
        record = {"title": self._title, "date": now, "device": self._device, "parts": self.parts}
        self.path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        self._page.write_text(render(record), encoding="utf-8")
        data = json.dumps(self._samples).encode()
        self._samples_path.write_bytes(gzip.compress(data, mtime=0))

    def missed(self, parts: Any) -> list[tuple[str, str, str]]:
        """Of the parts that were run: part, backend, what missed a bound."""
        return [
            (part, name, text)
            for part in parts
            for name, found in self.parts.get(part, {"": {"missed": ["did not run on any backend"]}}).items()
            for text in found["missed"]
        ]


if __name__ == "__main__":
    sys.exit(main())
