"""CPU seconds a step of an unlearning run: model and data of the library path against our own.

    python -m benchmarks.library [--steps N] [--write]

Both runs have the same network and the same decoded images; their steps alternate in one process.
Printed are the ratios of steps that follow each other, and the share of a step in which images are
read. The last line is `ratio R`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.results import spread, write_result
from dlfd_dist.compose import compose_job
from dlfd_dist.data.loaders import resolve_data
from dlfd_dist.factories import giving
from dlfd_dist.jobs import Job, prepare
from dlfd_dist.jobs.context import make_job
from dlfd_dist.jobs.unlearn import course_of, method_context, step_batch
from dlfd_dist.methods import Updater, methods
from dlfd_dist.models import build_model, save_weights
from dlfd_dist.runtime.collectives import Collectives

WORDS = [
    "method=dlfd", "method.dynamic=false", "method.global_batch_size=32", "method.epochs=200",
    "method.augment=false", "forget.fraction=0.25", "runtime.threads_per_rank=1",
]  # fmt: skip
OURS = ["data=synthetic", "data.image_size=32", "model=small"]
THEIRS = ["data.factory=given:sets", "model.factory=given:model"]


class Steps:
    """The steps of a run, taken and timed one by one."""

    def __init__(self, job: Job):
        self.job, self.course = job, course_of(job)
        model = job.model(job.config.checkpoint)
        context = method_context(job, model, self.course.num_steps)
        self.method = methods.get(job.config.method.name)(context)
        self.updater = Updater(model, job.config.method, collectives=job.collectives)
        self.turns = self.course.turns(0)

    def take(self) -> tuple[float, float]:
        """Return the CPU seconds of the next step, and those of reading its images."""
        start = time.process_time()
        batch = step_batch(self.job, next(self.turns))
        read = time.process_time()
        self.method.step(batch, self.updater, stop=False)
        return time.process_time() - start, read - start


def main() -> None:
    parser = argparse.ArgumentParser(description="a step of the library path against our own")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    text, ratio = table(args.steps)
    print(text)
    if args.write:
        write_result("library", "A step of the library path", text, ratio)
    else:
        print(f"ratio {ratio:.3f}")


def table(num_steps: int) -> tuple[str, float]:
    """Return what the steps took, and the median of their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "original.safetensors"
        words = [*WORDS, f"checkpoint={weights}"]
        ours = compose_job("unlearn", [*words, *OURS, f"run.dir={folder}/ours"])
        model = build_model(ours.model, image_size=32, num_outputs=2, seed=0)
        save_weights(model, weights)
        data = resolve_data(ours.data, ours.drawn_forget)
        sets = {
            name: [
                (torch.from_numpy(data.images[i].copy()), int(data.manifest.labels[i])) for i in ids
            ]
            for name, ids in data.splits.parts().items()
        }
        normal = [f"data.mean={ours.data.mean}", f"data.std={ours.data.std}"]
        named = [word for word in words if not word.startswith("forget.")]
        theirs = compose_job("unlearn", [*named, *THEIRS, *normal, f"run.dir={folder}/theirs"])
        given = {"given:sets": lambda: sets, "given:model": lambda: model.module}
        with giving(given):
            runs = [Steps(make_job(prepare(c, 1), Collectives())) for c in (ours, theirs)]
            for run in runs:
                run.take()
            taken = [[run.take() for run in runs] for _ in range(num_steps)]
    lines = ["| path | ms a step, median | of it to read images |", "| --- | ---: | ---: |"]
    for name, pairs in zip(("our own", "library"), zip(*taken, strict=True), strict=True):
        whole, read = (statistics.median(side) for side in zip(*pairs, strict=True))
        lines.append(f"| {name} | {whole * 1e3:.1f} | {read / whole:.1%} |")
    ratios = np.array([other[0] / own[0] for own, other in taken])
    middle = float(np.median(ratios))
    quarters = spread(np.quantile(ratios, [0.25, 0.5, 0.75]), 3)
    lines.append(f"\nOver our own path, {num_steps} pairs, median and quartiles: {quarters}.")
    return "\n".join(lines), middle


if __name__ == "__main__":
    main()
