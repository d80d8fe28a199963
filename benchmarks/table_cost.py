"""What the whole table costs (`benchmarks.comparison --name table`), from its measured pieces.

    python -m benchmarks.table_cost [--write]

Every method of the table takes a few steps and a few more on drawn faces of 32 and of 48 pixels,
from a model of one step; the difference is what a step of it costs. AMUN's pass of attacks over
the forget set is timed apart from the steps that follow. A forward pass over 256 images is what
measuring costs. Steps, probes, measurements and resurfacing of all trainings, trials and
runs that the plan of the table has are counted up from these. Seconds are those of the process on
one thread, so that other processes of the machine do not count. The last line is `core_hours H`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.comparison import FAIR, SETS, SETTINGS
from benchmarks.results import write_result
from dlfd_dist.compose import compose_job
from dlfd_dist.jobs import run_job
from dlfd_dist.models import build_model
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from launch.plan.compare import OFFICIAL, comparison_of
from launch.plan.comparison import Comparison, training_runs
from launch.plan.trial_people import tuning_models
from launch.plan.tuning import searched

BATCH, PROBE_EVERY, LOOKED_AT = 32, 40, 1000
FEW, MORE = 1, 7
ATTACK = "amun's attack"
ATTACK_STEPS = 2
"""Batches of attacks on the drawn faces: 48 images are forgotten."""
FACES = [
    "data=synthetic", "data.synthetic.num_identities=24", "data.synthetic.images_per_identity=12",
    "forget.fraction=0.25", "data.leaks=false", "metrics.num_bootstrap=5",
    "metrics.resurface_steps=0", "runtime.threads_per_rank=1", "train.epochs=11",
    "train.keep_every=1", "train.max_steps=1", "task=faces", "method.select=last",
]  # fmt: skip


class Size(NamedTuple):
    """Images of a set."""

    retain: int
    forget: int
    val: int
    test: int

    @property
    def seen(self) -> int:
        return self.forget + self.val + self.test


SIZES = {
    "utk_age": Size(5500, 1500, 1500, 1500),
    "lfw_smile": Size(3859, 965, 1097, 1091),
    "ck48": Size(544, 136, 150, 150),
}
PIXELS = {"utk_age": 32, "lfw_smile": 32, "ck48": 48}


def spent(verb: str, words: list[str]) -> float:
    start = time.process_time()
    run_job(compose_job(verb, words), Collectives(), StopFlag())
    return time.process_time() - start


def step_seconds(
    verb: str, words: list[str], setting: str, folder: Path, few: int = FEW, more: int = MORE
) -> float:
    """Return what one more step costs, after the first `few`."""
    short, long = (
        spent(verb, [*words, f"{setting}={steps}", f"run.dir={folder / str(steps)}"])
        for steps in (few, more)
    )
    return (long - short) / (more - few)


def pieces(methods: list[str], pixels: int) -> dict[str, float]:
    """Return the seconds of a step of each method, of `training`, and of one image measured."""
    words = [*FACES, f"data.image_size={pixels}"]
    by_work = {"image": forward_seconds(pixels)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The first run loads libraries too, so that nothing is timed by it.
        spent("train", [*words, "train.epochs=1", "train.keep_every=null", f"run.dir={folder}/o"])
        plain = [word for word in words if not word.startswith("train.max_steps")]
        by_work["training"] = step_seconds("train", plain, "train.max_steps", folder / "steps")
        for method in methods:
            # Rewind goes back in a training, and costs what Fine-tune does.
            given = [*words, f"method={'finetune' if method == 'rewind' else method}"]
            given += [f"checkpoint={folder}/o"]
            # The probes of the authors' loop are counted by their images.
            if method == "amun":
                by_work[ATTACK] = step_seconds(
                    "unlearn", given, "method.max_steps", folder / "attack", 1, ATTACK_STEPS
                )
            first = ATTACK_STEPS if method == "amun" else FEW
            by_work[method] = step_seconds(
                "unlearn", given, "method.max_steps", folder / method, first, first + MORE - FEW
            )
            print(f"{pixels} px, {method}: {by_work[method]:.3f} s", flush=True)
    return by_work


def forward_seconds(pixels: int, images: int = 256) -> float:
    config = compose_job("train", FACES).model
    model = build_model(config, image_size=pixels, num_outputs=8, seed=0).eval()
    batch = torch.rand(images, 3, pixels, pixels)
    with torch.no_grad():
        model(batch)
        start = time.process_time()
        model(batch)
    return (time.process_time() - start) / images


def hours(name: str, plan: Comparison, seconds: dict[str, float]) -> dict[str, float]:
    """Return the core-hours of a set, by what they go to."""
    size, image = SIZES[name], seconds["image"]
    epoch = -(-size.retain // BATCH)
    whole = size.retain + size.seen
    resurfacing = 2 * (epoch * seconds["training"] + size.seen * image)
    train = plan.configs[0].train
    a_training = train.epochs * epoch * seconds["training"] + 2 * whole * image + resurfacing
    costs = {"trainings": (len(training_runs(plan)) + len(tuning_models(plan))) * a_training}
    # The delivered model everywhere, Original on a part of retain, and the line between both.
    trial = (whole + size.seen + 4 * LOOKED_AT) * image
    run = trial + whole * image + resurfacing
    for config in plan.configs:
        method = config.method
        own = method.name == OFFICIAL
        steps = epoch if own else (plan.compare.steps or epoch)
        probes = (steps if own else steps // PROBE_EVERY + 2) * (size.forget + size.val) * image
        acts = steps * seconds[method.name] + probes
        if method.name == "amun":
            attacks = -(-size.forget // BATCH)
            acts += attacks * (seconds[ATTACK] - seconds["amun"])
        trials = plan.compare.tune if searched(config, plan.given) else 0
        costs[method.name] = trials * (acts + trial) + len(plan.pairs) * (acts + run)
    return {what: value / 3600 for what, value in costs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="core-hours of the whole table")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    plans = {}
    for name in SETS:
        chosen = {s.split("=", 1)[0]: s for s in [*FAIR, *SETTINGS[f"table_{name}"]]}
        plans[name] = comparison_of([*chosen.values(), "data.root=somewhere"])
    methods = [config.method.name for config in plans[SETS[0]].configs]
    by_pixels = {pixels: pieces(methods, pixels) for pixels in sorted(set(PIXELS.values()))}
    by_set = {name: hours(name, plan, by_pixels[PIXELS[name]]) for name, plan in plans.items()}
    total = sum(sum(values.values()) for values in by_set.values())
    steps = " | ".join(f"s a step, {pixels} px" for pixels in by_pixels)
    lines = [f"| what | {steps} | {' | '.join(SETS)} |", "| --- |" + " ---: |" * (2 + len(SETS))]
    for what in by_set[SETS[0]]:
        key = "training" if what == "trainings" else what
        figures = [f"{by_work[key]:.3f}" for by_work in by_pixels.values()]
        figures += [f"{by_set[name][what]:.2f}" for name in SETS]
        lines.append(f"| {what} | {' | '.join(figures)} |")
    sums = " | ".join(f"{sum(by_set[name].values()):.1f}" for name in SETS)
    lines.append(f"| all, core-hours | | | {sums} |")
    images = ", ".join(f"{1000 * f['image']:.2f} ms at {p} px" for p, f in by_pixels.items())
    trials = plans[SETS[0]].compare.tune
    text = (
        f"{chr(10).join(lines)}\n\nThe columns of the sets are core-hours: five seeds, and "
        f"{trials} trials of every method that has something to draw, at its own settings. Of an "
        f"image: {images}. Counted up from these pieces, not run."
    )
    print(text)
    if args.write:
        write_result("table_cost", "What the whole table costs", text, total, named="core_hours")


if __name__ == "__main__":
    main()
