"""forget_request.py: every line of a request is accounted for."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pytest

from dlfd_dist.config import ForgetConfig
from dlfd_dist.data.forget_request import draw_request, forget_rows, read_request, resolve_request
from dlfd_dist.data.manifest import Manifest
from dlfd_dist.data.splits import make_splits
from dlfd_dist.errors import DataError

# Rows 0..5 are train (p0, p1, p2), 6..7 val (p3), 8..9 test (p4); two images each.
SPLITS = np.array(["train"] * 6 + ["val"] * 2 + ["test"] * 2)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    people = np.repeat(np.arange(5), 2)
    return Manifest(
        root=tmp_path,
        image_paths=[f"images/{p}, {k % 2}.png" for k, p in enumerate(people)],
        identities=np.array([f"p{p}" for p in people]),
        labels=np.tile([0, 1], 5),
        splits=SPLITS,
        label_names=["no", "yes"],
        title="test",
    )


@pytest.fixture
def request_file(tmp_path: Path):
    def write(text: str | bytes, name: str = "forget request.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_text_lines_are_identities_or_paths(manifest, request_file):
    path = request_file("# who asked in May\n\np0\n  images/2, 1.png  \n")
    resolved = resolve_request(path, manifest, SPLITS)
    assert resolved.rows.tolist() == [0, 1, 5]
    assert [(r.line, r.entry, r.kind, r.status, r.num_images) for r in resolved.lines] == [
        (3, "p0", "identity", "matched", 2),
        (4, "images/2, 1.png", "image", "matched", 1),
    ]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_csv_with_a_header(manifest, request_file, line_end):
    path = request_file(
        line_end.join(["\ufeffdate, identity", "2024-05-01,p2", "2024-05-02,p1", ""])
    )
    resolved = resolve_request(path, manifest, SPLITS)
    assert resolved.rows.tolist() == [2, 3, 4, 5]
    assert [r.line for r in resolved.lines] == [2, 3]


def test_csv_of_quoted_paths(manifest, request_file):
    path = request_file('image_path\n"images/0, 0.png"\n')
    assert resolve_request(path, manifest, SPLITS).rows.tolist() == [0]


def test_csv_row_without_identity_falls_back_to_its_path(manifest, request_file):
    path = request_file('identity,image_path\np0,\n,"images/1, 0.png"\n')
    assert resolve_request(path, manifest, SPLITS).rows.tolist() == [0, 1, 2]


def test_csv_row_with_an_empty_column_is_refused(manifest, request_file):
    path = request_file("identity,date\np0,2024\n,2024\n")
    with pytest.raises(DataError, match="line 3: the column identity is empty"):
        resolve_request(path, manifest, SPLITS)


def test_path_that_stands_in_two_rows_forgets_both(manifest, request_file):
    manifest.image_paths[3] = manifest.image_paths[2] = "images/twice.png"
    resolved = resolve_request(request_file("images/twice.png\n"), manifest, SPLITS)
    assert resolved.rows.tolist() == [2, 3]


def test_repeated_lines_count_once(manifest, request_file):
    resolved = resolve_request(request_file("p0\np0\nimages/0, 0.png\n"), manifest, SPLITS)
    assert resolved.rows.tolist() == [0, 1]
    assert len(resolved.lines) == 3


def test_unknown_lines_are_all_listed(manifest, request_file):
    path = request_file("p0\nnobody\nimages/9.png\n")
    with pytest.raises(DataError, match=r"'nobody' \(line 2\), 'images/9.png' \(line 3\)"):
        resolve_request(path, manifest, SPLITS)


def test_many_unknown_lines_are_counted(manifest, request_file):
    path = request_file("\n".join(f"x{i}" for i in range(13)))
    with pytest.raises(DataError, match=r"'x9' \(line 10\) and 3 more"):
        resolve_request(path, manifest, SPLITS)


def test_person_outside_training_is_a_warning(manifest, request_file, caplog):
    with caplog.at_level(logging.WARNING):
        resolved = resolve_request(request_file("p0\np3\n"), manifest, SPLITS)
    assert "1 to 2 lines of the forget request are in val or test" in caplog.text
    assert resolved.rows.tolist() == [0, 1]
    assert [r.status for r in resolved.lines] == ["matched", "outside_train"]


def test_request_that_matches_nothing_in_train_is_refused(manifest, request_file):
    with pytest.raises(DataError, match="matches no training image: all 2 of its lines"):
        resolve_request(request_file("p3\np4\n"), manifest, SPLITS)


def test_request_for_everybody_empties_the_retain_set(manifest, request_file):
    resolved = resolve_request(request_file("p0\np1\np2\n"), manifest, SPLITS)
    with pytest.raises(DataError, match="covers all 6 training images"):
        make_splits(SPLITS, resolved.rows)


@pytest.mark.parametrize("text", ["", "\n# nobody yet\n", "identity\n"])
def test_empty_request_is_refused(request_file, text):
    with pytest.raises(DataError, match="names nobody"):
        read_request(request_file(text))


def test_missing_request_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"forget.request=.*none.txt is not a file"):
        read_request(tmp_path / "none.txt")


def test_undecodable_request_is_refused(request_file):
    with pytest.raises(DataError, match="is not a text file"):
        read_request(request_file(b"p0\n\xff\xfe\n"))


def test_digest_does_not_depend_on_the_order_of_lines(manifest, request_file):
    first = resolve_request(request_file("p0\np2\n", "a.txt"), manifest, SPLITS)
    second = resolve_request(request_file("p2\np0\np0\n", "b.txt"), manifest, SPLITS)
    other = resolve_request(request_file("p1\n", "c.txt"), manifest, SPLITS)
    assert first.digest == second.digest != other.digest


def test_csv_text_reads_back(manifest, request_file):
    resolved = resolve_request(request_file("images/0, 0.png\np4\n"), manifest, SPLITS)
    rows = list(csv.DictReader(resolved.to_csv().splitlines()))
    assert [row["entry"] for row in rows] == ["images/0, 0.png", "p4"]
    assert [row["status"] for row in rows] == ["matched", "outside_train"]


def test_draw_takes_whole_people_from_train(manifest):
    resolved = draw_request(0.34, 0, manifest, SPLITS)
    assert len(resolved.rows) == 2
    assert len(set(manifest.identities[resolved.rows])) == 1
    assert (SPLITS[resolved.rows] == "train").all()
    assert [r.num_images for r in resolved.lines] == [2]


def test_draw_takes_at_least_one_and_follows_the_seed(manifest):
    drawn = [draw_request(0.01, seed, manifest, SPLITS).rows.tolist() for seed in range(20)]
    assert all(len(rows) == 2 for rows in drawn)
    assert len({tuple(rows) for rows in drawn}) == 3
    assert drawn[0] == draw_request(0.01, 0, manifest, SPLITS).rows.tolist()


def test_forget_rows_follows_the_configuration(manifest, request_file):
    path = request_file("p1\n")
    assert forget_rows(ForgetConfig(request=str(path)), manifest, SPLITS).rows.tolist() == [2, 3]
    assert len(forget_rows(ForgetConfig(fraction=0.6, seed=0), manifest, SPLITS).rows) == 4
    nobody = forget_rows(ForgetConfig(), manifest, SPLITS)
    assert nobody.lines == []
    assert len(make_splits(SPLITS, nobody.rows).forget) == 0


@pytest.mark.parametrize("row", ["Doe, Jane", "p1,a.png,more"])
def test_a_row_of_another_length_is_refused(row, tmp_path):
    """An unquoted comma would make it the request of somebody else."""
    path = tmp_path / "request.csv"
    header = "identity" if row == "Doe, Jane" else "identity,image_path"
    path.write_text(f"{header}\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2: it has \d values and the header \d columns"):
        read_request(path)
