"""manifest.py and splits.py: what is read, what is refused, and who ends in which split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlfd_dist.config import DataConfig
from dlfd_dist.data.manifest import Manifest, load_manifest
from dlfd_dist.data.splits import assign_splits, make_splits
from dlfd_dist.errors import ConfigError, DataError
from tests.fakes.layouts import manifest_rows, write_csv, write_manifest


def load(root: Path, rows: list[dict] | None = None, **settings) -> Manifest:
    if rows is not None:
        write_csv(root / "metadata.csv", rows)
    return load_manifest(DataConfig(root=str(root), **settings))


def with_splits(splits: list[str]) -> list[dict]:
    """Return one row per split, each of another person, with labels 0, 1, 0, 1, ..."""
    return [
        {"image_path": f"{i}.png", "identity": f"p{i}", "label": i % 2, "split": split}
        for i, split in enumerate(splits)
    ]


def test_manifest_reads_columns(tmp_path):
    write_manifest(tmp_path / "small set")
    manifest = load(tmp_path / "small set")
    assert len(manifest) == 16
    assert manifest.title == "small set"
    assert manifest.labels.tolist() == [0, 1] * 8
    assert manifest.labels.dtype == np.int64
    assert manifest.identities[3] == "p1"
    assert manifest.num_outputs == 2
    assert not manifest.multi_label
    assert not manifest.may_show


def test_byte_order_mark_and_spaces_do_not_matter(tmp_path):
    text = "\ufeffimage_path,identity,label\n a.png , p1 , 0 \nb.png,p2,1\n"
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8")
    manifest = load(tmp_path)
    assert manifest.image_paths == ["a.png", "b.png"]
    assert manifest.identities.tolist() == ["p1", "p2"]


def test_classes_are_numbered_in_sorted_order(tmp_path):
    rows = manifest_rows(2)
    for row, label in zip(rows, ["smile", "neutral", "angry", "smile"], strict=True):
        row["label"] = label
    manifest = load(tmp_path, rows)
    assert manifest.label_names == ["angry", "neutral", "smile"]
    assert manifest.labels.tolist() == [2, 1, 0, 2]


def test_integer_labels_keep_their_numbers(tmp_path):
    rows = manifest_rows(1)
    rows[0]["label"], rows[1]["label"] = "00", "3"
    manifest = load(tmp_path, rows)
    assert manifest.labels.tolist() == [0, 3]
    assert manifest.label_names == ["0", "1", "2", "3"]


def test_label_name_column_names_the_classes(tmp_path):
    rows = [row | {"label_name": "yes" if row["label"] else "no"} for row in manifest_rows()]
    assert load(tmp_path, rows).label_names == ["no", "yes"]


def test_two_names_for_one_label_are_refused(tmp_path):
    rows = [row | {"label_name": f"name{i}"} for i, row in enumerate(manifest_rows(2))]
    with pytest.raises(DataError, match="row 4: the label 0 is named 'name2', but 'name0'"):
        load(tmp_path, rows)


def test_several_label_columns_make_a_multi_label_task(tmp_path):
    rows = [row | {"male": -1, "young": 1} for row in manifest_rows(2)]
    manifest = load(tmp_path, rows, label=["male", "young"])
    assert manifest.labels.tolist() == [[0, 1]] * 4
    assert manifest.label_names == ["male", "young"]
    assert manifest.multi_label


def test_multi_label_refuses_other_values(tmp_path):
    rows = [row | {"male": 2, "young": 1} for row in manifest_rows(2)]
    with pytest.raises(DataError, match="row 2: the label male='2' is unknown"):
        load(tmp_path, rows, label=["male", "young"])


def test_missing_root_is_named():
    with pytest.raises(DataError, match="data.root is missing"):
        load_manifest(DataConfig())
    with pytest.raises(DataError, match="data.root=/no/such/folder is not a folder"):
        load_manifest(DataConfig(root="/no/such/folder"))


def test_missing_manifest_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no manifest at .*people\.csv"):
        load(tmp_path, manifest="people.csv")


@pytest.mark.parametrize("column", ["image_path", "identity", "label"])
def test_missing_column_is_named(tmp_path, column):
    rows = [{k: v for k, v in row.items() if k != column} for row in manifest_rows()]
    with pytest.raises(DataError, match=f"lacks the column {column}; it has "):
        load(tmp_path, rows)


def test_empty_file_lacks_its_columns(tmp_path):
    (tmp_path / "metadata.csv").write_text("")
    with pytest.raises(DataError, match="lacks the column image_path; it has none"):
        load(tmp_path)


def test_header_alone_has_no_rows(tmp_path):
    (tmp_path / "metadata.csv").write_text("image_path,identity,label\n")
    with pytest.raises(DataError, match="has no rows"):
        load(tmp_path)


def test_undecodable_manifest_is_refused(tmp_path):
    (tmp_path / "metadata.csv").write_bytes(b"image_path,identity,label\n\xff\xfe.png,p,0\n")
    with pytest.raises(DataError, match="is not a CSV text file"):
        load(tmp_path)


def test_empty_cell_is_named(tmp_path):
    rows = manifest_rows()
    rows[2]["identity"] = " "
    with pytest.raises(DataError, match="row 4: the column identity is empty"):
        load(tmp_path, rows)


def test_short_row_is_named(tmp_path):
    (tmp_path / "metadata.csv").write_text("image_path,identity,label\na.png,p\n")
    with pytest.raises(DataError, match="row 2: it has 2 values and the header 3 columns"):
        load(tmp_path)


@pytest.mark.parametrize(
    "image_path", ["../secret.png", "images/../../secret.png", "/etc/hosts", " /etc/hosts", " ../a"]
)
def test_path_out_of_the_root_is_refused(tmp_path, image_path):
    rows = manifest_rows()
    rows[1]["image_path"] = image_path
    with pytest.raises(DataError, match="row 3: .* leads out of data.root"):
        load(tmp_path, rows)


def test_unknown_split_is_refused(tmp_path):
    with pytest.raises(DataError, match="row 3: split 'valid' is unknown"):
        load(tmp_path, with_splits(["train", "valid", "test"]))


def test_label_that_training_rows_lack_is_refused(tmp_path):
    rows = with_splits(["train", "train", "val", "test"])
    rows[3]["label"] = 2
    with pytest.raises(DataError, match="row 5: the label '2' is unknown; .* have 0, 1"):
        load(tmp_path, rows)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["0", "-1"], "row 3: the label '-1' is unknown"),
        (["-1", "-1"], "the training rows have no class"),
        (["0", "20240131"], "20240131 is too large for a class number"),
        (["0", "0"], "have one label only"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(tmp_path, labels, message):
    rows = manifest_rows(1)
    for row, label in zip(rows, labels, strict=True):
        row["label"] = label
    with pytest.raises(DataError, match=message):
        load(tmp_path, rows)


def test_digits_that_are_no_integers_are_names(tmp_path):
    rows = manifest_rows(1)
    rows[0]["label"], rows[1]["label"] = "1", "²"
    assert load(tmp_path, rows).label_names == ["1", "²"]


def test_drawn_splits_are_disjoint_by_identity_and_repeatable(tmp_path):
    manifest = load(tmp_path, manifest_rows(num_people=20, images_per_person=3))
    cfg = DataConfig(val_fraction=0.2, test_fraction=0.1, split_seed=3)
    splits = assign_splits(manifest, cfg)
    people = {name: set(manifest.identities[splits == name]) for name in ("train", "val", "test")}
    assert {name: len(found) for name, found in people.items()} == {
        "train": 14,
        "val": 4,
        "test": 2,
    }
    assert len(set.union(*people.values())) == 20
    assert (splits == assign_splits(manifest, cfg)).all()
    assert (splits != assign_splits(manifest, DataConfig(split_seed=4))).any()


def test_named_splits_are_kept(tmp_path):
    names = ["train", "train", "val", "test"]
    manifest = load(tmp_path, with_splits(names))
    assert assign_splits(manifest, DataConfig()).tolist() == names


def test_identity_in_two_splits_is_refused(tmp_path):
    rows = with_splits(["train", "train", "val", "test"])
    rows[3]["identity"] = "p1"
    with pytest.raises(DataError, match=r"'p1' stands in two splits \(test and train\): give"):
        assign_splits(load(tmp_path, rows), DataConfig())


def test_further_identities_in_two_splits_are_counted(tmp_path):
    rows = with_splits(["train", "train", "val", "test"])
    rows[3]["identity"], rows[2]["identity"] = "p1", "p0"
    with pytest.raises(DataError, match="'p0' stands in two splits .* and so do 1 more"):
        assign_splits(load(tmp_path, rows), DataConfig())


def test_partly_named_splits_are_refused(tmp_path):
    manifest = load(tmp_path, with_splits(["train", "train", "", "test"]))
    with pytest.raises(DataError, match=r"row 4 \(2\.png\) names no split"):
        assign_splits(manifest, DataConfig())


def test_empty_split_is_refused(tmp_path):
    manifest = load(tmp_path, with_splits(["train", "train", "val"]))
    with pytest.raises(DataError, match="no rows in the split 'test'"):
        assign_splits(manifest, DataConfig())


def test_too_few_people_to_draw_splits(tmp_path):
    with pytest.raises(DataError, match="has 2 people, too few"):
        assign_splits(load(tmp_path, manifest_rows(2)), DataConfig())


def test_make_splits_divides_train_only():
    splits = np.array(["train", "val", "train", "test", "train"])
    parts = make_splits(splits, np.array([2, 3]))
    assert parts.train.tolist() == [0, 2, 4]
    assert parts.retain.tolist() == [0, 4]
    assert parts.forget.tolist() == [2]
    assert {name: rows.tolist() for name, rows in parts.parts().items()} == {
        "retain": [0, 4],
        "forget": [2],
        "val": [1],
        "test": [3],
    }


def test_request_that_empties_the_retain_set_is_refused():
    splits = np.array(["train", "train", "val", "test"])
    with pytest.raises(DataError, match="covers all 2 training images"):
        make_splits(splits, np.array([0, 1]))


def test_unknown_data_set_lists_the_known_ones():
    from dlfd_dist.data.manifest import datasets

    with pytest.raises(ConfigError, match="data=mufak is not known.*Did you mean 'mufac'"):
        datasets.get("mufak")


def load_text(root: Path, text: str) -> Manifest:
    (root / "metadata.csv").write_text(text, encoding="utf-8")
    return load(root)


def test_an_unquoted_comma_is_refused_and_a_quoted_one_is_not(tmp_path):
    """pandas#9295: the person would be "Doe" and her class "Jane"."""
    head = "image_path,identity,label\n"
    with pytest.raises(DataError, match=r"row 3: it has 4 values and the header 3.*double quotes"):
        load_text(tmp_path, head + "a.png,p,1\nx.png,Doe, Jane,0\n")
    manifest = load_text(tmp_path, head + 'a.png,p,1\nx.png,"Doe, Jane",0\n')
    assert manifest.identities.tolist() == ["p", "Doe, Jane"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_path,identity,label,label\na.png,p,0,1\n", "has label twice in its header"),
        ('image_path,identity,label\n"a.png,p,0\nb.png,q,1\n', "is not a CSV text file"),
        ("image_path;identity;label\na.png;p;0\n", "lacks .*Columns are separated by commas"),
    ],
)
def test_header_and_quotes_are_checked(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        load_text(tmp_path, text)


def test_an_index_column_without_a_name_does_not_matter(tmp_path):
    manifest = load_text(tmp_path, ",image_path,identity,label\n0,a.png,p,0\n1,b.png,q,1\n")
    assert manifest.identities.tolist() == ["p", "q"]


def labelled(root: Path, *labels: str) -> Manifest:
    rows = [f"{i}.png,p{i},{label}" for i, label in enumerate(labels)]
    return load_text(root, "\n".join(["image_path,identity,label", *rows]) + "\n")


def test_whole_numbers_with_a_point_are_in_numeric_order(tmp_path):
    """fastai#1868: as text 10.0 would stand before 2.0, and a foreign checkpoint be mislabelled."""
    manifest = labelled(tmp_path, *(f"{i}.0" for i in range(12)), "3", "03", "1e1")
    assert manifest.labels.tolist() == [*range(12), 3, 3, 10]
    assert manifest.label_names == [str(i) for i in range(12)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["0", "1", "nan"], r"row 4: the label 'nan' is a missing value"),
        (["0", "None", "1"], r"row 3: the label 'None' is a missing value"),
        (["smile", "neutral", "NULL"], r"row 4: the label 'NULL' is a missing value"),
        (["0", "1", "0.5"], r"row 4: the label '0.5' is no class number"),
        (["0.5", "1.5"], r"row 2: the label '0.5' is no class number"),
    ],
)
def test_labels_that_are_missing_or_no_class_are_named(labels, message, tmp_path):
    with pytest.raises(DataError, match=message):
        labelled(tmp_path, *labels)


def test_a_class_may_be_called_none(tmp_path):
    assert labelled(tmp_path, "glasses", "none").label_names == ["glasses", "none"]
