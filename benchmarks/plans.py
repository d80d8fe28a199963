"""Ways to the plan in the loop of the synthesis: seconds, the cost they reach, and forgetting.

    python -m benchmarks.plans [--sizes 32x32,32x256,128x1024] [--repeats 4] [--steps 0]
            [--folder DIR] [--write] [data=manifest data.root=PATH data.label=age_group SETTINGS...]

A small network is trained on the data (drawn faces where none is named). For every size, retain
rows x forget rows, each way synthesises the same batches, one a repeat, with synthesis.* of the
run: the exact plan of every iteration, the exact plan of the iteration before (ot.lag=1), and
entropic plans that begin at the potentials of the one before. The ways take turns. Seconds are
processor seconds of the thread that goes through the loop, a plan: the median over iterations and
repeats. What the thread of a lagged plan takes on another core does not count, as long as the
passes of an iteration take longer than a plan. The cost is the exact transport cost between the
features of the synthesised images and the forget features, over the cost that the exact way
reaches. `fastest` is the way with the fewest seconds among those whose cost is at most 1 % below
the exact way's, and ot.solver=auto takes the faster of the exact and the entropic way with their
defaults by the same rule. It changes neither lag nor reg. With --steps each way then unlearns for
so many steps of method=dlfd, from the same checkpoint. --folder keeps the runs: the same command
goes on where it was cut off. The last line is `ratio R`: seconds of the lagged plan over those of
the exact one at the largest size.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.results import spread, write_result
from dlfd_dist.compose import compose_job
from dlfd_dist.config import TransportConfig
from dlfd_dist.jobs import prepare, run_job
from dlfd_dist.jobs.context import Job, open_job
from dlfd_dist.models import Classifier, FoldedClassifier
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from dlfd_dist.synthesis import Objective, layer_output, perturb
from dlfd_dist.transport import OTResult, cosine_cost, solve

DRAWN = [
    "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=1000",
    "data.synthetic.images_per_identity=4", "data.synthetic.num_expressions=4",
    "forget.fraction=0.5",
]  # fmt: skip
COMMON = [
    "model=small", "runtime.device=cpu", "runtime.threads_per_rank=1", "data.leaks=false",
    "metrics.resurface_steps=0",
]  # fmt: skip
TRAIN = ["train.epochs=4", "train.lr=0.02"]
UNLEARN = ["method=dlfd", "method.dynamic=false", "method.probe_every=null", "method.select=last"]
WAYS: dict[str, list[str]] = {
    "exact": ["ot.solver=exact"],
    "exact, ot.lag=1": ["ot.solver=exact", "ot.lag=1"],
    "entropic, reg 0.01, 1,000 iterations": ["ot.solver=entropic"],
    "entropic, reg 0.05, 20 iterations": ["ot.solver=entropic", "ot.reg=0.05", "ot.max_iter=20"],
    "entropic, reg 0.2, 5 iterations": ["ot.solver=entropic", "ot.reg=0.2", "ot.max_iter=5"],
}
"""Settings of each way. At 5 iterations a plan is far from its marginals unless reg is large."""
EXACT, LAGGED, DEFAULT_ENTROPIC, *_ = WAYS
AUTO = (EXACT, DEFAULT_ENTROPIC)
"""Ways that ot.solver=auto chooses from: neither lag nor reg is its to change."""
LARGE = 1024
"""Rows from which on there are two batches: the cost of an entropic plan of them takes seconds."""
TOLERANCE = 0.01
"""Share of the exact way's cost by which a way may stay below it."""


class Reached(NamedTuple):
    """What a way took and reached at one size."""

    seconds: float
    """of the loop's thread, a plan"""
    cost: float
    """of the synthesised features, over that of the exact way: the mean over batches"""
    spread: str = ""
    """of that over batches"""


def fastest(reached: Mapping[str, Reached], among: Iterable[str] = WAYS) -> str:
    """Return the way with the fewest seconds whose cost is not below that of exact by TOLERANCE."""
    close = [way for way in among if reached[way].cost >= 1 - TOLERANCE]
    return min(close, key=lambda way: reached[way].seconds)


def configs(words: Sequence[str]) -> dict[str, TransportConfig]:
    return {way: compose_job("unlearn", [*words, *more]).ot for way, more in WAYS.items()}


class Synthesis:
    """The same images, moved away from the same forget rows by any way to the plan."""

    def __init__(self, job: Job, model: Classifier, size: str, seed: int):
        self.job, self.model = job, model
        splits, generator = job.data.splits, np.random.default_rng(seed)
        num_retain, num_forget = map(int, size.split("x"))
        retain, forget = (
            generator.choice(ids, size, replace=False)
            for ids, size in ((splits.retain, num_retain), (splits.forget, num_forget))
        )
        self.images, self.labels = job.batches.shard(retain)
        self.forget = layer_output(model, job.batches.shard(forget)[0], "features")

    def cost(self, images: torch.Tensor) -> float:
        features = layer_output(self.model, images, "features")
        return float(solve(cosine_cost(features, self.forget), solver="exact").value)

    def __call__(self, ot: TransportConfig) -> tuple[list[float], float]:
        """Return the seconds of each plan, and the cost that is reached."""
        config, seconds = self.job.config, list[float]()
        objective = Objective(
            self.forget, self.labels, total=len(self.images),
            forget_weight=config.method.forget_weight,  # type: ignore[attr-defined]
            retain_weight=config.method.final_retain_weight,  # type: ignore[attr-defined]
            layer="features", ot=ot, collectives=self.job.collectives,
        )  # fmt: skip
        objective.solve = timed(objective.solve, seconds)
        made = perturb(
            self.model, self.images, objective,
            cfg=config.synthesis, pixel_range=self.job.batches.pixel_range,
        )  # fmt: skip
        return seconds, self.cost(made.images)


