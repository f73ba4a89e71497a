"""The steps of `run.py`, each in a process of its own.

    python benchmarks/quality/steps.py build|score SPEC ANSWER        # nobody needs to call this by hand

SPEC is JSON, ANSWER the file that takes what was found, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))

# A busy neighbour can spoil a whole run; the median of three is the row's, and all are recorded.
VERIFIED = 3
NEEDED = "run `pip install torch==2.13.0` and `pip install --no-deps torch-pruning==1.6.1 onnxsim==0.8.1`"
Row = dict[str, Any]
err = Console(stderr=True, highlight=False, soft_wrap=True)


def build(spec: Row) -> Row:
    """The model of one row; the sentence and exit code where it cannot be."""
    from build import make
    from views import ensure_calibration

    from onnx_layermerge.errors import OlmError

    def say(words: str) -> None:
        err.print(f"{spec['title']} · {words}"[:150], style="dim")

    ensure_calibration(spec["network"])
    try:
        return {"error": None, "exit_code": 0, **make(spec, Path(spec["output"]), say)}
    except OlmError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    except ModuleNotFoundError as error:
        return {"error": f"{spec['method']} needs the module {error.name}: {NEEDED}.", "exit_code": 2}


def score(spec: Row) -> Row:
    """Measured speed-up and held-out answers, from the two files alone."""
    from devices import standing_in
    from jobs import NETWORKS, ROOT
    from score import scores

    import onnx_layermerge as olm

    with standing_in(spec["device"]):
        original = ROOT / NETWORKS[spec["network"]].model
        found = [olm.verify(original, spec["output"], seed=seed).speedup for seed in range(VERIFIED)]
    found.sort(key=lambda ratio: ratio.ratio)
    speed = asdict(found[VERIFIED // 2]) | {"each": [ratio.ratio for ratio in found]}
    return {"speed": speed, "scores": scores(spec["network"], Path(spec["output"]))}


def used() -> Row:
    """CPU seconds and memory peak of this process and those it started."""
    import resource  # absent on Windows, where only these figures cannot be had

    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = max(own.ru_maxrss, others.ru_maxrss) * (1 if sys.platform == "darwin" else 1024) / 1e9
    return {"cpu_s": own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime, "peak_rss_gb": peak}


def main() -> int:
    step, spec, answer = sys.argv[1:]
    begin = time.perf_counter()
    found = {"build": build, "score": score}[step](json.loads(spec))
    found |= {"wall_s": time.perf_counter() - begin, **used()}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
