"""Write the table of benchmarks/README.md from the result files: python -m benchmarks.figures

benchmarks/figures.yaml says which figures are shown and where each stands in its file. Of several
files of a name the newest counts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
HEAD = "| what | figure | file in results/ |\n| --- | ---: | --- |\n"
TABLE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)
LONGEST_ROW = 120


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda _: table(), page), encoding="utf-8")


def table() -> str:
    """Return the table, a row for each entry of figures.yaml."""
    entries = yaml.safe_load((HERE / "figures.yaml").read_text(encoding="utf-8"))
    return HEAD + "".join(f"{row(entry)}\n" for entry in entries)


def row(entry: dict[str, Any]) -> str:
    """Return a row; ValueError where the file lacks the figure or the row is too long."""
    path = newest(entry["result"])
    found = re.search(entry["find"], path.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{path.name} has no figure for '{entry['what']}': {entry['find']}")
    figure = entry["show"].format(*map(_number, found.groups()))
    shown = f"| {entry['what']} | {figure} | {path.stem} |"
    if len(shown) > LONGEST_ROW:
        raise ValueError(f"the row of '{entry['what']}' has {len(shown)} characters: {shown}")
    return shown


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
