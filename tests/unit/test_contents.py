"""Images that are replaced: found by their bytes, whatever size and times say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from dlfd_dist.config import DataConfig, ForgetConfig
from dlfd_dist.data import contents as module
from dlfd_dist.data.cache import SPOT_CHECKS, decode, open_cache
from dlfd_dist.data.clean import image_digests
from dlfd_dist.data.contents import contents
from dlfd_dist.data.loaders import RowReader, resolve_rows
from dlfd_dist.data.manifest import Manifest, load_manifest
from dlfd_dist.errors import RunDirError
from dlfd_dist.run_dir import RunDir
from launch.cli import main
from tests.fakes.layouts import write_image, write_manifest
from tests.fakes.tiny import TINY_RUN


@pytest.fixture
def cfg(tmp_path: Path) -> DataConfig:
    root = write_manifest(tmp_path / "data")
    return DataConfig(root=str(root), image_size=8, cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def manifest(cfg: DataConfig) -> Manifest:
    return load_manifest(cfg)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a new process does; files are as good as old."""
    monkeypatch.setattr(module, "_read", {})
    monkeypatch.setattr(module, "SETTLED_S", -1.0)


def image(manifest: Manifest, row: int = 0) -> Path:
    return manifest.root / manifest.image_paths[row]


def replace_as_tar_does(path: Path, other: Path) -> None:
    """Give a file the bytes of another, with the size and the times it had before."""
    before = path.stat()
    content = other.read_bytes()
    size = max(before.st_size, len(content))
    path.write_bytes(content.ljust(size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def equal_sizes(manifest: Manifest) -> None:
    size = max(image(manifest, row).stat().st_size for row in range(len(manifest)))
    for row in range(len(manifest)):
        path = image(manifest, row)
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    rows: list[int] = []
    read = module.file_content
    monkeypatch.setattr(module, "file_content", lambda m, row: rows.append(row) or read(m, row))
    return rows


def test_an_image_replaced_with_equal_size_and_time_is_not_the_old_one(cfg, manifest, tmp_path):
    equal_sizes(manifest)
    old, before = np.array(open_cache(manifest, cfg)), resolve_rows(cfg, ForgetConfig()).digests()
    path = image(manifest)
    status = path.stat()
    replace_as_tar_does(path, image(manifest, 5))
    now = path.stat()
    assert (now.st_size, now.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    new = open_cache(manifest, cfg)
    np.testing.assert_array_equal(new[0], decode(manifest, 0, 8))
    assert not np.array_equal(new[0], old[0])
    after = resolve_rows(cfg, ForgetConfig()).digests()
    assert [name for name in before if before[name] != after[name]] == ["images"]


def test_files_that_have_not_changed_are_read_once(cfg, manifest, monkeypatch):
    rows = counted(monkeypatch)
    folder = Path(cfg.cache_dir or "")
    folder.mkdir()
    first = contents(manifest, folder)
    monkeypatch.setattr(module, "_read", {})  # as another process
    assert contents(manifest, folder).digest == first.digest
    assert sorted(rows) == list(range(16))
    write_image(image(manifest, 3), seed=77)
    monkeypatch.setattr(module, "_read", {})
    assert contents(manifest, folder).digest != first.digest
    assert rows[16:] == [3]
    contents(manifest, folder, verify=True)
    assert sorted(rows[17:]) == list(range(16))


def test_a_young_file_is_read_again(cfg, manifest, monkeypatch):
    monkeypatch.setattr(module, "SETTLED_S", 1000.0)
    rows = counted(monkeypatch)
    for _ in range(2):
        contents(manifest, Path(cfg.cache_dir or ""), keep=False)
    assert len(rows) == 32


def test_a_touched_or_moved_set_is_the_same(cfg, manifest, tmp_path):
    before = contents(manifest, tmp_path, keep=False)
    os.utime(image(manifest), ns=(5, 5))
    assert contents(manifest, tmp_path, keep=False).digest == before.digest
    Path(cfg.root or "").rename(tmp_path / "moved")
    moved = load_manifest(DataConfig(root=str(tmp_path / "moved"), image_size=8))
    assert contents(moved, tmp_path, keep=False).digest == before.digest
    assert contents(moved, tmp_path, keep=False).key == before.key


@pytest.mark.parametrize("content", [b"", b"PK damaged", None])
def test_a_damaged_record_only_costs_the_reading(cfg, manifest, content, monkeypatch):
    folder = Path(cfg.cache_dir or "")
    folder.mkdir()
    first = contents(manifest, folder)
    (file,) = folder.glob("contents-*.npz")
    if content is None:
        np.savez(file, states=np.zeros((3, 4)), digests=np.array(["x"]))
    else:
        file.write_bytes(content)
    monkeypatch.setattr(module, "_read", {})
    assert contents(manifest, folder).digest == first.digest


def test_of_a_large_set_a_sample_is_read_unless_all_is_asked_for(cfg, manifest, monkeypatch):
    monkeypatch.setattr(module, "WHOLE_UP_TO", 10)
    monkeypatch.setattr(module, "SAMPLE", 4)
    rows, folder = counted(monkeypatch), Path(cfg.cache_dir or "")
    sampled = contents(manifest, folder, keep=False)
    assert len(rows) == 4
    assert not sampled.whole
    outside = next(row for row in range(16) if row not in rows)
    whole = contents(manifest, folder, keep=False, verify=True)
    write_image(image(manifest, outside), seed=55)
    changed = contents(manifest, folder, keep=False)
    assert changed.digest == sampled.digest
    assert changed.key != sampled.key  # the cache goes by the state of every file
    assert contents(manifest, folder, keep=False, verify=True).digest != whole.digest


def test_no_certificate_is_issued_on_a_sample_of_the_images(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "SAMPLE", 4)
    monkeypatch.setattr(module, "WHOLE_UP_TO", 10)
    sampled, whole = str(tmp_path / "sampled"), str(tmp_path / "whole")
    assert main(["train", *words, f"run.dir={sampled}"]) == 0
    assert main(["certify", sampled]) == 2
    assert "make the run with data.verify=true" in capsys.readouterr().err
    assert not (Path(sampled) / "certificate.json").exists()
    assert main(["train", *words, "data.verify=true", f"run.dir={whole}"]) == 0
    assert main(["certify", whole]) == 0


def test_a_changed_set_is_told(cfg, manifest, monkeypatch):
    messages: list[str] = []
    monkeypatch.setattr(
        module.logger, "warning", lambda text, *words: messages.append(text % words)
    )
    reader = RowReader()
    reader(cfg, ForgetConfig()).digests()
    os.utime(image(manifest), ns=(5, 5))
    write_image(image(manifest, 2), seed=44)
    rows = RowReader()(cfg, ForgetConfig())
    rows.digests()
    rows.digests()
    assert len(messages) == 1
    assert messages[0].startswith("1 of 16 images under ")
    assert manifest.image_paths[2] in messages[0]


def test_a_run_of_the_old_images_is_not_taken_for_one_of_the_new(tmp_path):
    run = RunDir(tmp_path / "run")
    run.claim("aaaaaaaa", {"data": "1", "images": "2"}, "")
    with pytest.raises(RunDirError, match="holds another run .*this one is bbbbbbbb; its images d"):
        run.check("bbbbbbbb", {"data": "1", "images": "3"})
    assert json.loads(run.identity.read_text())["inputs"]["images"] == "2"


@pytest.mark.parametrize("damage", [b"", b"half", None, "others"])
def test_kept_pixel_digests_are_checked_too(cfg, manifest, damage):
    folder = Path(cfg.cache_dir or "")
    folder.mkdir()
    first = image_digests(manifest, folder)
    (file,) = folder.glob("pixels-*.npy")
    if damage is None:
        np.save(file, first[:-1])
    elif damage == "others":  # no two are equal: no leak would be found
        np.save(file, np.array([f"{row:064x}" for row in range(len(first))]))
    else:
        file.write_bytes(damage)
    np.testing.assert_array_equal(image_digests(manifest, folder), first)


def test_a_dry_run_writes_nothing(cfg, manifest):
    resolve_rows(cfg, ForgetConfig(), draw=False).digests()
    assert not Path(cfg.cache_dir or "").exists()


@pytest.fixture
def words(cfg, manifest) -> list[str]:
    equal_sizes(manifest)
    return [
        "data=manifest", f"data.root={cfg.root}", "data.image_size=32", *TINY_RUN,
        f"data.cache_dir={cfg.cache_dir}", "data.label=label", "forget.fraction=0.3",
        "train.on=retain", "train.epochs=1", "data.leaks=false",
    ]  # fmt: skip


def test_the_same_command_on_replaced_images_does_not_return_the_old_result(
    words, manifest, tmp_path, capsys
):
    command = ["train", *words, f"run.dir={tmp_path / 'run'}"]
    assert main(command) == 0
    for row in range(len(manifest)):
        replace_as_tar_does(image(manifest, row), image(manifest, (row + 5) % len(manifest)))
    for more in ([], ["--dry-run"]):
        capsys.readouterr()
        assert main([*command, *more]) == 2
        assert "its images differ" in capsys.readouterr().err


def test_verify_measures_on_images_that_are_decoded_anew(words, cfg, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", *words, f"run.dir={run}"]) == 0
    assert main(["certify", run]) == 0
    for path in Path(cfg.cache_dir or "").glob("images-*.npy"):
        images = np.load(path)
        rows = np.linspace(0, len(images) - 1, SPOT_CHECKS).astype(int)
        images[np.setdiff1d(np.arange(len(images)), rows)] = 0
        np.save(path, images)
    # 3: every check holds, and nobody signed it.
    assert main(["verify", run, "--recompute"]) == 3, capsys.readouterr().out
