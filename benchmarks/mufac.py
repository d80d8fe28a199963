"""The recipe of MUFAC on drawn faces: a set of its size and form, and what the recipe costs.

    python benchmarks/mufac.py DIR --draw [--share 1]
    python benchmarks/mufac.py DIR [--write]

--draw writes drawn faces as MUFAC has them: 13,068 images of 128 pixels (10,025 to train on, of
which the first 1,500 rows are forgotten, 1,539 val, 1,504 test), eight age classes, families of
four with several images of a person; --share draws so much of each part. Without it, both are timed
with DIR/full (made by --share 1) and DIR/small (made by --share 0.04):

- full: the set is read, checked, decoded and asked for near-duplicates, as before every run of
  `experiment=table1_mufac_age`
- small: Original, Retrained, method=dlfd and method=dlfd_official at the authors' values run to
  their end, twice, with few and with more steps: the difference is what a step costs, the rest what
  measuring an image costs

From these the whole recipe is extrapolated. Seconds are those of the process on one thread, so that
other processes of the machine do not count. The last line is `core_hours H`, of one seed.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from results import write_result

from dlfd_dist.compose import compose_job
from dlfd_dist.config import JobConfig
from dlfd_dist.data.mufac import AGE_CLASSES, NUM_FORGET
from dlfd_dist.data.synthetic import EXPRESSIONS, draw_face
from dlfd_dist.jobs import prepare, run_job
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag

PARTS = {"train": 10_025, "val": 1_539, "test": 1_504}
NUM_RETAIN = PARTS["train"] - NUM_FORGET
NUM_ALL = sum(PARTS.values())
BATCH, EPOCHS, SIZE = 32, 100, 128
FAMILY = ("GM", "M", "D", "S")
"""The members of a family, one after another; each has IMAGES_EACH images."""
IMAGES_EACH = 5
SHARE = 0.04
RECIPE = ["experiment=table1_mufac_age", "seed=0", "runtime.threads_per_rank=1"]
# Its first 1,500 rows would be more than the small set has.
SMALL = ["forget.published=false", "metrics.num_bootstrap=20"]
STEPS = {"train": (1, 4), "dlfd": (1, 3), "dlfd_official": (1, 2)}
"""Few and more steps of each kind of run."""


def draw(root: Path, share: float) -> None:
    """Write the set; what is there already is left, so that a second start goes on."""
    letters = list(AGE_CLASSES)
    number = 0
    for part, count in PARTS.items():
        folder, rows = root / f"{part}_images", []
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(round(share * count)):
            person, index = divmod(number, IMAGES_EACH)
            family, member = divmod(person, len(FAMILY))
            age = int(np.random.default_rng([3, number]).integers(len(letters)))
            name = (
                f"F{family + 1:04d}_AGE_{FAMILY[member]}_{10 * age + 5}_{letters[age]}{index}.jpg"
            )
            rows.append((name, letters[age]))
            if not (folder / name).is_file():
                save_face(folder / name, person, age / (len(letters) - 1), number)
            number += 1
        # Nobody stands in two parts.
        number += -number % (IMAGES_EACH * len(FAMILY))
        with (root / f"custom_{part}_dataset.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("image_path", "age_class"), *rows])


def save_face(path: Path, person: int, age: float, number: int) -> None:
    pixels = draw_face(
        person, number % len(EXPRESSIONS), age, seed=0, nuisance_seed=number, image_size=SIZE
    )
    partial = path.with_suffix(".tmp")
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(partial, format="JPEG")
    partial.rename(path)


def spent(config: JobConfig) -> tuple[float, dict]:
    """Return the processor seconds of a run, and its result."""
    start = time.process_time()
    result = run_job(config, Collectives(), StopFlag())
    return time.process_time() - start, result


def cost(folder: Path, kind: str, words: list[str]) -> tuple[float, float, dict]:
    """Return the seconds of a step, of all else, and the result of the longer run."""
    verb, section = ("train", "train") if kind == "train" else ("unlearn", "method")
    seconds, result = [], {}
    for steps in STEPS[kind]:
        given = [*words, f"{section}.max_steps={steps}", f"run.dir={folder / f'{kind}-{steps}'}"]
        took, result = spent(compose_job(verb, given))
        seconds.append(took)
        print(f"{kind}, {steps} steps: {took:.1f} s", flush=True)
    few, more = STEPS[kind]
    step = (seconds[1] - seconds[0]) / (more - few)
    return step, seconds[0] - few * step, result


def run_small(root: Path, folder: Path) -> tuple[dict[str, float], float, float, dict]:
    """Return seconds of a step by kind, of an image that is measured, of a probed one, results."""
    words = [*RECIPE, f"data.root={root}", *SMALL]
    results = {}
    once = [*words, "metrics.resurface_steps=0"]
    # The first run loads libraries too, so that nothing is timed by it.
    spent(compose_job("train", [*once, "train.max_steps=1", f"run.dir={folder / 'first'}"]))
    step, rest, results["Original"] = cost(folder, "train", [*once, "train.on=all"])
    steps = {"train": step}
    image = rest / sum(results["Original"]["num_images"].values())
    few = [*words, "train.on=retain", "train.max_steps=1", f"run.dir={folder / 'retrained'}"]
    _, results["Retrained"] = spent(compose_job("train", [*few, "metrics.resurface_steps=1"]))
    original = folder / f"train-{max(STEPS['train'])}"
    models = [f"checkpoint={original}", f"reference={folder / 'retrained'}"]
    probed = sum(results["Original"]["num_images"][part] for part in ("forget", "val"))
    for method in ("dlfd", "dlfd_official"):
        given = [*words, f"method={method}", *models, "metrics.resurface_steps=1"]
        steps[method], _, results[method] = cost(folder, method, given)
    return steps, image, float(probed), results


def read_full(root: Path, folder: Path) -> tuple[float, Mapping[str, int]]:
    """Return the seconds of what comes before every run, and how many images there are."""
    given = [*RECIPE, f"data.root={root}", f"data.cache_dir={folder}", f"run.dir={folder / 'run'}"]
    start = time.process_time()
    splits = prepare(compose_job("train", [*given, "train.on=retain"]), 1).data.splits
    took = time.process_time() - start
    return took, {name: len(ids) for name, ids in splits.parts().items()}


def table(
    steps: Mapping[str, float], image: float, probed: float, results: Mapping[str, dict]
) -> tuple[str, float]:
    """Return the table of one seed, and its core-hours."""
    # A probe of the small set looks at fewer images than one of MUFAC does.
    more = image * (NUM_FORGET + PARTS["val"] - probed)
    each = {name: steps[name] + more for name in ("dlfd", "dlfd_official")}
    updates = -(-NUM_RETAIN // BATCH)
    resurfacing = 2 * (
        updates * steps["train"] + (NUM_FORGET + PARTS["val"] + PARTS["test"]) * image
    )
    measured = {
        "trained": NUM_ALL * image + resurfacing,
        "unlearned": 3 * NUM_ALL * image + resurfacing,
    }
    rows = [
        ("Original", -(-PARTS["train"] // BATCH) * EPOCHS, steps["train"], measured["trained"]),
        ("Retrained", updates * EPOCHS, steps["train"], measured["trained"]),
        ("dlfd", updates, each["dlfd"], measured["unlearned"]),
        ("dlfd_official", updates, each["dlfd_official"], measured["unlearned"]),
    ]
    lines = [
        "| run | steps | s a step, probe included | core-hours of its steps | of its measurements "
        "| papers' NoMUS of the small run |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    total = 0.0
    for name, number, step, rest in rows:
        hours = (number * step / 3600, rest / 3600)
        total += sum(hours)
        lines.append(
            f"| {name} | {number} | {step:.2f} | {hours[0]:.1f} | {hours[1]:.1f} | "
            f"{results[name]['nomus_paper']:.3f} |"
        )
    return "\n".join(lines), total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, metavar="DIR")
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.draw:
        draw(args.root, args.share)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        before, counts = read_full(args.root / "full", Path(folder))
        print(f"read: {before:.0f} s, {counts}", flush=True)
        steps, image, probed, results = run_small(args.root / "small", Path(folder))
    lines, hours = table(steps, image, probed, results)
    text = (
        f"Reading the {NUM_ALL} images before the first run (files, decoding, near-duplicates): "
        f"{before / 60:.1f} core-minutes; {counts}. An image that is measured: "
        f"{1000 * image:.1f} ms.\n\n{lines}\n\nNothing but the small runs (share {SHARE:g}) ran to "
        "its end; steps, measurements and probes are counted up to the whole set. The small runs "
        "have a few steps: their NoMUS shows that the recipe ends in its figure, and nothing else."
    )
    print(text)
    if args.write:
        write_result("mufac", "The recipe of MUFAC on drawn faces", text, hours, named="core_hours")


if __name__ == "__main__":
    main()
