"""A data set of two groups of people, and the words of a small run on it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from tests.fakes.tiny import TINY_RUN


def write_groups(root: Path) -> Path:
    """Write 72 people of one image, 36 of them for the test, under hostile names; return root."""
    rng = np.random.default_rng(0)
    splits = ["train"] * 24 + ["val"] * 12 + ["test"] * 36
    with (root / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image_path", "identity", "label", "split", "gender", "note"])
        for number, split in enumerate(splits):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{number}.png")
            gender = "<b>f</b>" if number % 2 else "m"
            gender = "" if number == 71 else gender
            rows.writerow([f"{number}.png", f"p{number}", number % 2, split, gender, number])
    return root


def words(folder: Path, *overrides: str) -> list[str]:
    given = ["data=manifest", f"data.root={folder}", "data.image_size=16", "forget.fraction=0.25"]
    return [*given, *TINY_RUN, *overrides]
