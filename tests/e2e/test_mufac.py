"""data=mufac at its full size, with the duplicates and leaks that were published of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from dlfd_dist.data.cache import make_cache_dir
from dlfd_dist.data.leaks import audit_leaks
from tests.fakes.layouts import write_csv
from tests.fakes.mufac import config, file_names, resolve

PUBLISHED = {
    "retain": {"retain": 5513 - 18, "shared": 18, "again": 3012},
    "forget": {"forget": 1080 - 18, "shared": 18, "again": 420},
    "val": {"val": 1211, "again": 328},
    "test": {"test": 1118, "retain": 40, "forget": 14, "val": 16, "again": 316},
}
"""Part -> how many pictures, from the pool of which part, and how many images of it are copies."""


def published_pictures() -> dict[str, list[str]]:
    """Return the picture of every image: 8 of the 18 that retain and forget share are twice in
    forget, so that 26 images to forget are in retain too."""
    rng = np.random.default_rng(0)
    pictures = {}
    for part, sizes in PUBLISHED.items():
        numbers = dict(sizes)
        again = numbers.pop("again")
        found = [f"{pool} {i}" for pool, number in numbers.items() for i in range(number)]
        own = [picture for picture in found if picture.startswith(part)]
        twice = [f"shared {i}" for i in range(8)] if part == "forget" else []
        copies = [own[i] for i in rng.integers(len(own), size=again - len(twice))]
        pictures[part] = list(rng.permutation([*found, *twice, *copies]))
    return pictures


def test_a_mufac_of_full_size_has_the_published_counts(tmp_path):
    pictures = published_pictures()
    rows = {"train": pictures["forget"] + pictures["retain"], "val": pictures["val"],
            "test": pictures["test"]}  # fmt: skip
    assert {split: len(of) for split, of in rows.items()} == {
        "train": 10025, "val": 1539, "test": 1504
    }  # fmt: skip
    seeds = {picture: seed for seed, picture in enumerate(sorted({*sum(rows.values(), [])}))}
    written: dict[str, Path] = {}
    for number, (split, of) in enumerate(rows.items()):
        (tmp_path / f"{split}_images").mkdir()
        names = [f"F{number}{i:05d}_AGE_D_18_a{i}.png" for i in range(len(of))]
        for name, picture in zip(names, of, strict=True):
            path = tmp_path / f"{split}_images" / name
            if picture in written:
                os.link(written[picture], path)
            else:
                written[picture] = write_noise(path, seeds[picture])
        write_csv(
            tmp_path / f"custom_{split}_dataset.csv",
            [{"image_path": name, "age_class": "a"} for name in names],
        )
    raw = resolve(tmp_path)
    audit = audit_leaks(raw.manifest, raw.splits, raw.request, make_cache_dir(config(tmp_path)))
    found = audit.counts()
    assert found["near"] == {}
    exact = found["exact"]
    assert (exact["retain-retain"], exact["forget-forget"]) == (3012, 420)
    assert exact["retain-forget"] == 26
    assert exact["retain-test"] + exact["forget-test"] == 54
    assert exact["val-test"] == 16
    assert {part: len(names) for part, names in file_names(raw).items()} == {
        "retain": 8525, "forget": 1500, "val": 1539, "test": 1504
    }  # fmt: skip
    clean = resolve(tmp_path, clean=True)
    assert {part: len(names) for part, names in file_names(clean).items()} == {
        "retain": 5513, "forget": 1062, "val": 1211, "test": 1118
    }  # fmt: skip


def write_noise(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)
    return path
