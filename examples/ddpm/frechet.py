"""How far drawn digits lie from real ones: the Fréchet distance between features of both.

    python examples/ddpm/frechet.py ddpm.onnx [small.onnx …] [--count 2000] [--steps 50] [--seed 0]

draws digits as `sample.py` does, every model from the same noise, and prints d² to all real digits for each.

Both sets of features are taken for Gaussian, with means μ and covariances C (Dowson and Landau 1982; on features of a
classifier: Heusel et al. 2017):

    d² = ‖μ₁ − μ₂‖² + tr(C₁ + C₂ − 2 (C₁C₂)^½)

C₁C₂ has the eigenvalues of the symmetric C₁^½ C₂ C₁^½, so the last trace is the sum of the roots of those.

The features are the 64 numbers in front of the last layer of examples/mnist/resnet20.onnx. What comes out is d² in its
units: it compares models with each other and with what real digits have among themselves, and with nothing elsewhere.
"""

from __future__ import annotations

import argparse
import runpy
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

__all__ = ["distance", "features"]

HERE = Path(__file__).resolve().parent
CLASSIFIER = HERE.parent / "mnist" / "resnet20.onnx"


@lru_cache(maxsize=1)
def _session() -> tuple[ort.InferenceSession, str]:
    """The classifier with what its last layer reads as an output, and the name of that."""
    model = onnx.load(CLASSIFIER)
    last = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
    model.graph.output.append(onnx.ValueInfoProto(name=last.input[0]))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, last.input[0]


def features(images: NDArray[np.float32], batch: int = 250) -> NDArray[np.float64]:
    """(N, 64) float64 for digits (N, 1, 28, 28) float32 in [−1, 1], as `sample` gives them."""
    session, name = _session()
    grey = (images.clip(-1, 1) + 1) / 2  # what the classifier was trained on
    parts = [session.run([name], {"image": grey[k : k + batch]})[0] for k in range(0, len(grey), batch)]
    return np.concatenate(parts).astype(np.float64)


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """d² ≥ 0 between two sets of features (N, D) and (M, D), N and M at least 2."""
    difference = one.mean(axis=0) - other.mean(axis=0)
    first, second = (np.cov(each, rowvar=False) for each in (one, other))
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T  # rounding leaves values below 0
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return max(0.0, float(difference @ difference + np.trace(first) + np.trace(second) - 2 * shared))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, default=[HERE / "ddpm.onnx"], metavar="MODEL")
    parser.add_argument("--count", type=int, default=2000, help="digits to draw, at least 2 (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="of DDIM (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    options = parser.parse_args()
    if options.count < 2:
        parser.error("--count is below 2; give at least 2 digits, which a covariance needs.")
    sampler = runpy.run_path(str(HERE / "sample.py"))
    real = features(np.concatenate(runpy.run_path(str(HERE / "data.py"))["images"]()))
    start = sampler["noises"](options.count, options.seed)
    for model in options.models:
        drawn = features(sampler["sample"](model, start, options.steps))
        print(f"{model}: {distance(drawn, real):.2f}", flush=True)


if __name__ == "__main__":
    main()
