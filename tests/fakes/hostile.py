"""People, labels and files whose names are HTML, formulas, escapes and shell; and a run on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.fakes.layouts import write_csv, write_image

PEOPLE = (
    "<script>alert(1)</script>", '=HYPERLINK("http://evil","x")', "\x1b[2J\x1b]0;owned\x07gone",
    "$(touch ran)", "`touch ran`", "'; touch ran; '", "{{ 7*7 }}", "\u202egnirts", "@SUM(1+1)",
    "-2+3", "+1", "'quoted",
)  # fmt: skip
"""Twelve people, eight of whom train."""
LABELS = ("<b>happy</b>", "=1+1\x1b[31m")


def write_hostile(root: Path, people: tuple[str, ...] = PEOPLE, each: int = 4) -> list[str]:
    """Write a data set of hostile names under a folder; return those who train, in order."""
    splits = ["train"] * (len(people) - 4) + ["val"] * 2 + ["test"] * 2
    rows = [
        {
            "image_path": f"images/{number}<i>$(touch ran)_{image}.png", "identity": person,
            "label": LABELS[(number + image) % 2], "split": split,
        }
        for number, (person, split) in enumerate(zip(people, splits, strict=True))
        for image in range(each)
    ]  # fmt: skip
    for seed, row in enumerate(rows):
        write_image(root / str(row["image_path"]), seed)
    write_csv(root / "metadata.csv", rows)
    return list(people[:-4])


def text_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield every file of a folder that is text."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".html", ".json", ".jsonl", ".csv", ".yaml", ".sbatch", ".out", ".log"):
            yield path, path.read_text(encoding="utf-8")
