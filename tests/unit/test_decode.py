"""Image files as people have them: deep grey, turned, hostile; each read faithfully or refused."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dlfd_dist.config import DataConfig
from dlfd_dist.data import Manifest
from dlfd_dist.data.cache import open_cache
from dlfd_dist.data.decode import ORIENTATION, OTHER_SUFFIXES, decode, read_image
from dlfd_dist.data.loaders import load_rows
from dlfd_dist.errors import DataError
from tests.fakes.layouts import write_manifest

RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)


def manifest_of(path: Path, **values) -> Manifest:
    return Manifest(
        root=path.parent, image_paths=[path.name], identities=np.array(["p"]),
        labels=np.array([0]), splits=np.array(["train"]), label_names=["a", "b"], title="t",
        **values,
    )  # fmt: skip


def grey(path: Path) -> np.ndarray:
    pixels = np.asarray(read_image(manifest_of(path), 0))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def write_pgm(path: Path, values: np.ndarray, largest: int) -> None:
    head = f"P5 {values.shape[1]} {values.shape[0]} {largest}\n".encode()
    path.write_bytes(head + values.astype(">u2").tobytes())


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_grey_is_scaled_by_its_depth(name, tmp_path):
    if name == "a.pgm":
        write_pgm(tmp_path / name, RAMP, 65535)
    else:
        Image.fromarray(RAMP).save(tmp_path / name)
    np.testing.assert_array_equal(grey(tmp_path / name), np.rint(RAMP / 257))


def test_pgm_of_12_bits_is_scaled_by_its_largest_value(tmp_path):
    values = (RAMP >> 4).astype(np.uint16)
    write_pgm(tmp_path / "a.pgm", values, 4095)
    np.testing.assert_allclose(grey(tmp_path / "a.pgm"), values / 4095 * 255, atol=1)


def write_tiff(path: Path, data: bytes, tags: dict[int, int]) -> None:
    """Write an 8 x 8 TIFF of one strip by hand: little-endian, tags as SHORT or LONG."""
    entries = {256: 8, 257: 8, 259: 1, 273: 0, 277: 1, 278: 8, 279: len(data), **tags}
    start = 8 + 2 + 12 * len(entries) + 4
    entries[273] = start
    body = b"".join(
        struct.pack("<HHIHxx", tag, 3, 1, value) for tag, value in sorted(entries.items())
    )
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + bytes(4) + data
    )


def test_white_is_zero_is_turned_round(tmp_path):
    write_tiff(tmp_path / "a.tif", RAMP.astype("<u2").tobytes(), {258: 16, 262: 0})
    np.testing.assert_array_equal(grey(tmp_path / "a.tif"), 255 - np.rint(RAMP / 257))


@pytest.mark.parametrize(
    ("mode", "dtype", "message"),
    [("I", np.int32, "holds 32-bit numbers"), ("F", np.float32, "holds decimal numbers")],
)
def test_numbers_of_unknown_range_are_refused(mode, dtype, message, tmp_path):
    image = Image.fromarray(np.arange(64, dtype=dtype).reshape(8, 8))
    assert image.mode == mode
    image.save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=rf"row 2 \(a.tif\): the image {message}.*8 or 16 bits"):
        read_image(manifest_of(tmp_path / "a.tif"), 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation, tmp_path):
    """The corner that was upper left in the scene is red, whatever the camera stored."""
    inverse = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    scene = Image.new("RGB", (48, 32), "blue")
    scene.paste("red", (0, 0, 16, 16))
    stored = scene if inverse is None else scene.transpose(Image.Transpose(inverse))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    shown = read_image(manifest_of(tmp_path / "a.jpg"), 0)
    assert shown.size == (48, 32)
    red, _, blue = shown.getpixel((4, 4))
    assert red > 200 > 60 > blue


def test_exif_that_cannot_be_written_again_does_not_matter(tmp_path):
    """Pillow#8605: XResolution typed as text; ImageOps.exif_transpose fails as it writes EXIF."""
    scene = Image.new("RGB", (48, 32), "blue")
    scene.paste("red", (0, 0, 16, 16))
    text = b"72\0"
    entries = struct.pack("<HHIHxx", 0x0112, 3, 1, 6) + struct.pack("<HHI4s", 0x011A, 2, 3, text)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    scene.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    shown = read_image(manifest_of(tmp_path / "a.jpg"), 0)
    assert shown.size == (48, 32)
    assert shown.getpixel((4, 4))[0] > 200


