"""What dlfd report writes is what the name of the file says."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from launch.cli import main


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("x.csv", "method,note,seeds,"),
        ("x.MD", "| Method"),
        ("deep/x.tex", "% needs \\usepackage{booktabs}"),
        ("x.txt", "Method"),
    ],
)
def test_a_table_is_written_where_the_ending_says_so(comparison, tmp_path: Path, name, start):
    out = tmp_path / name
    assert main(["report", str(comparison), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert start in text
    assert "<html" not in text
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_the_csv_has_a_row_for_every_method(comparison, rows, tmp_path: Path):
    out = tmp_path / "x.csv"
    assert main(["report", str(comparison), "--out", str(out)]) == 0
    read = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    assert [row["method"] for row in read] == [row["method"] for row in rows]


@pytest.mark.parametrize("name", ["x.pdf", "x.json", "x", "x.html.gz", "x.xlsx"])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_other_endings_are_refused_and_nothing_is_written(
    comparison, tmp_path: Path, capsys, name, more
):
    assert main(["report", str(comparison), "--out", str(tmp_path / name), *more]) == 2
    assert "give PAGE.html, or one of .csv, .md, .tex, .txt" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["key.csv", "key.json", "key.pem.txt"])
def test_a_key_is_not_written_to_a_file_that_says_something_else(tmp_path: Path, capsys, name):
    assert main(["keygen", str(tmp_path / name)]) == 2
    assert "give a path that ends in .pem" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
