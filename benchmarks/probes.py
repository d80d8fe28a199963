"""Do thinned probes decide as whole ones do, and how many images do they look at?

    python benchmarks/probes.py [--sizes 20,40] [--seeds 0 1 2] [--write]
                       [data=manifest data.root=PATH data.image_size=48 SETTINGS...]

DLFD with a probe after every step (ORL where no data is named), whose probes are thinned to
method.probe_images; at every probe that ended with the sample the whole one is made as well. A
decision is whether synthesis acts in the next step. A run that stands at its threshold from then
on is the hard case; where the sample does not decide, the whole probe does, and both agree. The
last line is `ratio R`: images looked at over those of whole probes, of the smallest size.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from results import write_result

from dlfd_dist.compose import compose_job
from dlfd_dist.config import DLFDConfig
from dlfd_dist.jobs import prepare, run_job
from dlfd_dist.jobs.context import open_job
from dlfd_dist.jobs.evaluation import probe
from dlfd_dist.jobs.session import Session
from dlfd_dist.jobs.unlearn import unlearn
from dlfd_dist.methods import Probe
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag

ORL = ["data=orl", "data.image_size=64"]
COMMON = ["forget.fraction=0.2", "runtime.device=cpu", "runtime.threads_per_rank=1"]
TRAIN = ["train.epochs=30"]
UNLEARN = ["method=dlfd", "method.epochs=3", "method.probe_every=1", "method.select=last"]


@dataclass(frozen=True)
class Look:
    """One thinned probe."""

    sampled: bool
    score: float
    whole_score: float
    threshold: float

    @property
    def agrees(self) -> bool:
        return (self.score > self.threshold) == (self.whole_score > self.threshold)


def looks(words: Sequence[str]) -> list[Look]:
    """Run DLFD and return what its probes decided, beside the whole ones."""
    found: list[Look] = []

    def watch(session: Session, seen: Probe) -> None:
        cfg = session.job.config.method
        assert isinstance(cfg, DLFDConfig)
        if seen.step >= session.num_steps:
            return
        sampled, whole = seen.standard_error is not None, seen.forgetting_score
        if sampled:
            job = session.job
            whole = probe(session.model, job.batches, job.config, seen.step).forgetting_score
        found.append(Look(sampled, seen.forgetting_score, whole, cfg.forget_threshold))

    with open_job(prepare(compose_job("unlearn", list(words)), 1), Collectives()) as job:
        unlearn(job, StopFlag(), observe=watch)
        splits = job.data.splits
        print(f"forget {len(splits.forget)}, val {len(splits.val)} images", flush=True)
    return found


def images(found: Sequence[Look], size: int, num_all: int) -> float:
    """Return the images that were looked at, over those of whole probes."""
    each = [2 * size if one.sampled else 2 * size + num_all for one in found]
    return float(np.mean(each)) / num_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="20,40")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    given = [*(args.settings or ORL), *COMMON]
    lines = [
        "| images a side | seed | probes | decided by the sample | same decision | standard "
        "deviation of sample - whole | images looked at / whole |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    ratios: dict[int, list[float]] = {}
    agreed: dict[int, list[bool]] = {}
    with TemporaryDirectory() as name:
        for seed in args.seeds:
            original = Path(name) / f"original{seed}"
            words = [*given, *TRAIN, f"seed={seed}", f"run.dir={original}"]
            config = compose_job("train", words)
            run_job(config, Collectives(), StopFlag())
            splits = prepare(config, 1).data.splits
            num_all = len(splits.forget) + len(splits.val)
            for size in map(int, args.sizes.split(",")):
                words = [
                    *given, *UNLEARN, f"seed={seed}", f"method.probe_images={size}",
                    f"checkpoint={original}", f"run.dir={name}/unlearn{seed}-{size}",
                ]  # fmt: skip
                found = looks(words)
                sampled = [one for one in found if one.sampled]
                apart = [one.score - one.whole_score for one in sampled]
                ratios.setdefault(size, []).append(images(found, size, num_all))
                agreed.setdefault(size, []).extend(one.agrees for one in found)
                lines.append(
                    f"| {size} | {seed} | {len(found)} | {len(sampled) / len(found):.0%} | "
                    f"{np.mean([one.agrees for one in found]):.1%} | "
                    f"{np.std(apart) if apart else 0:.3f} | {ratios[size][-1]:.2f} |"
                )
                print(lines[-1], flush=True)
    for size, same in agreed.items():
        lines.append(
            f"\n{size} images a side: {np.mean(same):.1%} of {len(same)} decisions are those of "
            f"the whole probe (to reach: 95 %), with {np.mean(ratios[size]):.2f} of its images."
        )
    text = "\n".join([f"`{' '.join([*given, *UNLEARN])}`", "", *lines])
    print(text)
    ratio = float(np.mean(ratios[min(ratios)]))
    if args.write:
        data = next(w.split("=")[1] for w in given if w.startswith("data="))
        write_result(f"probes_{data}", "Thinned probes against whole ones", text, ratio)
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
