"""data.clean: planted duplicates and leaks leave MUFAC, and every removed file is accounted for."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlfd_dist.compose import compose_job
from dlfd_dist.config import DataConfig, ForgetConfig
from dlfd_dist.data import clean as cleaning
from dlfd_dist.data import mufac
from dlfd_dist.data.clean import image_digests, remove_equal
from dlfd_dist.data.loaders import resolve_data, resolve_rows
from dlfd_dist.data.manifest import Manifest
from dlfd_dist.data.splits import make_splits
from dlfd_dist.errors import ConfigError, DataError
from dlfd_dist.jobs import prepare
from dlfd_dist.jobs.plan import plan
from tests.fakes.layouts import write_csv, write_image
from tests.fakes.mufac import config, file_names, resolve

# name -> seed of the picture; equal seeds are equal pixels. Forgotten are the first four of train.
TRAIN = {
    "F0001_AGE_D_18_a1.png": 1,
    "F0001_AGE_D_18_a2.png": 1,  # duplicate within forget
    "F0001_AGE_D_18_a3.png": 2,  # leak: also in retain
    "F0001_AGE_D_18_a4.png": 3,
    "F0002_AGE_M_40_e1.png": 2,
    "F0002_AGE_M_40_e2.png": 4,
    "F0002_AGE_M_40_e3.png": 4,  # duplicate within retain
    "F0002_AGE_M_40_e4.png": 4,  # and once more
}
VAL = {
    "F0801_AGE_M_48_f1.png": 5,
    "F0801_AGE_M_48_f2.png": 5,  # duplicate within val
    "F0801_AGE_M_48_f3.png": 6,
}
TEST = {
    "F0901_AGE_S_12_b1.png": 4,  # leak from retain
    "F0901_AGE_S_12_b2.png": 3,  # leak from forget
    "F0901_AGE_S_12_b3.png": 6,  # leak from val
    "F0901_AGE_S_12_b4.png": 7,
}

REMOVED = [
    ("F0002_AGE_M_40_e3.png", "retain", "duplicate", "F0002_AGE_M_40_e2.png", "retain"),
    ("F0002_AGE_M_40_e4.png", "retain", "duplicate", "F0002_AGE_M_40_e2.png", "retain"),
    ("F0001_AGE_D_18_a2.png", "forget", "duplicate", "F0001_AGE_D_18_a1.png", "forget"),
    ("F0001_AGE_D_18_a3.png", "forget", "leak", "F0002_AGE_M_40_e1.png", "retain"),
    ("F0801_AGE_M_48_f2.png", "val", "duplicate", "F0801_AGE_M_48_f1.png", "val"),
    ("F0901_AGE_S_12_b1.png", "test", "leak", "F0002_AGE_M_40_e2.png", "retain"),
    ("F0901_AGE_S_12_b2.png", "test", "leak", "F0001_AGE_D_18_a4.png", "forget"),
    ("F0901_AGE_S_12_b3.png", "test", "leak", "F0801_AGE_M_48_f3.png", "val"),
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write MUFAC with planted duplicates and leaks, of which four rows are to be forgotten."""
    monkeypatch.setattr(mufac, "NUM_FORGET", 4)
    for split, names in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        rows = []
        for name, seed in names.items():
            write_image(tmp_path / f"{split}_images" / name, seed)
            rows.append({"image_path": name, "age_class": name.split("_")[-1][0]})
        write_csv(tmp_path / f"custom_{split}_dataset.csv", rows)
    return tmp_path


def test_raw_keeps_every_row(root):
    rows = resolve(root)
    assert sum(len(names) for names in file_names(rows).values()) == len(rows.manifest) == 15
    assert file_names(rows)["forget"] == list(TRAIN)[:4]
    assert rows.removals.images == ()
    assert "removed" not in rows.digests()


def test_every_removed_file_is_listed_with_its_reason(root):
    rows = resolve(root, clean=True)
    found = [
        (Path(r.image_path).name, r.part, r.reason, Path(r.kept_path).name, r.kept_part)
        for r in rows.removals.images
    ]
    assert found == REMOVED


def test_kept_and_removed_together_are_the_data_set(root):
    rows = resolve(root, clean=True)
    kept = [rows.manifest.image_paths[i] for ids in rows.splits.parts().values() for i in ids]
    removed = [r.image_path for r in rows.removals.images]
    assert sorted(kept + removed) == sorted(rows.manifest.image_paths)
    assert len(set(kept) & set(removed)) == 0


