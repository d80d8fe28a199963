"""Write the tables of both READMEs from the result files: python -m benchmarks.figures

benchmarks/figures.yaml says which figures benchmarks/README.md shows and where each stands in its
file; the README shows the table of methods. Of several files of a name the newest counts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
README = HERE.parent / "README.md"
METHODS = "comparison_table_utk_age_cpu2"
"""The comparison whose table the README shows."""
COLUMNS = ("Method", "NoMUS", "Test acc.", "Attack acc.", "Gap", "Resurfaced")
"""Of its columns."""
HEAD = "| what | figure | file in results/ |\n| --- | ---: | --- |\n"
TABLE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)
HEADLINE = re.compile(r"(?<=<!-- methods -->\n).*?(?=<!-- end of methods -->)", re.DOTALL)
LONGEST_ROW = 120
TRIALS = re.compile(r"Settings taken after (\d+) trials each")
MIN_TRIALS = 12
"""Of every method, before a figure of methods may be shown."""


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda _: table(), page), encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    README.write_text(HEADLINE.sub(lambda _: headline(), readme), encoding="utf-8")


def table() -> str:
    """Return the table, a row for each entry of figures.yaml."""
    return HEAD + "".join(f"{row(entry)}\n" for entry in entries())


def headline() -> str:
    """Return the table of methods that the README shows, in the columns of COLUMNS."""
    path = newest(METHODS)
    text = path.read_text(encoding="utf-8")
    _check_trials(path, text)
    rows = [_cells(line) for line in text.splitlines() if line.startswith("| ")]
    start = next(number for number, row in enumerate(rows) if row[:2] == ["Method", "Seeds"])
    chosen = [rows[start].index(name) for name in COLUMNS]
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    for row in rows[start + 2 :]:
        if row[0] == "Method":
            break
        lines.append("| " + " | ".join(row[number] for number in chosen) + " |")
    return "".join(f"{line}\n" for line in lines)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def entries() -> list[dict[str, str]]:
    """Return what figures.yaml lists: what, result, find and show of each figure."""
    return yaml.safe_load((HERE / "figures.yaml").read_text(encoding="utf-8"))


def row(entry: dict[str, Any]) -> str:
    """Return a row of the table.

    Raises ValueError where the file lacks the figure, compares methods after too few trials, or
    the row is too long.
    """
    path = newest(entry["result"])
    text = path.read_text(encoding="utf-8")
    _check_trials(path, text)
    found = re.search(entry["find"], text)
    if found is None:
        raise ValueError(f"{path.name} has no figure for '{entry['what']}': {entry['find']}")
    figure = entry["show"].format(*map(_number, found.groups()))
    shown = f"| {entry['what']} | {figure} | {path.stem} |"
    if len(shown) > LONGEST_ROW:
        raise ValueError(f"the row of '{entry['what']}' has {len(shown)} characters: {shown}")
    return shown


def _check_trials(path: Path, text: str) -> None:
    """Refuse a comparison of methods with fewer than MIN_TRIALS.

    A gate compares none, and a schedule is one setting that is given to all.
    """
    if not path.name.startswith("comparison_") or re.search("_(gate|schedule)_", path.name):
        return
    tuned = TRIALS.search(text)
    if tuned is None or int(tuned[1]) < MIN_TRIALS:
        number = tuned[1] if tuned else "none"
        raise ValueError(
            f"{path.name}: a figure of methods needs {MIN_TRIALS} trials, not {number}"
        )


def newest(name: str) -> Path:
    """Return the newest result file of a benchmark and machine, such as memory_cpu2."""
    files = sorted((HERE / "results").glob(f"{name}_????-??-??.md"))
    if not files:
        raise ValueError(f"benchmarks/results has no file {name}_DATE.md")
    return files[-1]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
