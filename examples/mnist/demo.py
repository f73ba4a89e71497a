"""`make demo`: compress the committed ResNet-20 and show what it costs, on digits that neither saw.

python examples/mnist/demo.py [--speedup 1.5] [--out resnet20.fast.onnx]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

import data

HERE = Path(__file__).resolve().parent
MODEL = HERE / "resnet20.onnx"


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 of a model on labelled images."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(None, {"image": images})[0])
    return float((logits.argmax(axis=1) == labels).mean())


def main() -> int:
    """Run `olm compress`, then score both models on the 1,000 held-out digits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speedup", default="1.5")
    parser.add_argument("--out", type=Path, default=Path("resnet20.fast.onnx"))
    arguments = parser.parse_args()
    model = MODEL.relative_to(Path.cwd()) if MODEL.is_relative_to(Path.cwd()) else MODEL
    calib = f"{model.parent / 'data.py'}:calibration"
    words = ["olm", "compress", str(model), str(arguments.out), "--speedup", arguments.speedup, "--calib", calib]
    print("$", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", *words], check=False)
    if done.returncode:
        return done.returncode
    _, _, images, labels = data.load()
    print(f"\n{'held-out accuracy (1,000 digits)':<36}{'size':>10}")
    for name, path in (("before", MODEL), ("after", arguments.out)):
        print(f"  {name:<10}{accuracy(path, images, labels):>10.1%}{path.stat().st_size / 1e6:>22.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