def test_kept_images_are_all_different(root):
    rows = resolve(root, clean=True)
    digests = image_digests(rows.manifest, None)
    kept = np.concatenate(list(rows.splits.parts().values()))
    assert len(set(digests[kept])) == len(kept) == len(set(digests)) == 7
    assert file_names(rows) == {
        "retain": ["F0002_AGE_M_40_e1.png", "F0002_AGE_M_40_e2.png"],
        "forget": ["F0001_AGE_D_18_a1.png", "F0001_AGE_D_18_a4.png"],
        "val": ["F0801_AGE_M_48_f1.png", "F0801_AGE_M_48_f3.png"],
        "test": ["F0901_AGE_S_12_b4.png"],
    }


def test_train_and_request_are_what_is_left_of_retain_and_forget(root):
    rows = resolve(root, clean=True)
    s = rows.splits
    np.testing.assert_array_equal(s.train, np.sort(np.concatenate([s.retain, s.forget])))
    np.testing.assert_array_equal(rows.request.rows, s.forget)


def test_raw_and_clean_have_different_digests_and_the_same_decoded_images(root):
    raw, clean = (
        resolve_data(config(root, clean=c), ForgetConfig(published=True)) for c in (False, True)
    )
    assert raw.digests()["data"] != clean.digests()["data"]
    assert raw.digests()["request"] != clean.digests()["request"]
    assert clean.digests()["removed"] == clean.removals.digest
    assert len(list((root / "cache").glob("images-*.npy"))) == 1
    np.testing.assert_array_equal(raw.images, clean.images)


def test_the_digest_of_the_list_is_that_of_what_is_in_it(root):
    first = resolve(root, clean=True).removals
    assert first.digest == resolve(root, clean=True).removals.digest
    write_image(root / "test_images" / "F0901_AGE_S_12_b3.png", seed=8)
    second = resolve(root, clean=True).removals
    assert len(second.images) == len(first.images) - 1
    assert second.digest != first.digest


def test_a_request_whose_image_stays_in_the_retain_set_is_told_so(root, caplog):
    resolve(root, clean=True)
    assert "1 to 2 images of the forget request are equal or near to retain images" in caplog.text


def test_the_audit_of_a_clean_run_tells_what_was_found_before_cleaning(root):
    """An image to forget is left out, and its twin stays in training: nobody may read "no leak"."""
    raw, clean = (
        resolve_data(config(root, clean=c), ForgetConfig(published=True)) for c in (False, True)
    )
    assert raw.leaks is not None
    assert clean.leaks is not None
    assert clean.leaks.to_dict() == raw.leaks.to_dict()
    assert clean.leaks.counts()["exact"]["retain-forget"] == 1
    assert clean.leaks.stay == raw.leaks.stay != ()


def test_a_run_keeps_the_list_beside_its_request(root, tmp_path):
    overrides = ["data=mufac", f"data.root={root}", "data.image_size=32", "forget.published=true"]
    for clean in (True, False):
        run_dir = tmp_path / f"clean_{clean}"
        config = compose_job(
            "train", [*overrides, f"data.clean={str(clean).lower()}", f"run.dir={run_dir}"]
        )
        prepare(config, 1).claim()
        listed = run_dir / "removed.csv"
        assert listed.is_file() is clean
        assert str(listed) in plan(config)["files"] or not clean
    assert len((tmp_path / "clean_True" / "removed.csv").read_text().splitlines()) == 1 + len(
        REMOVED
    )


def test_the_list_is_a_csv(root):
    rows = list(csv.DictReader(io.StringIO(resolve(root, clean=True).removals.to_csv())))
    assert len(rows) == len(REMOVED)
    assert rows[3] == {
        "image_path": "train_images/F0001_AGE_D_18_a3.png",
        "part": "forget",
        "reason": "leak",
        "kept_path": "train_images/F0002_AGE_M_40_e1.png",
        "kept_part": "retain",
    }


def test_equal_pixels_count_whatever_the_file(root):
    source = root / "val_images" / "F0801_AGE_M_48_f3.png"
    twin = root / "test_images" / "F0901_AGE_S_12_b4.png"
    with Image.open(source) as image:
        image.save(twin, compress_level=0)
    assert source.read_bytes() != twin.read_bytes()
    write_image(root / "test_images" / "F0901_AGE_S_12_b3.png", seed=9)
    removed = {Path(r.image_path).name: r for r in resolve(root, clean=True).removals.images}
    assert removed[twin.name].kept_path == f"val_images/{source.name}"


