"""Samples from public-domain photographs, for a model of which no sample is given.

The photographs are files in the wheel of scikit-image (the extra ``pictures``); nothing is fetched.  Of what lies there
only those are used that its documentation calls public domain or CC0, and that show more than a symbol:

| file                  | shows                           | licence       |
| --------------------- | ------------------------------- | ------------- |
| astronaut.png         | a person before a flag (NASA)   | public domain |
| chelsea.png           | a cat                           | CC0           |
| rocket.jpg            | a start, much sky (SpaceX)      | public domain |
| hubble_deep_field.jpg | galaxies (NASA)                 | public domain |
| retina.jpg            | the inside of an eye            | CC0           |
| clock_motion.png      | a clock, blurred, grey          | public domain |
| brick.png, gravel.png | surfaces, grey                  | CC0           |
| coffee.png            | a cup on wood                   | CC0           |
| camera.png            | a man and a camera, grey        | CC0           |
| grass.png             | grass, grey                     | CC0           |

The last three are held out: validation has crops of these alone, so that what is measured on them is not what was
fitted.  A sample is a cut of 8 to 100 % of a picture (small ones as likely as large ones), stretched a little,
mirrored or not, with another brightness, contrast and, in colour, another white.  Where the input has colours, a
coloured picture is taken twice as often as a grey one.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnx_layermerge.data._calibration import CACHE_BYTES, Calibration
from onnx_layermerge.data._images import normalised
from onnx_layermerge.data._options import ImageOptions, Recipe, recipe_for
from onnx_layermerge.data._sources import Index
from onnx_layermerge.data._specs import Array, Arrays, InputSpec

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SMALLEST_SIDE", "Pictures", "built_in_pictures"]

COLOURED = ("astronaut.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg", "retina.jpg", "coffee.png")
GREY = ("clock_motion.png", "brick.png", "gravel.png", "camera.png", "grass.png")
HELD_OUT = ("coffee.png", "camera.png", "grass.png")
SMALLEST_SIDE = 16
VALIDATION_SHARE = 0.25
AREA = (0.08, 1.0)
ASPECT = 1.3
CONTRAST, BRIGHTNESS, WHITE = (0.6, 1.4), 30.0, (0.85, 1.15)
_VERSION = "1"


@dataclass(frozen=True)
class Pictures:
    """The built-in photographs on this machine, as files."""

    files: tuple[Path, ...]

    def samples(self, spec: InputSpec, options: ImageOptions, count: int, seed: int) -> tuple[Calibration, Calibration]:
        """(fit, validation): ``count`` samples together, a quarter of them of the held-out pictures.

        ``options`` say range, layout and order of colours; the size is that of the input.  The same seed gives the
        same samples.

        Raises:
            DataError: the options do not fit the input.
        """
        recipe = recipe_for(options, spec)
        held = max(1, round(count * VALIDATION_SHARE))
        parts = []
        for number, share in ((max(1, count - held), False), (held, True)):
            files = [file for file in self.files if (file.name in HELD_OUT) == share]
            store = _Crops(files, spec, recipe, number, seed)
            every = np.arange(number, dtype=np.intp)
            parts.append(Calibration(store, [spec], "the built-in pictures", store.prints(), every))
        return parts[0], parts[1]


def built_in_pictures() -> Pictures | None:
    """The photographs; None where scikit-image or Pillow is not installed, or a picture is not in the wheel."""
    found = importlib.util.find_spec("skimage")
    if importlib.util.find_spec("PIL") is None or found is None or not found.submodule_search_locations:
        return None
    # The package itself is not imported: its loaders may fetch what does not lie there, and this must not.
    folder = Path(next(iter(found.submodule_search_locations))) / "data"
    files = tuple(folder / name for name in (*COLOURED, *GREY))
    return Pictures(files) if all(file.is_file() for file in files) else None


class _Crops:
    """A store of ``count`` cuts, each made from its own seed; as pixels they are kept up to ``CACHE_BYTES``."""

    def __init__(self, files: list[Path], spec: InputSpec, recipe: Recipe, count: int, seed: int) -> None:
        self._spec, self._recipe, self._count, self._seed = spec, recipe, count, seed
        self._files = files
        self._kept: dict[int, Array] = {}
        self._room = CACHE_BYTES

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _pictures(self) -> list[Image.Image]:
        from PIL import Image

        mode = "L" if self._recipe.color == "gray" else "RGB"
        found = []
        for file in self._files:
            with Image.open(file) as opened:
                found += [opened.convert(mode)] * (2 if mode == "RGB" and file.name in COLOURED else 1)
        return found

    def rows(self, indices: Index) -> Arrays:
        """The samples stacked along axis 0."""
        return {self._spec.name: np.stack([normalised(self._pixels(int(one)), self._recipe) for one in indices])}

    def prints(self) -> list[bytes]:
        """What each sample is made of: the files' bytes, the recipe, the seed and its number."""
        whole = hashlib.sha256(self._recipe.key() + _VERSION.encode())
        for file in self._files:
            whole.update(file.read_bytes())
        return [hashlib.sha256(whole.digest() + f"{self._seed} {one}".encode()).digest() for one in range(len(self))]

    def _pixels(self, number: int) -> Array:
        pixels = self._kept.get(number)
        if pixels is None:
            # In turn, so that every picture is there whatever the seed.
            picture = self._pictures[number % len(self._pictures)]
            pixels = _cut(picture, self._recipe.size, np.random.default_rng([self._seed, number]))
            if pixels.nbytes <= self._room:
                self._kept[number] = pixels
                self._room -= pixels.nbytes
        return pixels


def _cut(picture: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Array:
    """uint8 [H, W] or [H, W, 3] of ``size``."""
    from PIL import Image, ImageOps

    high, wide = size
    share = np.exp(rng.uniform(*np.log(AREA)))
    aspect = wide / high * np.exp(rng.uniform(-1, 1) * np.log(ASPECT))
    side = np.sqrt(share * picture.width * picture.height)
    width = min(picture.width, max(1, round(side * aspect**0.5)))
    height = min(picture.height, max(1, round(side / aspect**0.5)))
    left, top = int(rng.integers(picture.width - width + 1)), int(rng.integers(picture.height - height + 1))
    cut = picture.resize((wide, high), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    if rng.random() < 0.5:
        cut = ImageOps.mirror(cut)
    values = np.asarray(cut, dtype=np.float32)
    values = values.mean() + rng.uniform(*CONTRAST) * (values - values.mean()) + rng.uniform(-1, 1) * BRIGHTNESS
    if values.ndim == 3:
        values = values * rng.uniform(*WHITE, size=3).astype(np.float32)
    found: Array = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return found
