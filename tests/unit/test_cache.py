"""cache.py: decoded once, shared, and nothing left behind when an image is not usable."""

from __future__ import annotations

import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlfd_dist.config import DataConfig
from dlfd_dist.data import cache, filling
from dlfd_dist.data.cache import cache_dir, decode, open_cache
from dlfd_dist.data.manifest import Manifest, load_manifest
from dlfd_dist.errors import DataError
from tests.fakes.layouts import write_image, write_manifest


@pytest.fixture
def cfg(tmp_path: Path) -> DataConfig:
    root = write_manifest(tmp_path / "my data")
    return DataConfig(root=str(root), image_size=8, cache_dir=str(tmp_path / "my cache"))


@pytest.fixture
def manifest(cfg: DataConfig) -> Manifest:
    return load_manifest(cfg)


def cached(cfg: DataConfig) -> list[str]:
    """Return the decoded sets; the digests of the files beside them do not count."""
    folder = cache_dir(cfg)
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    return [name for name in names if not name.startswith("contents-")]


def test_cache_holds_the_decoded_images(cfg, manifest):
    images = open_cache(manifest, cfg)
    assert images.shape == (16, 3, 8, 8)
    assert images.dtype == np.uint8
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    for index in range(len(manifest)):
        np.testing.assert_array_equal(images[index], decode(manifest, index, 8))
    assert [Path(name).suffix for name in cached(cfg)] == [".npy"]


@pytest.mark.parametrize(("verify", "decoded"), [(False, cache.SPOT_CHECKS), (True, 16)])
def test_second_opening_decodes_only_what_it_compares(cfg, manifest, monkeypatch, verify, decoded):
    first = open_cache(manifest, cfg)
    rows = []
    monkeypatch.setattr(cache, "decode", lambda *words: rows.append(words[1]) or decode(*words))
    np.testing.assert_array_equal(first, open_cache(manifest, replace(cfg, verify=verify)))
    assert len(rows) == len(set(rows)) == decoded


def damaged(path: Path, how: str) -> None:
    images = np.load(path).copy()
    if how == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "other rows":
        np.save(path, images[:-1])
    elif how == "other size":
        np.save(path, images[:, :, :4, :4])
    elif how == "other type":
        np.save(path, images.astype(np.float32))
    elif how == "other pixels":
        np.save(path, 255 - images)
    elif how == "in another order":
        np.save(path, images[::-1])


@pytest.mark.parametrize(
    "how",
    ["cut off", "empty", "other rows", "other size", "other type", "other pixels",
     "in another order"],
)  # fmt: skip
def test_a_cache_that_does_not_hold_the_images_is_made_anew(cfg, manifest, how):
    first = np.array(open_cache(manifest, cfg))
    (path,) = cache_dir(cfg).glob("images-*.npy")
    damaged(path, how)
    np.testing.assert_array_equal(open_cache(manifest, cfg), first)


def test_one_wrong_row_is_found_where_the_cache_is_verified(cfg, manifest):
    first = np.array(open_cache(manifest, cfg))
    (path,) = cache_dir(cfg).glob("images-*.npy")
    wrong = first.copy()
    wrong[7] = 0
    np.save(path, wrong)
    np.testing.assert_array_equal(open_cache(manifest, replace(cfg, verify=True)), first)


def test_changed_image_and_other_size_make_another_cache(cfg, manifest):
    open_cache(manifest, cfg)
    path = manifest.root / manifest.image_paths[0]
    os.utime(path, ns=(0, 0))
    open_cache(manifest, cfg)
    assert len(cached(cfg)) == 1  # the same bytes
    write_image(path, seed=99)
    open_cache(manifest, cfg)
    open_cache(manifest, DataConfig(root=cfg.root, image_size=9, cache_dir=cfg.cache_dir))
    assert len(cached(cfg)) == 3


