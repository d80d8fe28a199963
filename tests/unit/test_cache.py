"""cache.py: decoded once, shared, and nothing left behind when an image is not usable."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlfd_dist.config import DataConfig
from dlfd_dist.data import cache
from dlfd_dist.data.cache import cache_dir, decode, open_cache
from dlfd_dist.data.manifest import Manifest, load_manifest
from dlfd_dist.errors import DataError
from tests.fakes.layouts import write_manifest


@pytest.fixture
def cfg(tmp_path: Path) -> DataConfig:
    root = write_manifest(tmp_path / "my data")
    return DataConfig(root=str(root), image_size=8, cache_dir=str(tmp_path / "my cache"))


@pytest.fixture
def manifest(cfg: DataConfig) -> Manifest:
    return load_manifest(cfg)


def cached(cfg: DataConfig) -> list[str]:
    folder = cache_dir(cfg)
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_cache_holds_the_decoded_images(cfg, manifest):
    images = open_cache(manifest, cfg)
    assert images.shape == (16, 3, 8, 8)
    assert images.dtype == np.uint8
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    for index in range(len(manifest)):
        np.testing.assert_array_equal(images[index], decode(manifest, index, 8))
    assert [Path(name).suffix for name in cached(cfg)] == [".npy"]


def test_second_opening_decodes_nothing(cfg, manifest, monkeypatch):
    first = open_cache(manifest, cfg)
    monkeypatch.setattr(cache, "decode", lambda *_: pytest.fail("decoded again"))
    np.testing.assert_array_equal(first, open_cache(manifest, cfg))


def test_changed_image_and_other_size_make_another_cache(cfg, manifest):
    open_cache(manifest, cfg)
    path = manifest.root / manifest.image_paths[0]
    os.utime(path, ns=(0, 0))
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

    monkeypatch.setattr(cache.os, "posix_fallocate", full)
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