def timed(solve: Callable[..., OTResult], seconds: list[float]) -> Callable[..., OTResult]:
    def call(*args: object, **words: object) -> OTResult:
        start = time.thread_time()
        solved = solve(*args, **words)
        seconds.append(time.thread_time() - start)
        return solved

    return call


def measure(
    syntheses: Sequence[Synthesis], ways: Mapping[str, TransportConfig]
) -> tuple[dict[str, Reached], float]:
    """Return what every way took and reached, and the cost of the images as they came."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    costs: dict[str, list[float]] = {way: [] for way in ways}
    for synthesis in syntheses:
        for way, ot in ways.items():
            taken, cost = synthesis(ot)
            # The first plan of a synthesis is begun from nothing, and lags in no way.
            seconds[way] += taken[1:]
            costs[way].append(cost)
    exact = np.array(costs[EXACT])
    ratios = {way: np.array(costs[way]) / exact for way in ways}
    reached = {
        way: Reached(
            float(np.median(seconds[way])), float(ratios[way].mean()), spread(ratios[way], 3)
        )
        for way in ways
    }
    before = [synthesis.cost(synthesis.images) for synthesis in syntheses]
    return reached, float((np.array(before) / exact).mean())


def rows(size: str, before: float, reached: Mapping[str, Reached]) -> Iterator[str]:
    best = fastest(reached)
    for way, one in reached.items():
        yield (
            f"| {size} | {way} | {one.seconds * 1e3:.2f} | "
            f"{one.seconds / reached[EXACT].seconds:.2f} | {one.cost:.3f} | {one.spread} | "
            f"{'fastest' if way == best else ''} |"
        )
    auto = fastest(reached, AUTO).split(",")[0]
    yield f"| {size} | no synthesis | | | {before:.3f} | | auto: {auto} |"


def costs(
    job: Job, model: Classifier, sizes: Sequence[str], words: Sequence[str], repeats: int
) -> tuple[str, float]:
    lines = [
        "| retain x forget rows | plan | a plan, ms | over exact | transport cost reached over "
        "exact, mean | median (min to max) | |",
        "| ---: | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    reached: dict[str, Reached] = {}
    for size in sizes:
        number = repeats if max(map(int, size.split("x"))) < LARGE else 2
        syntheses = [Synthesis(job, model, size, seed) for seed in range(number)]
        reached, before = measure(syntheses, configs(words))
        lines += rows(size, before, reached)
        print("\n".join(lines[-len(WAYS) - 1 :]), flush=True)
    return "\n".join(lines), reached[LAGGED].seconds / reached[EXACT].seconds


def forgetting(original: Mapping[str, Any], words: Sequence[str], folder: Path) -> str:
    """Return a table of what Original and the delivered models of all ways do."""
    lines = [
        "| plan | AUC of the attack [95 % over people] | forget accuracy | test accuracy |",
        "| --- | ---: | ---: | ---: |",
        forgotten("none: Original", original),
    ]
    for number, (way, more) in enumerate(WAYS.items()):
        config = compose_job("unlearn", [*words, *more, f"run.dir={folder / str(number)}"])
        lines.append(forgotten(way, run_job(config, Collectives(), StopFlag())))
        print(lines[-1], flush=True)
    return "\n".join(lines)


def forgotten(name: str, result: Mapping[str, Any]) -> str:
    low, high = result["mia"]["auc_interval"]
    return (
        f"| {name} | {result['mia']['auc']:.3f} [{low:.3f}, {high:.3f}] | "
        f"{result['forget_accuracy']:.3f} | {result['test_accuracy']:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="32x32,32x256,128x1024")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="The entropic transport solver")
    torch.set_num_threads(1)
    given = args.settings or DRAWN
    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(TemporaryDirectory()))
        train = [*COMMON, *TRAIN, *given]
        original = run_job(
            compose_job("train", [*train, f"run.dir={folder / 'original'}"]),
            Collectives(), StopFlag(),
        )  # fmt: skip
        unlearn = [*COMMON, *UNLEARN, *given]
        words = [*unlearn, f"checkpoint={folder / 'original'}"]
        config = compose_job("unlearn", [*words, f"run.dir={folder / 'syntheses'}"])
        with open_job(prepare(config, 1), Collectives()) as job:
            folding = FoldedClassifier(job.model(config.checkpoint))
            shape = job.batches.shard(job.data.splits.retain[:1])[0].shape
            with folding.computed_in(shape, bfloat16=False) as model:
                text, ratio = costs(job, model, args.sizes.split(","), words, args.repeats)
        if args.steps:
            text += "\n\n" + forgetting(
                original, [*words, f"method.max_steps={args.steps}"], folder
            )
    text = f"`train {' '.join(train)}`, then `unlearn {' '.join(unlearn)}`\n\n{text}"
    print(text)
    if args.write:
        write_result("plans", "Ways to the plan in the loop of the synthesis", text, ratio)
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
