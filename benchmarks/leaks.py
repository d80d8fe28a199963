"""The leak audit: planted twins found, false pairs, and time and memory at a million rows.

python -m benchmarks.leaks [--london FOLDER] [--further NAME=FOLDER] [--rows 10000,1000000]

Sequences of frames will do for a further set: their own near-duplicates are told apart. With
imagehash installed (no dependency of ours) its perceptual hash is held against the same twins.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import io
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np
import scipy
from PIL import Image

from dlfd_dist.data.leaks import thumbnail
from dlfd_dist.data.near import SIDE, SIMILARITY, near_pairs
from dlfd_dist.data.orl import find_orl
from tests.fakes.planted import CHANGES

RESULTS = Path(__file__).parent / "results"
NATURAL = {"ORL": 10, "London": 0}
"""Pairs of the untouched sets, looked at one by one: two frames of one shot each."""


def planted_table(name: str, paths: list[Path]) -> list[str]:
    """Return the lines of one data set: of every kind, how many planted twins were found.

    Of equal images the first counts.
    """
    every = [Image.open(path).convert("RGB") for path in paths]
    images = list({_digest(image): image for image in reversed(every)}.values())[::-1]
    plain = [thumbnail(image) for image in images]
    natural = _found(near_pairs(np.stack(plain)))
    lines, total, false = [], 0, 0
    digests, saved = [*map(_digest, images)], [*map(_digest, map(_saved, images))]
    right = sum(one == other for one, other in zip(digests, saved, strict=True))
    wrong = len(images) - len({*digests, *saved})
    lines.append(f"| {name} | equal pixels, other file | {len(images)} | {right} | {wrong} | 0 |")
    for kind, change in CHANGES.items():
        rng = np.random.default_rng(0)
        twins = [thumbnail(change(image, rng)) for image in images]
        found = _found(near_pairs(np.stack([*plain, *twins])))
        n = len(images)
        right = sum((i, i + n) in found for i in range(n))
        # A twin of an image that has a twin of its own is a pair of it too.
        same = {(i % n, j % n) for i, j in found} - {(i, i) for i in range(n)}
        wrong = {pair for pair in same if pair not in natural and pair[::-1] not in natural}
        lines.append(
            f"| {name} | {kind} | {n} | {right} ({100 * right / n:.1f} %) | {len(wrong)} "
            f"({100 * len(wrong) / len(found):.2f} %) | {len(found) - right - len(wrong)} |"
        )
        total, false = total + len(found), false + len(wrong)
    lines.append(f"| {name} | all | | | {false} of {total} ({100 * false / total:.2f} %) | |")
    lines.append(f"| {name} | none | {len(natural)} of its own | | | |")
    return lines


def imagehash_table(sets: dict[str, list[Path]]) -> list[str]:
    """Return what imagehash's phash needs to find the twins, if that library is installed."""
    try:
        import imagehash  # type: ignore[import-not-found]
    except ImportError:
        return []
    lines = [
        f"imagehash {imagehash.__version__}, phash: the bits within which 95 % of the twins lie, "
        "and the pairs of photographs as they are that lie within them too.", "",
        "| set | change | planted | bits | others |", "| --- | --- | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, paths in sets.items():
        images = [Image.open(path).convert("RGB") for path in paths]
        plain = np.array([imagehash.phash(image).hash.ravel() for image in images])
        between = (plain[:, None] != plain[None]).sum(-1)[np.triu_indices(len(plain), 1)]
        for kind, change in CHANGES.items():
            rng = np.random.default_rng(0)
            hashes = [imagehash.phash(change(image, rng)).hash.ravel() for image in images]
            bits = np.quantile((plain != np.array(hashes)).sum(1), 0.95, method="higher")
            others = (between <= bits).sum()
            lines.append(f"| {name} | {kind} | {len(images)} | {bits} | {others} |")
    return lines


def _file_name() -> str:
    return f"leaks_cpu{os.cpu_count()}_{datetime.date.today().isoformat()}.md"


def _digest(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.size} ".encode() + image.tobytes()).hexdigest()


def _saved(image: Image.Image) -> Image.Image:
    """Return an image as a lossless file of another format gives it back."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return Image.open(buffer).convert("RGB")


def _found(pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def synthetic(num: int, rng: np.random.Generator) -> np.ndarray:
    """Return thumbnails of random pictures; the last hundredth are the first, changed in turn."""
    out = np.empty((num, SIDE, SIDE), dtype=np.uint8)
    twins = num // 100
    for start in range(0, num - twins, 1 << 13):
        count = min(1 << 13, num - twins - start)
        coarse = rng.random((count, 16, 16), dtype=np.float32)
        fine = coarse.repeat(SIDE // 16, 1).repeat(SIDE // 16, 2)
        out[start : start + count] = 40 + 160 * fine
    changes = list(CHANGES.values())
    for n in range(twins):
        image = Image.fromarray(out[n]).convert("RGB")
        out[num - twins + n] = thumbnail(changes[n % len(changes)](image, rng))
    return out


def index_line(num: int, base: float | None) -> tuple[str, float]:
    images = synthetic(num, np.random.default_rng(0))
    start = time.process_time()
    pairs = near_pairs(images)
    seconds = time.process_time() - start
    twins = num // 100
    found = pairs.first[pairs.second - pairs.first == num - twins]
    by_change = ", ".join(
        f"{kind} {(found % len(CHANGES) == n).sum()} of {len(range(n, twins, len(CHANGES)))}"
        for n, kind in enumerate(CHANGES)
    )
    right = len(found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    base = base or seconds
    return (
        f"| {num:,} | {seconds:.1f} | {seconds / base:.1f} | {peak:.1f} | {right} of {twins} "
        f"({by_change}) | {len(pairs) - right} |"
    ), base


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--london", type=Path)
    parser.add_argument("--further", metavar="NAME=FOLDER")
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--out", type=Path, default=RESULTS / _file_name())
    given = parser.parse_args()
    sets = {"ORL": sorted(find_orl().rglob("*.pgm"))}
    if given.london is not None:
        sets["London"] = sorted(given.london.rglob("*.jpg"))
    further = ""
    if given.further is not None:
        name, folder = given.further.split("=", 1)
        further = f"--further {name}=FOLDER "
        sets[name] = sorted(Path(folder).rglob("*.png"))
    lines = [
        "# Leak audit: planted twins, and the index at a million rows", "",
        f"`python -m benchmarks.leaks --london FOLDER {further}--rows "
        f"{given.rows}`; 2 CPU cores shared "
        f"with other work, Python {platform.python_version()}, numpy {np.__version__}, scipy "
        f"{scipy.__version__}, Pillow {Image.__version__}. Threshold {SIMILARITY} (aligned cosine)."
        " London: Face Research Lab London Set, DeBruine and Jones 2017, CC BY 4.0, cropped and "
        "reduced.", "",
        "Every image of a set is planted once more, changed. False: pairs of two different "
        "photographs that are not near-duplicates in the untouched set. Further: a twin beside a "
        f"near-duplicate that the set has by itself (ORL has {NATURAL['ORL']} such pairs, two "
        f"frames of one shot, reviewed one by one; London {NATURAL['London']}).", "",
        "| set | change | planted | found | false | further |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, paths in sets.items():
        lines += planted_table(name, paths)
    lines += ["", *imagehash_table(sets)]
    lines += [
        "", "Random pictures; the last hundredth are the first, changed in turn. CPU seconds of "
        "one thread, for the cores were shared. Ratio: to the "
        "smallest, in the same run; quadratic growth would be 100 per tenfold. Peak: resident "
        f"memory in GB of the whole process, thumbnails ({SIDE} x {SIDE} bytes each) included.", "",
        "| rows | CPU seconds | ratio | peak GB | planted found | others |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    base = None
    for rows in map(int, given.rows.split(",")):
        line, base = index_line(rows, base)
        lines.append(line)
        print(line, flush=True)
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(given.out)


if __name__ == "__main__":
    main()