def test_whatever_a_decoder_raises_names_the_row(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def fails(*_args, **_values):
        raise TypeError("'<' not supported")

    monkeypatch.setattr(Image.Image, "convert", fails)
    with pytest.raises(DataError, match=r"row 2 \(a.png\): the image cannot be decoded \('<' not"):
        read_image(manifest_of(tmp_path / "a.png"), 0)


def test_postscript_under_another_name_starts_nothing(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", format="EPS")
    with pytest.raises(DataError, match=r"cannot be decoded: it is none of BMP, GIF, JPEG"):
        read_image(manifest_of(tmp_path / "a.jpg"), 0)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path):
    Image.new("1", (3000, 1000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"3000 x 1000 pixels, more than data.max_megapixels=2 "):
        read_image(manifest_of(tmp_path / "a.png", max_megapixels=2.0), 0)
    assert read_image(manifest_of(tmp_path / "a.png"), 0).size == (3000, 1000)


def photograph(path, width: int, height: int, **options) -> None:
    """Write a JPEG with an even background, a disc, and noise as a sensor has it."""
    y, x = np.mgrid[:height, :width]
    disc = ((x - width * 0.4) ** 2 + (y - height * 0.5) ** 2 < (height / 4) ** 2)[..., None]
    noise = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    pixels = np.where(disc, [200, 120, 90], [60, 90, 140]) + noise
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=92, **options)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_drafted_photograph_is_nearly_the_same_picture(orientation, tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photograph(tmp_path / "a.jpg", 800, 600, exif=exif)
    sizes = []
    fit = ImageOps.fit
    monkeypatch.setattr(
        "dlfd_dist.data.decode.ImageOps.fit",
        lambda image, *more: sizes.append(sorted(image.size)) or fit(image, *more),
    )
    whole, drafted = (
        decode(manifest_of(tmp_path / "a.jpg", draft=draft), 0, 64).astype(int)
        for draft in (False, True)
    )
    assert sizes == [[600, 800], [150, 200]]
    apart = np.abs(whole - drafted)
    assert apart.mean() < 1.0
    assert 0 < apart.max() < 40


@pytest.mark.parametrize("name", ["a.png", "small.jpg"])
def test_what_cannot_be_or_need_not_be_drafted_is_the_same(name, tmp_path):
    photograph(tmp_path / "small.jpg", 100, 120)
    Image.open(tmp_path / "small.jpg").resize((400, 400)).save(tmp_path / "a.png")
    whole, drafted = (
        decode(manifest_of(tmp_path / name, draft=draft), 0, 64) for draft in (False, True)
    )
    np.testing.assert_array_equal(whole, drafted)


def test_drafted_images_have_a_cache_of_their_own(tmp_path):
    root = write_manifest(tmp_path / "set")
    for draft in (False, True):
        cfg = DataConfig(root=str(root), image_size=8, cache_dir=str(tmp_path / "c"), draft=draft)
        open_cache(load_rows(cfg), cfg)
    names = sorted(path.name.endswith("-draft.npy") for path in (tmp_path / "c").glob("images-*"))
    assert names.count(True) == names.count(False) == 1


def test_a_fifo_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="is not a regular file"):
        read_image(manifest_of(tmp_path / "a.png"), 0)


def test_an_image_that_may_not_be_read_is_not_called_missing(tmp_path, monkeypatch):
    def refuses(*_args, **_values):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuses)
    with pytest.raises(DataError, match=r"may not be read \(Permission denied\)"):
        read_image(manifest_of(tmp_path / "a.png"), 0)


@pytest.mark.parametrize("name", ["a.tif", "a.ppm", "a.gif", "a.jfif", "a.webp", "a.bmp", "a.jp2"])
def test_formats_of_torchvision_and_more_are_read(name, tmp_path):
    Image.new("RGB", (8, 8), "white").save(
        tmp_path / name, format="JPEG" if name.endswith("jfif") else None
    )
    assert decode(manifest_of(tmp_path / name), 0, 8).min() > 250


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        suffix = Path(name).suffix
        if suffix in OTHER_SUFFIXES:
            (root / name).write_bytes(b"ftypheic")
        else:
            Image.new("RGB", (8, 8)).save(root / name)
    return root


def test_a_person_with_tiff_alone_is_not_left_out(tmp_path):
    from dlfd_dist.config import DataConfig
    from dlfd_dist.data import datasets

    root = folder(tmp_path, "a/ann/1.png", "a/bob/1.tif", "b/ann/2.gif")
    manifest = datasets.get("image_folder")(DataConfig(name="image_folder", root=str(root)))
    assert sorted(manifest.identities) == ["ann", "ann", "bob"]


def test_images_that_are_not_read_are_refused_unless_allowed(tmp_path, caplog):
    from dlfd_dist.config import DataConfig
    from dlfd_dist.data import datasets

    root = folder(tmp_path, "a/ann/1.png", "a/bob/1.heic", "b/ann/2.png")
    load = datasets.get("image_folder")
    with pytest.raises(DataError, match=r"holds 1 image of formats.*1.heic.*skip_unsupported"):
        load(DataConfig(name="image_folder", root=str(root)))
    manifest = load(DataConfig(name="image_folder", root=str(root), skip_unsupported=True))
    assert len(manifest) == 2
    assert "left out: 1 image of formats that are not read" in caplog.text


def test_the_folder_is_the_person_where_asked(tmp_path):
    from dlfd_dist.config import DataConfig
    from dlfd_dist.data import datasets
    from dlfd_dist.data.forget_request import resolve_entries

    root = folder(tmp_path, "anna/1.png", "anna/2.png", "bert/1.png")
    load = datasets.get("image_folder")
    splits = np.array(["train"] * 3)
    by_image = load(DataConfig(name="image_folder", root=str(root)))
    with pytest.raises(DataError, match=r"'anna' is a class\. .*data.identity=folder"):
        resolve_entries([(1, "anna")], "forget.request=r.txt", by_image, splits)
    by_folder = load(DataConfig(name="image_folder", root=str(root), identity="folder"))
    assert len(resolve_entries([(1, "anna")], "r", by_folder, splits).rows) == 2
