"""Image files to upright 8-bit RGB; whatever cannot be read faithfully is refused by its row."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from ..errors import DataError
from .manifest import Manifest

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What may be opened, by Pillow's names. EPS, for one, would start Ghostscript."""

IMAGE_SUFFIXES = frozenset({
    ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
})  # fmt: skip
"""Endings of files in FORMATS; torchvision's IMG_EXTENSIONS and more."""

OTHER_SUFFIXES = frozenset({
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".eps", ".heic", ".heif", ".ico", ".jxl", ".nef",
    ".orf", ".psd", ".raf", ".raw", ".rw2", ".svg", ".tga",
})  # fmt: skip
"""Endings of images that are not read here, so that leaving them out is said."""

ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF orientation -> what turns the image upright (JEITA CP-3451, tag 274)."""

DRAFT = 2
"""A reduced JPEG is at least so many times as large as what is made of it, which hides the loss."""

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO, UNSIGNED = 0, 1


def read_image(manifest: Manifest, index: int, *, at_least: int | None = None) -> Image.Image:
    """Return one image upright and in RGB, as large as it is.

    at_least : edge in pixels to which a JPEG may be reduced while it is decoded; None: not at all

    Grey images of more than 8 bits are scaled by their bit depth. DataError names the row of a file
    that is missing, is no regular file, is too large, or cannot be decoded faithfully.
    """
    path = manifest.root / manifest.image_paths[index]
    where = manifest.row(index)
    check_file(path, manifest.root, where)
    return upright_rgb(path, where, max_megapixels=manifest.max_megapixels, at_least=at_least)


def upright_rgb(
    source: Path | IO[bytes], where: str, *, max_megapixels: float, at_least: int | None = None
) -> Image.Image:
    """Return an image upright and in RGB; DataError where it cannot be decoded faithfully.

    Parameters
    ----------
    where : how messages name it
    max_megapixels, at_least : as data.max_megapixels, and as in read_image
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            _check_size(image, max_megapixels, where)
            if at_least is not None:
                # libjpeg takes fewer coefficients; formats that cannot do without ignore it.
                image.draft(None, (at_least, at_least))
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
            rgb = _rgb(image, where)
        return rgb if turn is None else rgb.transpose(turn)
    except DataError:
        raise
    except Image.UnidentifiedImageError as err:
        raise DataError(
            f"{where}: the image cannot be decoded: it is none of {', '.join(FORMATS)}."
        ) from err
    # Decoders raise anything on broken files (TypeError, struct.error, ZeroDivisionError, ...).
    except Exception as err:
        raise DataError(f"{where}: the image cannot be decoded ({err}).") from err


def decode(manifest: Manifest, index: int, image_size: int) -> np.ndarray:
    """Return one image as (3, S, S) uint8: shorter edge resized to S, centre cropped."""
    reduced = DRAFT * image_size if manifest.draft else None
    return fitted(read_image(manifest, index, at_least=reduced), image_size)


def fitted(image: Image.Image, image_size: int) -> np.ndarray:
    """Return an image in RGB as (3, S, S) uint8: shorter edge resized to S, centre cropped."""
    square = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(square, dtype=np.uint8).transpose(2, 0, 1)


def check_file(path: Path, root: Path, where: str) -> None:
    """Refuse what is no regular file that can be read; DataError names its row."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as err:
        raise DataError(f"{where}: the image is missing under {root}.") from err
    except OSError as err:
        raise DataError(f"{where}: the image may not be read ({err.strerror}).") from err
    # Opening a FIFO would wait for whoever writes into it.
    if not stat.S_ISREG(mode):
        raise DataError(f"{where}: the image is not a regular file.")


def _check_size(image: Image.Image, max_megapixels: float, where: str) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > max_megapixels:
        raise DataError(
            f"{where}: the image has {image.width} x {image.height} pixels, more than "
            f"data.max_megapixels={max_megapixels:g} million: shrink it, or raise the limit."
        )


def _rgb(image: Image.Image, where: str) -> Image.Image:
    """Return the image in RGB; Pillow's own conversion would clip deep grey values to 255."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _from_deep_grey(image, where).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(
            f"{where}: the image holds {'decimal' if image.mode == 'F' else '32-bit'} numbers, "
            "whose range is not known: save it with 8 or 16 bits per channel."
        )
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image, where: str) -> Image.Image:
    """Return a grey image of 9 to 16 bits with 8, its whole range scaled to 0..255."""
    bits, inverted = 16, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = _first(image.tag_v2.get(BITS_PER_SAMPLE, 16))
        inverted = image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
        if _first(image.tag_v2.get(SAMPLE_FORMAT, UNSIGNED)) != UNSIGNED:
            raise DataError(
                f"{where}: the image holds signed numbers, whose range is not known: save it with "
                "8 or 16 bits per channel, unsigned."
            )
    grey = np.asarray(image).astype(np.float64) * (255 / (2**bits - 1))
    eight = np.rint(grey.clip(0, 255)).astype(np.uint8)
    return Image.fromarray(255 - eight if inverted else eight)


def _first(value: int | tuple[int, ...]) -> int:
    return value[0] if isinstance(value, tuple) else value
