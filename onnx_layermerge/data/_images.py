"""A folder of images as samples, decoded on demand.

Decisions, so that a reader can tell whether his own pipeline agrees:
- Files: png, jpg, jpeg, bmp, webp, tif, tiff, in all sub-folders, sorted by their path in the folder; names
  that start with a dot are left out. Of a file with several frames the first one counts.
- The orientation stored in EXIF is applied; transparent pixels are laid on white; 16-bit greys are scaled to
  8 bits; gray is Pillow's luma (ITU-R 601-2).
- Resampling is bilinear with an area that grows with the reduction (Pillow's BILINEAR), on 8-bit pixels.
- Two files are the same sample if their bytes are the same; equal pixels in other bytes are not noticed.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_layermerge.data._options import ImageOptions, Recipe, recipe_for
from onnx_layermerge.data._sources import Survey, choose, is_constant, reason
from onnx_layermerge.data._specs import Array, Arrays, InputSpec
from onnx_layermerge.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
LETTERBOX_GREY = 114
PROBES = 8  # images decoded at once when the folder is opened, so that wrong options show at once


def find_images(folder: Path) -> list[Path]:
    """All image files under the folder, sorted by their path in it."""
    named = []
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
            named.append((inside.as_posix(), path))
    return [path for _, path in sorted(named)]


def decode(path: Path, recipe: Recipe) -> Array:
    """One sample from one file: (C, H, W) or (H, W, C) by ``recipe.layout``, in ``recipe.dtype``.

    DataError, naming the file, where it cannot be read or is too small for the crop.
    """
    pil = _pillow()
    try:
        with pil.open(path) as opened:
            image = _eight_bit(opened, path, gray=recipe.color == "gray")
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, pil.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    return normalised(np.asarray(_fit_to_size(image, recipe, path)), recipe)


def normalised(pixels: Array, recipe: Recipe) -> Array:
    """Pixels 0…255, [H, W] or [H, W, C] in the order R, G, B → one sample as the recipe has it."""
    pixels = pixels.astype(np.float32).reshape(*recipe.size, -1)
    if recipe.color == "bgr":
        pixels = pixels[:, :, ::-1]
    elif pixels.shape[2] != recipe.channels:
        pixels = np.repeat(pixels, recipe.channels, axis=2)
    sample = (pixels * np.float32(recipe.scale) - recipe.mean) / recipe.std
    if recipe.layout == "nchw":
        sample = sample.transpose(2, 0, 1)
    return np.ascontiguousarray(sample, dtype=recipe.dtype)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise DataError(
            "Reading images needs Pillow, which is not installed: pip install pillow, or give a .npz."
        ) from None
    return Image


def _unreadable(path: Path, error: Exception) -> DataError:
    unknown = isinstance(error, _pillow().UnidentifiedImageError)
    text = "its content is of no known image format" if unknown else reason(error)
    return DataError(f"The image {path} cannot be read ({text}): repair it or remove it.")


def _eight_bit(opened: Image.Image, path: Path, *, gray: bool) -> Image.Image:
    """The upright image in mode RGB or L, on white where it is transparent."""
    from PIL import Image, ImageOps

    opened.load()
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if int(values.min()) < 0 or int(values.max()) > 65535:
            raise DataError(f"The image {path} holds 32-bit values: save it with 8 or 16 bits.")
        image = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise DataError(f"The image {path} holds floats whose range is unknown: save it with 8 or 16 bits.")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, (255, 255, 255, 255)), above)
    return image.convert("L" if gray else "RGB")


def _fit_to_size(image: Image.Image, recipe: Recipe, path: Path) -> Image.Image:
    """Resize, then centre crop or padding to ``recipe.size``."""
    from PIL import Image

    high, wide = recipe.size
    width, height = image.size
    if recipe.resize is None:
        scale = min(high / height, wide / width)
        inner = (max(1, min(wide, round(width * scale))), max(1, min(high, round(height * scale))))
        canvas = Image.new(image.mode, (wide, high), (LETTERBOX_GREY,) * len(image.getbands()))
        left, top = (wide - inner[0]) // 2, (high - inner[1]) // 2
        canvas.paste(image.resize(inner, Image.Resampling.BILINEAR), (left, top))
        return canvas
    if isinstance(recipe.resize, tuple):
        target = (recipe.resize[1], recipe.resize[0])
    else:
        if isinstance(recipe.resize, int):
            scale = recipe.resize / min(width, height)
        else:
            # The covered size is rounded first: 256 for an input of 224, as everyone else has it.
            scale = max(round(high * recipe.resize) / height, round(wide * recipe.resize) / width)
        # The slack keeps a side that is meant to be whole from losing a pixel to rounding.
        target = (max(1, int(width * scale + 1e-6)), max(1, int(height * scale + 1e-6)))
    if target[0] < wide or target[1] < high:
        raise DataError(
            f"The image {path} is {target[1]}×{target[0]} after the resize, smaller than the crop "
            f"{high}×{wide}: enlarge the resize, or give it as height and width."
        )
    if target != image.size:
        image = image.resize(target, Image.Resampling.BILINEAR)
    left, top = round((target[0] - wide) / 2), round((target[1] - high) / 2)
    return image.crop((left, top, left + wide, top + high))


class ImageStore:
    """Samples of one input from image files; decoded ones are kept up to ``cache_bytes``, the last used."""

    def __init__(self, files: Sequence[Path], spec: InputSpec, recipe: Recipe, cache_bytes: int) -> None:
        self.notes = recipe.notes
        self._files = tuple(files)
        self._name = spec.name
        self._recipe = recipe
        self._room = cache_bytes
        self._cache: OrderedDict[int, Array] = OrderedDict()
        self._held = 0

    def __len__(self) -> int:
        return len(self._files)

    def rows(self, indices: npt.NDArray[np.intp]) -> Arrays:
        """The samples stacked along axis 0."""
        return {self._name: np.stack([self._sample(int(index)) for index in indices])}

    def where(self, number: int) -> str:
        return str(self._files[number])

    def _sample(self, index: int) -> Array:
        sample = self._cache.get(index)
        if sample is not None:
            self._cache.move_to_end(index)
            return sample
        sample = decode(self._files[index], self._recipe)
        if sample.nbytes <= self._room:
            while self._held + sample.nbytes > self._room:
                self._held -= self._cache.popitem(last=False)[1].nbytes
            self._cache[index] = sample
            self._held += sample.nbytes
        return sample

    def survey(self) -> Survey:
        """Hashes every file and reads its header; decodes only ``PROBES`` of them, spread evenly."""
        pil = _pillow()
        prints = []
        for path in self._files:
            try:
                with path.open("rb") as handle:
                    digest = hashlib.sha256(self._recipe.key())
                    while block := handle.read(1 << 20):
                        digest.update(block)
                    handle.seek(0)
                    pil.open(handle).close()
            except (OSError, ValueError, SyntaxError, pil.DecompressionBombError) as error:
                raise _unreadable(path, error) from error
            prints.append(digest.digest())
        count = min(PROBES, len(self))
        probes = np.unique(np.linspace(0, len(self) - 1, count).astype(np.intp))
        constant = sum(is_constant([self._sample(int(index))]) for index in probes)
        return Survey(tuple(prints), constant, len(probes))


def open_images(
    folder: Path,
    files: Sequence[Path],
    inputs: Sequence[InputSpec],
    options: ImageOptions,
    limit: int | None,
    seed: int,
    cache_bytes: int,
) -> ImageStore:
    """The store over at most ``limit`` of the files, a seeded random subset."""
    if len(inputs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in inputs)
        raise DataError(
            f"{folder} holds images, which fit one input, but the model has {len(inputs)} ({names}): "
            "give a .npz with an array for each."
        )
    recipe = recipe_for(options, inputs[0])
    kept = [files[int(index)] for index in choose(len(files), limit, seed)]
    return ImageStore(kept, inputs[0], recipe, cache_bytes)
