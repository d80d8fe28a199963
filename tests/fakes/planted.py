"""Near-duplicates of photographs, as they come about: cropped, compressed, mirrored, relit."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

CROP = 0.95
JPEG_QUALITY = 60
BRIGHTNESS = 0.1


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut 5 % of each edge's length off, anywhere, and stretch the rest to the old size."""
    width, height = image.size
    wide, high = round(CROP * width), round(CROP * height)
    x, y = (int(rng.integers(0, room + 1)) for room in (width - wide, height - high))
    return image.crop((x, y, x + wide, y + high)).resize(image.size, Image.Resampling.BICUBIC)


def compressed(image: Image.Image, _rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Image.open(buffer).convert("RGB")


def mirrored(image: Image.Image, _rng: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image)


def relit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = 1 + BRIGHTNESS * (1 if rng.random() < 0.5 else -1)
    return ImageEnhance.Brightness(image).enhance(factor)


CHANGES: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "crop 5 %": cropped,
    "JPEG 60": compressed,
    "horizontal flip": mirrored,
    "brightness 10 %": relit,
}
