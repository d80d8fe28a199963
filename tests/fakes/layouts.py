"""Miniature copies of the data sets as they lie on disk, with tiny drawn images."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CELEBA_ATTRIBUTES = ["Bald", "Eyeglasses", "Male", "Smiling", "Young"]


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (12, 12)) -> Path:
    """Write one image of 3x3 coloured squares, in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
    image.convert("L" if path.suffix == ".pgm" else "RGB").save(path)
    return path


def write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write rows under the columns of the first one."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def manifest_rows(num_people: int = 8, images_per_person: int = 2) -> list[dict[str, object]]:
    """Return rows without a split; the label alternates within every person."""
    return [
        {"image_path": f"images/p{p}_{k}.png", "identity": f"p{p}", "label": k % 2}
        for p in range(num_people)
        for k in range(images_per_person)
    ]


def write_manifest(root: Path, rows: Iterable[Mapping[str, object]] | None = None) -> Path:
    """Write metadata.csv and its images; return the root."""
    rows = manifest_rows() if rows is None else list(rows)
    write_csv(root / "metadata.csv", rows)
    for seed, row in enumerate(rows):
        write_image(root / str(row["image_path"]), seed)
    return root


def write_mufac(root: Path) -> Path:
    """Write MUFAC with two families in train and one in val and test each; return the root."""
    names = {
        "train": ["F0001_AGE_D_18_a1.jpg", "F0001_AGE_D_18_c2.jpg", "F0002_AGE_GM_71_h1.jpg"],
        "val": ["F0801_AGE_M_48_e1.jpg"],
        "test": ["F0901_AGE_S2_12_b1.jpg", "F0902.jpg"],
    }
    for split, file_names in names.items():
        rows = []
        for seed, name in enumerate(file_names):
            write_image(root / f"{split}_images" / name, seed)
            letter = name.split("_")[-1][0] if "_" in name else "d"
            rows.append({"image_path": name, "age_class": letter, "family_id": name[:5]})
        write_csv(root / f"custom_{split}_dataset.csv", rows)
    return root


def write_mucac(root: Path) -> Path:
    """Write MUCAC with five images of the identities 189, 190, 190, 4854, 4855; return the root."""
    identities = [189, 190, 190, 4854, 4855]
    values = ["-1 -1 1 1 -1", "-1 1 -1 1 1", "-1 -1 -1 -1 1", "1 -1 1 -1 -1", "-1 -1 1 1 1"]
    for i in range(5):
        write_image(root / "CelebAMask-HQ" / "CelebA-HQ-img" / f"{i}.jpg", i)
    lines = [f"{i}.jpg {identity}" for i, identity in enumerate(identities)]
    (root / "CelebA-HQ-identity.txt").write_text("\n".join(lines) + "\n")
    # 9.jpg has attributes and no identity, so it is not part of the set.
    lines = [f"{i}.jpg  {value}" for i, value in enumerate(values)] + ["9.jpg 1 1 1 1 1"]
    header = [str(len(lines)), " ".join(CELEBA_ATTRIBUTES)]
    (root / "CelebA-HQ-attribute.txt").write_text("\n".join(header + lines) + "\n")
    return root


def write_raf_db(root: Path, per_class: int = 4) -> Path:
    """Write RAF-DB with its seven numbered classes; return the root."""
    for split in ("train", "test"):
        for label in range(1, 8):
            for k in range(per_class):
                write_image(root / split / str(label) / f"{split}_{k:05d}_aligned.jpg", k)
    return root


def write_folders(root: Path, image_paths: Iterable[str]) -> Path:
    """Write images at the given paths below a root; return the root."""
    for seed, image_path in enumerate(image_paths):
        write_image(root / image_path, seed)
    return root


def write_orl(root: Path) -> Path:
    """Write sN/M.pgm of 40 people with 10 pictures each, as in the wheel; return the root."""
    return write_folders(root, [f"s{n}/{m}.pgm" for n in range(1, 41) for m in range(1, 11)])
