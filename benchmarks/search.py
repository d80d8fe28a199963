"""What `dlfd search` costs, and what ASHA + Optuna save over a random search, on drawn faces.

    python benchmarks/search.py --out DIR [--trials 64] [--seeds 0 1 2] [--short 200]

1. Function trials that do nothing: the time of each beyond the first few, and the memory of all
   processes, over many trials on the cores of this machine.
2. A random search of 64 trials, and per search seed one by ASHA + Optuna: the work until a probe
   was within .005 of the best val NoMUS of the random search, as a share of all its work. Device
   time is counted, so that the machine's other work does not matter: an update is 3 passes over a
   batch (forward, and backward twice as long), a synthesis iteration 2. Trials count in the order
   of their last probe.
Writes benchmarks/results/search_cpu<cores>_<date>.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from dlfd_dist.compose import load_config
from dlfd_dist.run_dir import read_events

NEAR = 0.005
UPDATE, SYNTHESIS = 3, 2  # passes over a batch
SETTINGS = [
    "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=24",
    "data.synthetic.images_per_identity=6", "forget.fraction=0.25", "metrics.num_bootstrap=20",
    "synthesis.steps=2", "runtime.threads_per_rank=1", "runtime.device=cpu",
]  # fmt: skip
METHOD = [
    "search.objective=nomus",
    "method=dlfd", "method.global_batch_size=32", "method.probe_every=1", "synthesis.layer=features"
]  # fmt: skip


def idle(config: dict[str, Any]) -> None:
    from ray import tune

    tune.report({"value": config["n"]})


def overhead(num: int, out: Path) -> dict[str, float]:
    """Return seconds per trial that does nothing, and memory after a tenth and after all."""
    from ray import tune
    from ray.tune import Callback, RunConfig, TuneConfig, Tuner

    from dlfd_dist.config import SearchConfig
    from launch.search.cluster import ray_cluster

    ends: list[float] = []
    memory: list[float] = []

    class Told(Callback):
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            ends.append(time.monotonic())
            memory.append(_memory_mb())

    with ray_cluster(SearchConfig()), contextlib.redirect_stdout(None):
        Tuner(
            tune.with_resources(idle, {"CPU": 1}),
            param_space={"n": tune.grid_search(list(range(num)))},
            tune_config=TuneConfig(reuse_actors=True),
            run_config=RunConfig(name="idle", storage_path=str(out), verbose=0, callbacks=[Told()]),
        ).fit()
        at_a_time = os.cpu_count() or 1
    warm = 2 * at_a_time
    # Trials overlap: the time that one takes is its share of all, times those beside it.
    each = (ends[-1] - ends[warm]) / (len(ends) - 1 - warm) * at_a_time
    tenth = max(warm, num // 10)
    return {"seconds": each, "first_mb": memory[tenth], "last_mb": memory[-1]}


def _memory_mb() -> float:
    mine = psutil.Process()
    total = 0
    for one in [mine, *mine.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += one.memory_info().rss
    return total / 1e6


def search(words: list[str], out: Path) -> list[tuple[float, int]]:
    """Run a search; return (NoMUS of a probe, passes of the whole search until then) in order."""
    from launch.cli import main

    status = main(["search", *words, f"run.dir={out}", "search.replicate=0"])
    # 1: no trial was better than the model before it, which is no matter here.
    assert status in (0, 1), status
    assert (out / "results.json").is_file()
    found = []
    for path in out.glob("trials/*/metrics.jsonl"):
        iterations = load_config(path.parent / "config.yaml").synthesis.steps
        passes = 0
        for event in read_events(path):
            if event["event"] == "step":
                passes += UPDATE + SYNTHESIS * iterations * event["synthesised"]
            if event["event"] == "probe":
                when = (path.stat().st_mtime, event["step"])
                found.append((when, event["nomus"], passes))
                passes = 0
    found.sort()
    course, passes = [], 0
    for _, nomus, more in found:
        passes += more
        course.append((nomus, passes))
    return course


def passes_to(course: list[tuple[float, int]], target: float) -> int | None:
    return next((passes for nomus, passes in course if nomus >= target), None)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--short", type=int, default=200)
    given = parser.parse_args()
    from launch.cli import main as dlfd

    given.out.mkdir(parents=True, exist_ok=True)
    idle_facts = overhead(given.short, given.out / "idle")
    print(json.dumps(idle_facts), flush=True)
    if not given.seeds:
        write(given, idle_facts, [])
        return 0
    original = given.out / "original"
    if not (original / "result.json").is_file():
        assert dlfd(["train", *SETTINGS, "train.epochs=8", f"run.dir={original}"]) == 0
    words = [*SETTINGS, *METHOD, f"checkpoint={original}"]
    rows = []
    drawn = search(
        [*words, "search=random", f"search.num_samples={given.trials}"], given.out / "random"
    )
    target = max(nomus for nomus, _ in drawn) - NEAR
    for seed in given.seeds:
        guided = search(
            [*words, "search=optuna", "search.scheduler=asha", "search.grace_steps=1",
             f"search.num_samples={given.trials}", f"search.seed={seed}"],
            given.out / f"guided{seed}",
        )  # fmt: skip
        rows.append((seed, target, drawn[-1][1], passes_to(drawn, target), guided[-1][1],
                     passes_to(guided, target)))  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    write(given, idle_facts, rows)
    return 0


def write(given: argparse.Namespace, idle_facts: dict[str, float], rows: list[Any]) -> None:
    import optuna
    import ray
    import torch

    shares = [r[5] / r[2] if r[5] is not None else float("inf") for r in rows]
    file = Path(__file__).parent / "results"
    file /= f"search_cpu{os.cpu_count()}_{datetime.date.today().isoformat()}.md"
    lines = [
        "# What a search costs, and what ASHA + Optuna save", "",
        f"Command: `python {' '.join(sys.argv)}`. ray {ray.__version__}, optuna "
        f"{optuna.__version__}, torch {torch.__version__}, {os.cpu_count()} cores.", "",
        f"{given.short} function trials that do nothing: {idle_facts['seconds']:.2f} s each after "
        f"warm-up; memory of all processes {idle_facts['first_mb']:.0f} MB after a tenth of them, "
        f"{idle_facts['last_mb']:.0f} MB after all.", "",
    ]  # fmt: skip
    if not rows:
        file.write_text("\n".join(lines), encoding="utf-8")
        return
    lines += [
        f"`{' '.join([*SETTINGS, *METHOD])}`, {given.trials} trials. Work is counted in passes "
        f"over a batch ({UPDATE} an update, {SYNTHESIS} a synthesis iteration) of all trials in "
        f"the order of time; the target is the best val NoMUS of the random search less {NEAR}.",
        "", "| search seed | target | random: all passes | until the target | ASHA + Optuna: all | "
        "until the target | share of the random search |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row, share in zip(rows, shares, strict=True):
        seed, target, drawn, own, guided, until = row
        told = "not reached" if until is None else str(until)
        lines.append(
            f"| {seed} | {target:.4f} | {drawn} | {own} | {guided} | {told} | {share:.0%} |"
            if until is not None
            else f"| {seed} | {target:.4f} | {drawn} | {own} | {guided} | {told} | - |"
        )
    median = statistics.median(shares)
    lines += ["", f"Median share: {median:.0%} (goal: 35 %)." if median < float("inf")
              else "The median search did not reach the target."]  # fmt: skip
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(file)


if __name__ == "__main__":
    sys.exit(main())