def test_one_different_pixel_is_another_image(root):
    path = root / "test_images" / "F0901_AGE_S_12_b3.png"
    with Image.open(path) as image:
        changed = image.copy()
    red, green, blue = changed.getpixel((0, 0))  # type: ignore[misc]
    changed.putpixel((0, 0), (red ^ 1, green, blue))
    changed.save(path)
    exact = resolve(root, clean=True, clean_near=False).removals.images
    assert path.name not in {Path(r.image_path).name for r in exact}
    reasons = {Path(r.image_path).name: r.reason for r in resolve(root, clean=True).removals.images}
    assert reasons[path.name] == "near leak"


def test_an_image_of_another_shape_is_another_image(root):
    """Two images of one colour have the same bytes of pixels when they are as large."""
    for name, size in (("b3", (2, 8)), ("b4", (8, 2))):
        image = Image.new("RGB", size, (9, 9, 9))
        image.save(root / "test_images" / f"F0901_AGE_S_12_{name}.png")
    assert len(file_names(resolve(root, clean=True))["test"]) == 2


def test_nothing_is_written_by_a_dry_run(root):
    rows = resolve_rows(config(root, clean=True), ForgetConfig(published=True), draw=False)
    assert len(rows.removals.images) == len(REMOVED)
    assert not (root / "cache").exists()


def test_pixels_are_read_once_and_looked_at_in_a_few_rows(root, monkeypatch):
    resolve(root, clean=True)
    read, rows = cleaning.read_image, []
    monkeypatch.setattr(cleaning, "read_image", lambda m, row: rows.append(row) or read(m, row))
    assert len(resolve(root, clean=True).removals.images) == len(REMOVED)
    # Once for the digests, and once for the kept pairs that are bound to them.
    assert len(set(rows)) == cleaning.SPOT_CHECKS
    assert len(rows) == 2 * cleaning.SPOT_CHECKS


def test_a_part_without_anything_left_is_an_error(root):
    for name in TEST:
        shutil.copy(root / "val_images" / "F0801_AGE_M_48_f1.png", root / "test_images" / name)
    with pytest.raises(DataError, match=r"leaves nothing of the test set: all of its 4 images"):
        resolve(root, clean=True)


def test_a_missing_image_names_its_row(root):
    (root / "val_images" / "F0801_AGE_M_48_f2.png").unlink()
    with pytest.raises(DataError, match=r"row 11 .*F0801_AGE_M_48_f2.png.* is missing"):
        resolve(root, clean=True)


def test_a_corrupt_image_names_its_row(root):
    (root / "val_images" / "F0801_AGE_M_48_f2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"row 11 .*F0801_AGE_M_48_f2.png.* cannot be decoded"):
        resolve(root, clean=True)


def test_drawn_faces_are_not_cleaned():
    with pytest.raises(ConfigError, match=r"data.clean=true is not allowed with data=synthetic"):
        DataConfig(name="synthetic", clean=True)


@pytest.mark.parametrize("seed", range(5))
def test_any_grouping_keeps_one_image_of_each_group_in_the_first_part(seed):
    rng = np.random.default_rng(seed)
    digests = rng.integers(0, 12, 40).astype(str)
    names = np.array(["train"] * 24 + ["val"] * 8 + ["test"] * 8)
    manifest = Manifest(
        root=Path(), image_paths=[f"{i}.png" for i in range(40)],
        identities=np.arange(40).astype(str), labels=np.zeros(40, dtype=np.int64), splits=names,
        label_names=["a", "b"], title="",
    )  # fmt: skip
    before = make_splits(names, np.arange(6))
    # A row of its own in every part, so that none is emptied.
    for part, rows in before.parts().items():
        digests[rows[0]] = part
    after, removals = remove_equal(manifest, before, digests)
    kept = np.concatenate(list(after.parts().values()))
    assert sorted(digests[kept]) == sorted(set(digests))
    assert len(kept) + len(removals.images) == 40
    order = list(before.parts())
    for part, rows in after.parts().items():
        earlier = [before.parts()[p] for p in order[: order.index(part)]]
        assert not set(digests[rows]) & {d for ids in earlier for d in digests[ids]}
