"""Pages of text whose orientation is known because they were rendered so.

English prose out of the standard library's own documentation is set in one of DejaVu's faces, in one or two columns
with a title; the page is turned by 0, 90, 180 or 270 degrees, then skewed, blurred and made noisy, so much that the
original model is wrong about one page in fifty.  That was set before any compressed model was looked at.
Labels follow the model's own list, 0, 90, 180, 270 degrees, in the sense that it was trained for (see TURNS).
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from onnx_layermerge.errors import DataError

__all__ = ["TURNS", "crop_224", "degraded", "draw_page", "turned"]

FACES = "/usr/share/fonts/truetype/dejavu"
PAGE = (620, 820)
# Quarter turns, counter-clockwise as Pillow counts, that give the model's classes 0, 1, 2, 3.
TURNS = (0, 3, 2, 1)


@lru_cache(maxsize=1)
def _words() -> list[str]:
    from pydoc_data import topics

    prose = " ".join(topics.topics[name] for name in sorted(topics.topics))
    return re.findall(r"[A-Za-z][A-Za-z',.;-]*", prose)


@lru_cache(maxsize=256)
def _face(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(name, size)


@lru_cache(maxsize=1)
def _faces() -> list[str]:
    found = sorted(str(path) for path in Path(FACES).glob("DejaVu*.ttf") if "Math" not in path.name)
    if not found:
        raise DataError("no DejaVu fonts are installed; on Debian or Ubuntu install the package fonts-dejavu.")
    return found


def draw_page(rng: np.random.Generator) -> Image.Image:
    """One upright grey page, black on paper."""
    paper = int(rng.integers(225, 256))
    page = Image.new("L", PAGE, paper)
    draw = ImageDraw.Draw(page)
    name = str(rng.choice(_faces()))
    size, margin = int(rng.integers(15, 27)), int(rng.integers(30, 70))
    face, ink = _face(name, size), int(rng.integers(0, 60))
    y = margin
    if rng.random() < 0.7:
        draw.text((margin, y), _line(rng, _face(name, 2 * size), PAGE[0] - 2 * margin), ink, _face(name, 2 * size))
        y += 3 * size
    columns = int(rng.integers(1, 3))
    gap = 24
    width = (PAGE[0] - 2 * margin - gap * (columns - 1)) // columns
    for column in range(columns):
        x, place = margin + column * (width + gap), y
        while place + size < PAGE[1] - margin:
            if rng.random() < 0.08:
                place += size
                continue
            room = width if rng.random() < 0.85 else int(width * rng.uniform(0.3, 0.9))
            draw.text((x, place), _line(rng, face, room), ink, face)
            place += int(size * 1.35)
    return page


def _line(rng: np.random.Generator, face: ImageFont.FreeTypeFont, room: int) -> str:
    words = _words()
    start = int(rng.integers(len(words) - 40))
    line = words[start]
    for word in words[start + 1 : start + 40]:
        if face.getlength(f"{line} {word}") > room:
            break
        line = f"{line} {word}"
    return line


def turned(page: Image.Image, label: int) -> Image.Image:
    """The page as the model's class ``label`` has it."""
    return page.rotate(90 * TURNS[label], expand=True)


def degraded(page: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """uint8 [224, 224, 3]: skewed, blurred, noisy, cut as the model's own preprocessing does."""
    grey = int(rng.integers(200, 256))
    page = page.rotate(float(rng.uniform(-7, 7)), resample=Image.Resampling.BILINEAR, fillcolor=grey)
    page = page.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 2.6))))
    image = crop_224(page.convert("RGB"), Image.Resampling.LANCZOS)
    noise = rng.normal(0, rng.uniform(0, 22), image.shape[:2])[..., None]
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def crop_224(image: Image.Image, resample: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    """uint8 [224, 224, 3]: the shorter side to 256, the middle cut out."""
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), resample)
    x, y = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image.convert("RGB").crop((x, y, x + 224, y + 224)))