def test_processes_that_open_at_once_share_one_file(cfg, manifest):
    opened = []
    threads = [
        threading.Thread(target=lambda: opened.append(open_cache(manifest, cfg))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    for images in opened:
        np.testing.assert_array_equal(images, opened[0])
    assert len(cached(cfg)) == 1


def test_processes_that_open_at_once_decode_every_image_once(cfg, manifest, monkeypatch):
    rows = []
    monkeypatch.setattr(filling, "PART_ROWS", 3)
    monkeypatch.setattr(cache, "_opened", lambda path, *_: np.load(path) if path.exists() else None)
    monkeypatch.setattr(cache, "decode", lambda *words: rows.append(words[1]) or decode(*words))
    test_processes_that_open_at_once_share_one_file(cfg, manifest)
    assert sorted(rows) == list(range(16))


def test_what_a_killed_process_has_decoded_is_kept(cfg, manifest, monkeypatch):
    rows = []

    def killed(_manifest: Manifest, row: int, size: int) -> np.ndarray:
        if len(rows) == 6:
            raise KeyboardInterrupt
        rows.append(row)
        return decode(manifest, row, size)

    monkeypatch.setattr(filling, "PART_ROWS", 2)
    monkeypatch.setattr(filling, "ThreadPoolExecutor", lambda: ThreadPoolExecutor(1))
    monkeypatch.setattr(cache, "decode", killed)
    with pytest.raises(KeyboardInterrupt):
        open_cache(manifest, cfg)
    before = sorted(rows)
    rows.clear()
    monkeypatch.setattr(cache, "decode", lambda *words: rows.append(words[1]) or decode(*words))
    images = open_cache(manifest, cfg)
    assert sorted(before + rows) == list(range(16))
    np.testing.assert_array_equal(images, [decode(manifest, row, 8) for row in range(16)])
    assert [Path(name).suffix for name in cached(cfg)] == [".npy"]


def test_an_image_that_cannot_be_decoded_fails_in_every_process(cfg, manifest, monkeypatch):
    def broken(_manifest: Manifest, row: int, size: int) -> np.ndarray:
        if row == 4:
            raise DataError("row 6 cannot be decoded")
        return decode(manifest, row, size)

    errors = []

    def opens() -> None:
        try:
            open_cache(manifest, cfg)
        except DataError as err:
            errors.append(str(err))

    monkeypatch.setattr(filling, "PART_ROWS", 2)
    monkeypatch.setattr(cache, "decode", broken)
    threads = [threading.Thread(target=opens) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["row 6 cannot be decoded"] * 3
    assert cached(cfg) == []


def test_missing_image_names_its_row(cfg, manifest):
    (manifest.root / manifest.image_paths[4]).unlink()
    with pytest.raises(DataError, match=r"row 6 \(images/p2_0.png\): the image is missing under"):
        open_cache(manifest, cfg)
    with pytest.raises(DataError, match="row 6 .*missing"):
        decode(manifest, 4, 8)
    assert cached(cfg) == []


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken", None])
def test_corrupt_image_names_its_row_and_leaves_nothing(cfg, manifest, content):
    path = manifest.root / manifest.image_paths[4]
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    with pytest.raises(DataError, match=r"row 6 \(images/p2_0.png\): the image cannot be decoded"):
        open_cache(manifest, cfg)
    assert cached(cfg) == []


def test_oversized_image_is_refused(manifest, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match="row 2 .*cannot be decoded.*decompression bomb"):
        decode(manifest, 0, 8)


def test_decode_crops_the_middle(tmp_path, manifest):
    pixels = np.zeros((4, 12, 3), dtype=np.uint8)
    pixels[:, 4:8] = 200
    Image.fromarray(pixels).save(manifest.root / manifest.image_paths[0])
    assert (decode(manifest, 0, 4) == 200).all()


def test_decode_turns_by_exif_and_makes_grey_colour(manifest):
    pixels = np.zeros((4, 4), dtype=np.uint8)
    pixels[0] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    image.save(manifest.root / manifest.image_paths[0], exif=exif)
    assert (decode(manifest, 0, 4)[:, 3] == 255).all()


def test_full_disk_is_a_data_error(cfg, manifest, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="cannot be written .*No space left.*data.cache_dir"):
        open_cache(manifest, cfg)
    assert cached(cfg) == []


def test_folder_that_cannot_be_made_is_a_data_error(tmp_path, manifest):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cache folder .* cannot be made"):
        open_cache(manifest, DataConfig(image_size=8, cache_dir=str(tmp_path / "file" / "below")))


def test_cache_works_without_file_locks(cfg, manifest, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    assert open_cache(manifest, cfg).shape == (16, 3, 8, 8)
    assert len(cached(cfg)) == 1


def test_cache_folder_follows_setting_then_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("DLFD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir(DataConfig()) == tmp_path / "xdg" / "dlfd-dist"
    monkeypatch.setenv("DLFD_CACHE", "~/faces")
    assert cache_dir(DataConfig()) == Path("~/faces").expanduser()
    assert cache_dir(DataConfig(cache_dir=str(tmp_path))) == tmp_path
