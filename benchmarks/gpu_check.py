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
and the tables (gpu_check.md).  A record is of one GPU and driver: on another one a new record is begun, and the old
files stay as gpu_check.old.*.

Exit code 0: this run kept all bounds; 1: it missed one, a step failed, or a part had nothing to run on; 5: there is no
such GPU.  What other runs left in the record is not judged again.  ``--device cpu`` runs repeat and additivity, and
flow where --only names it, with onnxruntime on the CPU, into gpu_check_cpu.*: a check of this script, and no figure of
any GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

from gpu_steps import PRECISIONS, judge  # noqa: E402
from gpu_steps.flow import MODELS, contract_tests, label, model_path, run, whole_flow  # noqa: E402
from gpu_steps.record import Record  # noqa: E402

PARTS = ("backends", "drivers", "repeat", "additivity", "flow")
ON_CPU = ("repeat", "additivity", "flow")
PART_S = 540.0
LEAST_S = 10.0
NO_GPU = 5
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR, cuda.h
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu to check this script")
    parser.add_argument("--backend", action="append", help="those that open here, if none is named")
    parser.add_argument("--precision", choices=PRECISIONS, help="fp16 on a GPU, fp32 on the CPU, if none is named")
    parser.add_argument("--model", action="append", type=model, help=f"{', '.join(MODELS)}, or an .onnx file")
    parser.add_argument("--shapes", type=int, choices=range(1, 21), default=20, metavar="1..20", help="to time")
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
    device = platform.processor() or platform.machine() if on_cpu else card(words.device)
    if not device:
        print(f"The driver tells nothing of {words.device}; name a GPU that it shows, cuda:0 to cuda:{gpus() - 1}.")
        return NO_GPU
    parts = words.only or (ON_CPU[:2] if on_cpu else PARTS)
    if on_cpu and set(parts) - set(ON_CPU):
        parser.error(f"--device cpu runs {', '.join(ON_CPU)} only")
    if on_cpu and (words.precision not in (None, "fp32") or set(words.backend or ()) - {"onnxruntime"}):
        parser.error("--device cpu runs onnxruntime in fp32 only")
    words.precision = words.precision or ("fp32" if on_cpu else "fp16")
    record = Record(words.out, on_cpu, device)
    if record.old:
        print(f"This is {device}; the record of {record.old[0]} stays as {record.old[1]}.")
    for part in dict.fromkeys(parts):
        Part(part, words, record).run()
    missed = [f"{part} {name}: {text}" for part, name, text in record.missed(parts)]
    for text in missed:
        print("missed:", text)
    print(f"{record.path}: {'bounds missed: ' + str(len(missed)) if missed else 'all bounds kept'}")
    return int(bool(missed))


def model(text: str) -> str:
    """A model to run the flow of, by its name here or its file."""
    if text not in MODELS and not model_path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text} is neither a file nor one of {', '.join(MODELS)}")
    return text


def driver_library() -> Any:
    """The driver's own library, started; None where there is none, or no GPU that it can use."""
    try:
        library = ctypes.CDLL("libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll")
    except OSError:
        return None
    return None if library.cuInit(0) else library


def gpus() -> int:
    """GPUs that the driver shows to this process; needs no Python package."""
    library, count = driver_library(), ctypes.c_int(0)
    if library is None or library.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def card(device: str) -> str:
    """Name, compute capability and driver of ``cuda:N``, as its record carries them; "" where there is no such GPU.

    Like `gpus` it asks the driver alone, so that a record cannot be taken for another GPU's where no adapter works.
    """
    ordinal, library = device.removeprefix("cuda:"), driver_library()
    if library is None or not ordinal.isdecimal():
        return ""
    handle, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
    major, minor, version = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    if (
        library.cuDeviceGet(ctypes.byref(handle), int(ordinal))
        or library.cuDeviceGetName(name, len(name), handle)
        or library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, handle)
        or library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, handle)
        or library.cuDriverGetVersion(ctypes.byref(version))
    ):
        return ""
    cuda = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    return f"{name.value.decode(errors='replace')}, compute capability {major.value}.{minor.value}, {cuda}"


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
        else:
            usable, nothing = self.usable(), f"any backend, {self.words.precision}"
            self.record.drop(self.name, nothing)
            if not usable:
                reason = f"did not run: no backend opens here in {self.words.precision}"
                self.record.put(self.name, nothing, failed(reason), {})
            elif self.name == "flow":
                self.flow(usable)
            else:
                self.timings(usable)

    def timings(self, usable: list[str]) -> None:
        for backend in usable:
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
            return failed(found["failure"]), {}
        samples = found.pop("samples")
        return {**found, **judge.additivity(found["rows"], CHAIN)}, samples

    def flow(self, usable: list[str]) -> None:
        folder, words = self.words.out / "gpu_check_flow", self.words
        folder.mkdir(parents=True, exist_ok=True)
        every = [(name, backend) for name in words.model or MODELS for backend in usable]
        for at, (name, backend) in enumerate(every):
            title = f"{label(name)}, {backend}, {words.precision}"
            print(f"  {title}", flush=True)
            # Where there is time for all, each has the same share; else the first ones have what they need.
            share_s = min(self.left_s(), max(PART_S, self.left_s() / (len(every) - at)))
            steps = whole_flow(name, backend, words.device, words.precision, folder, share_s)
            self.record.put("flow", title, judge.flow(steps), {})

    def usable(self) -> list[str]:
        """Backends that open here in this precision, from the record where the part ``backends`` was run before."""
        if self.words.device == "cpu":
            return ["onnxruntime"]
        if self.words.backend:
            return list(self.words.backend)
        known = self.record.parts.get("backends", {}).get("")
        if not known or not known["opens"]:
            known = self.backends()
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
    about: Row = {"key": "", "clocks": [], "clocks_missing": "", "warnings": []}
    return {**about, "rows": [], "ways": [], "steps": [], "missed": [reason], "ok": False}


if __name__ == "__main__":
    sys.exit(main())
