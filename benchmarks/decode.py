"""Decoding photographs whole against data.draft=true: seconds of one core, and how pixels differ.

    python benchmarks/decode.py [--images 20] [--write]

JPEGs of 12 megapixels (4000 x 3000, quality 92) with edges, texture and noise, decoded to 64, 128
and 224 pixels. The last line is `ratio R`: seconds with the draft over seconds without, at 128.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from results import write_result

from dlfd_dist.data.decode import decode
from dlfd_dist.data.manifest import Manifest

WIDTH, HEIGHT = 4000, 3000
SIZES = (64, 128, 224)


def photograph(path: Path, seed: int) -> None:
    """Write discs on a shaded ground, with the noise of a sensor."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    image = np.stack([40 + 80 * x / WIDTH, 60 + 60 * y / HEIGHT, 90 + 0 * x], 2)
    for _ in range(12):
        cx, cy, r = rng.uniform([0, 0, 60], [WIDTH, HEIGHT, 700])
        image[(x - cx) ** 2 + (y - cy) ** 2 < r**2] = rng.uniform(0, 255, 3)
    image += rng.normal(0, 6, image.shape)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, quality=92)


def manifest_of(folder: Path, *, draft: bool) -> Manifest:
    paths = sorted(path.name for path in folder.glob("*.jpg"))
    labels = np.zeros(len(paths), np.int64)
    names = np.array(paths)
    return Manifest(folder, paths, names, labels, names, ["a", "b"], "photographs", draft=draft)


def decoded(manifest: Manifest, size: int) -> tuple[np.ndarray, float]:
    start = time.process_time()
    images = [decode(manifest, row, size) for row in range(len(manifest))]
    return np.array(images, np.int16), (time.process_time() - start) / len(manifest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    lines = [
        "| edge | whole, ms an image | draft, ms an image | ratio | mean difference, of 255 | "
        "99th percentile | largest |",
        "| ---: " * 7 + "|",
    ]
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.images):
            photograph(Path(folder) / f"{number:03d}.jpg", number)
        for size in SIZES:
            (whole, before), (draft, after) = (
                decoded(manifest_of(Path(folder), draft=draft), size) for draft in (False, True)
            )
            apart, ratios[size] = np.abs(whole - draft), after / before
            lines.append(
                f"| {size} | {1e3 * before:.1f} | {1e3 * after:.1f} | {ratios[size]:.2f} | "
                f"{apart.mean():.2f} | {np.percentile(apart, 99):.0f} | {apart.max()} |"
            )
    text = "\n".join(lines)
    print(text)
    if args.write:
        title = f"{args.images} photographs of 12 megapixels, decoded whole and with data.draft"
        write_result("decode", title, text, ratios[128])
    print(f"ratio {ratios[128]:.2f}")


if __name__ == "__main__":
    main()
