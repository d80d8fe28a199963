"""The README is short, and its figures are those of the result files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import figures

ROOT = Path(__file__).parents[2]


def test_readme_is_short_and_begins_with_its_two_commands():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 110
    assert [line.split()[:2] for line in lines[:24] if line.startswith("make ")] == [
        ["make", "demo"],
        ["make", "test"],
    ]


def test_the_first_screen_says_what_the_picture_cannot_and_what_is_known():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    before = "\n".join(lines[: lines.index("```bash")])
    below = before[before.index("docs/pictures/losses.svg") :]
    assert "6 forgotten and 6 unseen people and one seed of the demo, too few to rank" in below
    assert figures.headline() in "\n".join(lines[:40])


def test_the_gain_that_the_readme_names_is_that_of_the_result_file():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = figures.newest(figures.METHODS).read_text(encoding="utf-8")
    [(gain, low, high)] = re.findall(
        r"DLFD against Original, NoMUS: \+(\S+) \[\+(\S+), \+(\S+)\], p \S+: different", text
    )
    assert f"gains {gain} [{low}, {high}] NoMUS over Original" in readme
    same = figures.newest("comparison_utk_age_schedule_cpu2").read_text(encoding="utf-8")
    assert re.search("DLFD against Fine-tune, NoMUS: .*: tied within 0.03 ", same)
    assert "ties within 0.03" in readme
    for method, accuracy in (("Original", "0.94"), ("DLFD", "0.58")):
        means = text[text.index("| Method | nomus_paper | retain_accuracy |") :]
        found = re.search(rf"\| {method} \| \S+ \| (\S+) \|", means)
        assert found is not None
        assert f"{float(found[1]):.2f}" == accuracy
    assert "retain accuracy falls from 0.94 to 0.58" in readme


def test_withdrawn_result_files_are_gone():
    stored = {path.stem for path in (figures.HERE / "results").iterdir()}
    names = ("collapse_ck48", "audit_orl", "audit_ck48")
    assert not stored & {f"{name}_cpu2_2026-11-27" for name in names}


def test_figures_of_methods_need_twelve_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(figures, "HERE", tmp_path)
    (tmp_path / "results").mkdir()
    file = tmp_path / "results" / "comparison_ck48_cpu2_2026-11-30.md"
    entry = {"what": "gap of DLFD", "result": "comparison_ck48_cpu2", "find": r"gap (\S+)",
             "show": "{0:.2f}"}  # fmt: skip
    for tuned in ("", "Settings taken after 11 trials each, by gap:\n"):
        file.write_text(f"gap 0.12\n{tuned}")
        with pytest.raises(ValueError, match="needs 12 trials"):
            figures.row(entry)
    file.write_text("gap 0.12\nSettings taken after 12 trials each, by gap:\n")
    assert figures.row(entry).startswith("| gap of DLFD | 0.12 |")
    # A gate holds Original against Retrained, which have nothing to tune.
    (tmp_path / "results" / "comparison_ck48_gate_cpu2_2026-11-30.md").write_text("gap 0.1\n")
    figures.row({**entry, "result": "comparison_ck48_gate_cpu2"})


def test_every_figure_of_the_readme_stands_in_the_table_of_figures():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"\| (\d*\.\d+[^|]*) \|", readme)
    known = {row.split(" | ")[1] for row in figures.table().splitlines()[2:]}
    assert figures.headline() in readme, "run python -m benchmarks.figures"
    assert set(shown) <= known | set(re.findall(r"\| (\d*\.\d+[^|]*) \|", figures.headline()))


def test_table_of_figures_is_that_of_the_result_files():
    page = figures.PAGE.read_text(encoding="utf-8")
    found = figures.TABLE.search(page)
    assert found is not None
    assert found[0] == figures.table(), "run python -m benchmarks.figures"
    assert max(map(len, page.splitlines())) <= figures.LONGEST_ROW


def test_the_headline_is_some_columns_of_the_newest_table(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(figures, "HERE", tmp_path)
    (tmp_path / "results").mkdir()
    head = "| Method | Seeds | NoMUS | Test acc. | Forgetting | Attack acc. | Gap | Resurfaced |\n"
    rows = "| --- | --- |\n| Original | 5 | .5 | .6 | .2 | .7 | .2 | .9 |\n"
    text = (
        "Settings taken after 12 trials each\n\n"
        + head
        + rows
        + "\n| Method | retain |\n| A | 1 |\n"
    )
    (tmp_path / "results" / "comparison_table_utk_age_cpu2_2026-01-31.md").write_text(text)
    assert figures.headline().splitlines() == [
        "| Method | NoMUS | Test acc. | Attack acc. | Gap | Resurfaced |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| Original | .5 | .6 | .7 | .2 | .9 |",
    ]


def test_a_figure_that_is_not_in_its_file_is_refused():
    entry = {"what": "memory", "result": "memory_cpu2", "find": "no such words", "show": "{0}"}
    with pytest.raises(ValueError, match="memory_cpu2_.* has no figure for 'memory'"):
        figures.row(entry)


def test_a_row_that_is_too_long_is_refused():
    entry = {"what": "m" * 100, "result": "memory_cpu2", "find": r"ratio (\S+)", "show": "{0}"}
    with pytest.raises(ValueError, match="characters"):
        figures.row(entry)
