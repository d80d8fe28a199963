"""A set decoded by one process on one core against several, each on a core of its own.

    python benchmarks/decode_ranks.py [--images 100000] [--repeats 3] [--write]

JPEGs of 256 pixels, a hundredth of them drawn and the others copies under names of their own, which
are decoded to 64 pixels into one cache on a shared folder (`dlfd_dist/data/cache.py`). Wall seconds
from the moment all processes are ready until the last one has ended, what each looks at before it
decodes included; all caches must hold the same bytes. Only an idle machine tells them. The last
line is `ratio R`: images a second of as many processes as there are cores, over those of one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from multiprocessing.synchronize import Barrier as BarrierType
from pathlib import Path

import numpy as np
import torch.multiprocessing as mp
from PIL import Image
from results import spread, write_result

from dlfd_dist.config import DataConfig
from dlfd_dist.data.cache import open_cache
from dlfd_dist.data.manifest import Manifest

EDGE, DECODED, COPIES = 256, 64, 100


def write_images(folder: Path, num: int) -> None:
    """Write `num` images: COPIES of each that is drawn, of discs and noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:EDGE, :EDGE].astype(np.float32)
    for number in range(0, num, COPIES):
        image = np.stack([40 + 80 * x / EDGE, 60 + 60 * y / EDGE, 90 + 0 * x], 2)
        for _ in range(8):
            cx, cy, r = rng.uniform([0, 0, 8], [EDGE, EDGE, 60])
            image[(x - cx) ** 2 + (y - cy) ** 2 < r**2] = rng.uniform(0, 255, 3)
        image += rng.normal(0, 6, image.shape)
        first = folder / f"{number:06d}.jpg"
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(first, quality=92)
        for copy in range(number + 1, min(number + COPIES, num)):
            shutil.copyfile(first, folder / f"{copy:06d}.jpg")


def manifest_of(folder: Path, num: int) -> Manifest:
    paths = [f"{number:06d}.jpg" for number in range(num)]
    names = np.array(paths)
    return Manifest(folder, paths, names, np.zeros(num, np.int64), names, ["a", "b"], "drawn")


def decode_on(
    core: int, cores: list[int], folder: str, num: int, cache: str, ready: BarrierType
) -> None:
    """Open the cache on one core, from the moment that all processes are ready."""
    os.sched_setaffinity(0, {cores[core]})
    manifest = manifest_of(Path(folder), num)
    ready.wait()
    open_cache(manifest, DataConfig(image_size=DECODED, cache_dir=cache))


def seconds_of(num_processes: int, cores: list[int], images: Path, num: int, cache: Path) -> float:
    ready = mp.get_context("spawn").Barrier(num_processes + 1)
    arguments = (cores, str(images), num, str(cache), ready)
    context = mp.spawn(decode_on, arguments, num_processes, join=False)
    ready.wait(timeout=120)  # a process that ended before would be waited for without end
    start = time.perf_counter()
    while not context.join():
        pass
    return time.perf_counter() - start


def digest_of(cache: Path) -> str:
    (file,) = cache.glob("images-*.npy")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    counts = sorted({1, len(cores), *(2**k for k in range(10) if 2**k <= len(cores))})
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    digests = set()
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        images.mkdir()
        write_images(images, args.images)
        for repeat in range(args.repeats):
            for count in counts:
                cache = Path(name) / f"cache-{repeat}-{count}"
                seconds[count].append(seconds_of(count, cores, images, args.images, cache))
                digests.add(digest_of(cache))
                shutil.rmtree(cache)
                print(f"repeat {repeat + 1}/{args.repeats}: {count} {seconds[count][-1]:.1f} s")
    assert len(digests) == 1, "the caches differ"
    alone = np.array(seconds[1])
    lines = ["| processes | wall s, median | images/s | over one: median (min to max) |"]
    lines += ["| ---: " * 4 + "|"]
    for count, values in seconds.items():
        wall = np.median(values)
        lines.append(
            f"| {count} | {wall:.1f} | {args.images / wall:,.0f} | "
            f"{spread(alone / np.array(values))} |"
        )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines.append(f"\nLoad of the machine at the end (1, 5, 15 min): {load} on {len(cores)} cores.")
    text, ratio = "\n".join(lines), float(np.median(alone / np.array(seconds[counts[-1]])))
    print(text)
    if args.write:
        title = f"{args.images:,} images decoded by one process and by several"
        write_result("decode_ranks", title, text, ratio)
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
