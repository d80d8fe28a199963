"""tables.py: a Parquet manifest is the CSV of the same rows, and what else it holds is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlfd_dist.config import DataConfig
from dlfd_dist.data.manifest import People, load_manifest
from dlfd_dist.data.tables import read_columns
from dlfd_dist.errors import DataError
from tests.fakes.layouts import manifest_rows, write_csv

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

REQUIRED = ["image_path", "identity", "label"]


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize("kind", ["text", "numbers", "categories", "several row groups"])
def test_a_parquet_manifest_is_the_csv_of_the_same_rows(kind: str, tmp_path: Path):
    rows = [row | {"label_name": f"class {row['label']}", "sex": "f"} for row in manifest_rows()]
    write_csv(tmp_path / "metadata.csv", rows)
    columns: dict[str, Any] = columns_of(rows)
    if kind == "text":
        columns["label"] = [f" {label}.0 " for label in columns["label"]]
    if kind == "categories":
        columns["identity"] = pyarrow.array(columns["identity"]).dictionary_encode()
    options = {"row_group_size": 3} if kind == "several row groups" else {}
    write(tmp_path / "metadata.parquet", columns, **options)
    one, other = (
        load_manifest(DataConfig(root=str(tmp_path), manifest=name, groups=["sex"]))
        for name in ("metadata.csv", "metadata.parquet")
    )
    assert one.image_paths == other.image_paths
    assert one.label_names == other.label_names == ["class 0", "class 1"]
    for name in ("identities", "labels", "splits"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    np.testing.assert_array_equal(one.groups["sex"], other.groups["sex"])


def test_truth_values_are_the_labels_of_a_multi_label_task(tmp_path: Path):
    columns = columns_of(manifest_rows())
    columns |= {"smile": [True, False] * 8, "glasses": [0, 1] * 8}
    write(tmp_path / "m.parquet", columns)
    cfg = DataConfig(root=str(tmp_path), manifest="m.parquet", label=["smile", "glasses"])
    assert load_manifest(cfg).labels[:2].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"identity": ["p"] * 15 + [None]}, "row 17: the column identity is empty"),
        ({"label": [0.0] * 15 + [float("nan")]}, "the label 'nan' is a missing value"),
        ({"label": [0] * 15 + [1.5]}, "row 17: the label '1.5' is no class number"),
        ({"label": [[0]] * 16}, "the column label holds list.*write it as text"),
        ({"image_path": [f"../{i}.png" for i in range(16)]}, "row 2: .* leads out of data.root"),
    ],
    ids=["nobody", "no label", "half a class", "a list", "a way out"],
)
def test_a_column_of_something_else_is_refused(
    change: dict[str, Any], sentence: str, tmp_path: Path
):
    write(tmp_path / "m.parquet", columns_of(manifest_rows()) | change)
    with pytest.raises(DataError, match=sentence):
        load_manifest(DataConfig(root=str(tmp_path), manifest="m.parquet"))


def test_a_column_that_is_missing_and_a_file_without_rows_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="lacks the column label; it has image_path, identity"):
        read_columns(write(tmp_path / "a.parquet", {n: ["a"] for n in REQUIRED[:2]}), REQUIRED)
    none = {name: pyarrow.array([], pyarrow.string()) for name in REQUIRED}
    with pytest.raises(DataError, match="has no rows"):
        read_columns(write(tmp_path / "b.parquet", none), REQUIRED)


@pytest.mark.parametrize("content", [b"", b"image_path,identity,label\n", b"PAR1" + bytes(40)])
def test_a_file_that_is_no_parquet_is_one_sentence(content: bytes, tmp_path: Path):
    (tmp_path / "m.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"m\.parquet is not a Parquet file that can be read"):
        read_columns(tmp_path / "m.parquet", REQUIRED)


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "m.parquet", columns_of(manifest_rows()))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'dlfd-dist\[parquet\]'"):
        read_columns(path, REQUIRED)


def test_only_what_is_asked_for_is_read(tmp_path: Path):
    columns = columns_of(manifest_rows()) | {"embedding": [[0.5]] * 16}
    found = read_columns(write(tmp_path / "m.parquet", columns), REQUIRED, ["split", "absent"])
    assert list(found) == [*REQUIRED, *(["split"] if "split" in columns else [])]


# --- people by number


def test_people_are_numbered_as_sorting_would():
    names = np.array(["b", "a", "ä", "b", "", "Z", "a"])
    people = People.of(names)
    expected, of_row = np.unique(names, return_inverse=True)
    np.testing.assert_array_equal(people.names, expected)
    np.testing.assert_array_equal(people.of_row, of_row)


def test_people_are_numbered_alike_in_chunks(monkeypatch: pytest.MonkeyPatch):
    names = np.array([f"person {i % 7}" for i in range(50)])
    whole = People.of(names)
    monkeypatch.setattr("dlfd_dist.data.manifest.CHUNK", 4)
    np.testing.assert_array_equal(People.of(names).of_row, whole.of_row)


def test_the_rows_of_those_who_are_asked_for_are_found_in_order():
    people = People.of(np.array(["b", "a", "b", "c", "a"]))
    rows = people.rows_of({"b", "c", "nobody"})
    assert {name: places.tolist() for name, places in rows.items()} == {"b": [0, 2], "c": [3]}
    assert people.rows_of({"nobody"}) == {}
