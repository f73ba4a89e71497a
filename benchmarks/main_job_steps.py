"""The two steps of `main_job.py`, each run in a process of its own.

    python benchmarks/main_job_steps.py compress|measure SPEC ANSWER

SPEC is JSON, ANSWER the file that takes what was found, as JSON. Nobody needs to call this by hand.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped, unused-ignore]
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import onnx_layermerge as olm
from onnx_layermerge.report import as_json

ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, Any]

err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def following(title: str) -> Iterator[Callable[[str, int, int, str], None]]:
    """A progress bar on stderr that follows a flow: stage, how much of it is done, what is being done."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=err) as bars:
        task = bars.add_task(title, total=1)

        def show(stage: str, done: int, total: int, what: str) -> None:
            said = f"{title} · {stage}: {what}"
            bars.update(task, description=said[:100], completed=done, total=total or done + 1)

        yield show


def compress(spec: Row) -> Row:
    """The whole command; the report, or the sentence and exit code of the error, and the process's memory peak."""
    import resource  # absent on Windows, where only this figure cannot be had

    found: Row = {"error": None, "exit_code": 0, "report": None}
    try:
        with following(spec["title"]) as progress:
            report = olm.compress(progress=progress, **spec["arguments"])
        found["report"] = json.loads(as_json(report))
    except olm.OlmError as error:
        found |= {"error": str(error), "exit_code": error.exit_code}
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    found["peak_rss_gb"] = peak * (1 if sys.platform == "darwin" else 1024) / 1e9  # bytes there, KiB elsewhere
    return found


def answers(network: str, path: str) -> Row:
    """What a model says on the held-out images: top1, top5, n and, by image, predictions and correct."""
    if network == "lite0":
        import lite0_data

        return lite0_data.evaluate(path)
    _, _, x, y = runpy.run_path(str(ROOT / "examples/mnist/data.py"))["load"]()
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    logits = np.concatenate([session.run(None, {name: x[k : k + 100]})[0] for k in range(0, len(x), 100)])
    top = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    correct, top5 = top[:, 0] == y, int((top == y[:, None]).any(axis=1).sum())
    return {"top1": int(correct.sum()), "top5": top5, "n": len(y), "predictions": top[:, 0], "correct": correct}


def measure(spec: Row) -> Row:
    """Speed-up, accuracy before and after, and agreement, from the two files alone."""
    with following(spec["title"]) as progress:
        ratio = olm.verify(spec["original"], spec["output"], progress=progress).speedup
    before, after = (answers(spec["network"], spec[which]) for which in ("original", "output"))
    same = before["predictions"] == after["predictions"]
    return {
        "ratio": asdict(ratio),
        "speedup": ratio.ratio,
        "agreement": float(same.mean()),
        "right_answers_lost": int((before["correct"] & ~after["correct"]).sum()),
        "right_answers_won": int((after["correct"] & ~before["correct"]).sum()),
        "images": after["n"],
        **_scores(after),
        "original": _scores(before),
    }


def _scores(found: Row) -> Row:
    return {"top1": found["top1"], "top5": found["top5"], "accuracy": found["top1"] / found["n"]}


STEPS = {"compress": compress, "measure": measure}


def main() -> int:
    step, spec, answer = sys.argv[1:]
    Path(answer).write_text(json.dumps(STEPS[step](json.loads(spec))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
