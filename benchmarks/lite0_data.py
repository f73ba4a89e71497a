"""The images on which the benchmarks judge EfficientNet-Lite0, and those on which they fit it.

    python benchmarks/lite0_data.py [MODEL] [--reference MODEL]     # the labelled evaluation of a model

**Evaluation** (models/lite0_eval.npz): 168 labelled images over 152 ImageNet-1k classes.
1. 148 cut-outs of Debian's tuxpaint-stamps-default. Their accepted classes, one or more an image, are in
   `data/stamps_imagenet.json` and were fixed from the file names before any model ran.
2. The 20 ImageNet photos of foolbox 3.3.4, whose file names carry the class.

**Calibration** (models/lite0_calib.npz): the stamps without a label, less those that show a labelled one again, in
a fixed shuffled order. Its only array is "image".

An image is composed as follows. A stamp of w x h pixels lies in the middle of a white square of side
max(w, h) (1 + 2 MARGIN); then, for stamps and photos alike, the shorter side is resized to 224 (bilinear, with
Pillow's antialiasing), the middle 224 x 224 is cut out and each value becomes (x - 127) / 128: float32, RGB, NCHW.

The original scores 137/168 top-1 and 157/168 top-5. The choices that the words above leave open move that by at
most three images: a margin inside the side, side = max(w, h) / (1 - 2 MARGIN), gives 137 with both bilinear and
bicubic; this margin with bicubic 138; half the margin with bicubic 140.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

import models

LABELS = Path(__file__).resolve().parent / "data" / "stamps_imagenet.json"
EVAL, CALIB = models.MODELS / "lite0_eval.npz", models.MODELS / "lite0_calib.npz"
SIDE, MARGIN, SEED = 224, 0.08, 0
PHOTO = re.compile(r"foolbox/data/imagenet_\d+_(\d+)\.jpg")
VARIANT = re.compile(r"([-_ ]?(mirror|flip|\d+))+$")  # frog-1, bradley_mirror
NEAR = 1.0  # mean absolute difference of 16 x 16 thumbnails in grey levels; mirrored pairs: 0.3, all others: 2.8 up

Arrays = dict[str, NDArray[Any]]


def compose_stamp(path: Path) -> Image.Image:
    """Put a cut-out with an alpha channel on a white square with a margin of `MARGIN` of its longer side."""
    stamp = Image.open(path).convert("RGBA")
    side = round(max(stamp.size) * (1 + 2 * MARGIN))
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(stamp, ((side - stamp.width) // 2, (side - stamp.height) // 2))
    return square.convert("RGB")


def crop(image: Image.Image) -> Image.Image:
    """Resize the shorter side to 224, keeping the proportions, and cut out the middle square."""
    scale = SIDE / min(image.size)
    size = (max(SIDE, round(image.width * scale)), max(SIDE, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    x, y = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return image.crop((x, y, x + SIDE, y + SIDE))


def normalize(images: list[Image.Image]) -> NDArray[np.float32]:
    """(N, 3, 224, 224) float32 from N images RGB of 224 x 224: (x - 127) / 128."""
    x = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    return np.ascontiguousarray(((x - 127) / 128).transpose(0, 3, 1, 2))


def _thumbnails(image: Image.Image) -> NDArray[np.float32]:
    """(8, 16, 16, 3) float32: the small image, turned and mirrored in all eight ways."""
    small = np.asarray(image.resize((16, 16), Image.Resampling.BOX), dtype=np.float32)
    turned = [np.rot90(small, k) for k in range(4)]
    return np.stack(turned + [t[:, ::-1] for t in turned])


def _labels() -> dict[str, list[int]]:
    return cast("dict[str, list[int]]", json.loads(LABELS.read_text(encoding="utf-8"))["labels"])


def _stamps() -> dict[str, Path]:
    """Every PNG stamp by the name that the labels use, sorted; the SVG ones are left aside."""
    folder = models.fetch_stamps()
    found = sorted(folder.rglob("*.png"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in found}


def build_eval() -> Arrays:
    """Return "image" (168, 3, 224, 224) float32, "accepted" (168, K) int64 padded with -1, "name" (168,) str."""
    labels, stamps = _labels(), _stamps()
    names = [name for name in labels if name in stamps]  # one label has only an SVG file
    accepted = [labels[name] for name in names]
    images = [crop(compose_stamp(stamps[name])) for name in track(names, "labelled stamps", console=_err)]
    with zipfile.ZipFile(models.fetch_photos()) as wheel:
        for member in sorted(filter(PHOTO.fullmatch, wheel.namelist())):
            images.append(crop(Image.open(io.BytesIO(wheel.read(member))).convert("RGB")))
            names.append(PurePosixPath(member).stem)
            accepted.append([int(member.rpartition("_")[2].removesuffix(".jpg"))])
    width = max(map(len, accepted))
    padded = np.array([row + [-1] * (width - len(row)) for row in accepted], dtype=np.int64)
    return {"image": normalize(images), "accepted": padded, "name": np.array(names)}


def build_calib() -> Arrays:
    """Return {"image": (M, 3, 224, 224) float32}: the unlabelled stamps, none of which repeats a labelled one.

    A stamp is dropped when (1) its name is a labelled one's but for a number, "mirror" or "flip" at the end, or
    (2) its thumbnail, in any of eight orientations, is nearer than `NEAR` to a labelled one's.
    """
    labels, stamps = _labels(), _stamps()
    stems = {VARIANT.sub("", name) for name in labels}
    held = [_thumbnails(crop(compose_stamp(stamps[name])))[0] for name in labels if name in stamps]
    held_out = np.stack(held)
    images = []
    for name in track([name for name in stamps if name not in labels], "calibration stamps", console=_err):
        image = crop(compose_stamp(stamps[name]))
        distance = np.abs(_thumbnails(image)[:, None] - held_out).mean(axis=(2, 3, 4)).min()
        if VARIANT.sub("", name) not in stems and distance > NEAR:
            images.append(image)
    order = np.random.default_rng(SEED).permutation(len(images))
    return {"image": normalize([images[k] for k in order])}


def cached(path: Path, build: Callable[[], Arrays]) -> Arrays:
    """Load the arrays of `path`, after building and writing them, whole or not at all, if it is not there."""
    if not path.is_file():
        arrays = build()
        path.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            np.savez(part, **cast("dict[str, Any]", arrays))
        Path(part.name).chmod(0o644)
        Path(part.name).replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def evaluate(model_path: str | Path, batch: int = 8) -> dict[str, Any]:
    """Run a model on the 168 labelled images with onnxruntime on the CPU.

    Returns top1 and top5 (images whose first, or first five, classes hold an accepted one), n, and predictions
    (n,) int64, correct (n,) bool. The model takes (batch, 3, 224, 224) and its first output is (batch, 1000).
    """
    data = cached(EVAL, build_eval)
    session = ort.InferenceSession(str(model_path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    starts = range(0, len(data["image"]), batch)
    logits = np.concatenate([session.run(None, {name: data["image"][k : k + batch]})[0] for k in starts])
    top = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    hits = (top[:, :, None] == data["accepted"][:, None, :]).any(axis=2)
    return {
        "top1": int(hits[:, 0].sum()),
        "top5": int(hits.any(axis=1).sum()),
        "n": len(hits),
        "predictions": top[:, 0],
        "correct": hits[:, 0],
    }


_err = Console(stderr=True, highlight=False)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", type=Path, default=models.MODELS / "efficientnet_lite0.onnx")
    parser.add_argument("--reference", type=Path, help="also print the paired agreement with this model")
    options = parser.parse_args()
    for path in filter(None, (options.model, options.reference)):
        if not path.is_file():
            _err.print(
                f"{path} is not there: run `make models` first, or name another model.", soft_wrap=True
            )
            return 1
    try:
        found = evaluate(options.model)
        calibration = cached(CALIB, build_calib)["image"]
    except models.FetchError as error:
        _err.print(str(error), soft_wrap=True)
        return 1
    out = Console(highlight=False, soft_wrap=True)
    n = found["n"]
    for key in ("top1", "top5"):
        out.print(f"{key} {found[key]}/{n} = {found[key] / n:.1%}")
    if options.reference:
        reference = evaluate(options.reference)
        same = int((found["predictions"] == reference["predictions"]).sum())
        lost = int((reference["correct"] & ~found["correct"]).sum())
        won = int((found["correct"] & ~reference["correct"]).sum())
        out.print(f"agreement {same}/{n} = {same / n:.1%}; {lost} right answers lost, {won} won")
    out.print(f"calibration images: {len(calibration)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
