"""How long the command line takes to answer, beside what Python and torch take to start.

    python benchmarks/startup.py [--repeats 5] [--runs 10000] [--write]

- help: dlfd --help
- dry run: dlfd submit compare over 1,000 unlearning runs (4 methods, 250 seeds) --dry-run
- status: dlfd status of a campaign with 10,000 recorded runs, 9,000 of them finished

Each in a process of its own, interleaved with `python -c pass` and `python -c 'import torch'`.
Seconds are processor seconds of the command and its children (what it takes on an idle machine);
wall seconds stand beside them. The last line is `ratio R`: the dry run over `import torch`.

How long a command takes to its first step: benchmarks/first_step.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from results import spread, write_result

from dlfd_dist.config import ClusterConfig, JobConfig
from dlfd_dist.run_dir import append_event
from launch.execute.journal import Ledger, attempts_file
from launch.plan.runs import Plan, Run

DLFD = [sys.executable, "-m", "launch.cli"]
METHODS, SEEDS = "dlfd,scrub,finetune,neggrad", ",".join(map(str, range(250)))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    "dlfd --help": [*DLFD, "--help"],
    "dlfd submit --dry-run, 1,000 runs": [
        *DLFD, "submit", "compare", "data=synthetic", "forget.fraction=0.2", f"method={METHODS}",
        f"seed={SEEDS}", "cluster=slurm_generic", "--dry-run",
    ],
    "dlfd status, 10,000 runs": [*DLFD, "status", "campaign"],
}  # fmt: skip
LIMITS = {"dlfd --help": 0.3, "dlfd submit --dry-run, 1,000 runs": 5.0,
          "dlfd status, 10,000 runs": 2.0}  # fmt: skip


def record_campaign(path: Path, num_runs: int) -> None:
    """Write a campaign as submit and its jobs leave it: of ten runs nine finished, one failed."""
    for folder in ("runs", "plans", "jobs", "attempts"):
        (path / folder).mkdir(parents=True)
    config = JobConfig()
    runs = [
        Run(f"train seed {n}", "train", n, replace(config, seed=n), key=f"{n:08x}")
        for n in range(num_runs)
    ]
    campaign = Plan(path, "train", [], ClusterConfig(), runs, "page")
    (path / "plans" / campaign.plan_name).write_text(campaign.text())
    ledger = Ledger(path)
    with ledger.locked():
        ledger.append(
            "planned", plan=campaign.plan_name, reused={}, joined=[], words=["train"],
            code={"revision": None, "dirty": False, "diff": None},
        )  # fmt: skip
        for job, start in enumerate(range(0, num_runs, 1000)):
            units = [[run.key] for run in runs[start : start + 1000]]
            ledger.append(
                "submitted", job=f"01-{job:03d}-train", name="n", units=units, array=True,
                report=False, job_id=str(100 + job),
            )  # fmt: skip
    for n, run in enumerate(runs):
        folder = path / "runs" / f"run-{run.key}"
        (folder / "logs").mkdir(parents=True)
        log = folder / "logs" / "console.log"
        log.write_text("dlfd: The loss became nan; the weights were not changed.\n")
        file = attempts_file(path, run.key)
        append_event(file, {
            "event": "start", "time": 0.0, "job_id": f"{100 + n // 1000}_{n % 1000}",
            "job": f"01-{n // 1000:03d}-train", "restart": 0, "directory": str(folder),
            "log": str(log),
        })  # fmt: skip
        append_event(file, {"event": "end", "time": 1.0, "status": 1 if n % 10 == 0 else 0})
        if n % 10:
            (folder / "result.json").write_text(json.dumps({"device_seconds": 60.0}))


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Return processor and wall seconds of a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, capture_output=True, check=False, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )  # fmt: skip
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of a campaign with failed runs, status says so by its exit status.
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record_campaign(folder / "campaign", args.runs)
        for number in range(args.repeats):
            for what, command in COMMANDS.items():
                found[what].append(timed(command, folder))
            print(f"repeat {number + 1}/{args.repeats}")
    seconds = {what: np.array(values) for what, values in found.items()}
    torch_cpu = seconds["python -c 'import torch'"][:, 0]
    lines = [
        "| what | processor s, median (min to max) | wall s, median | to reach | "
        "processor s / import torch |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for what, values in seconds.items():
        limit = f"{LIMITS[what]:g}" if what in LIMITS else ""
        lines.append(
            f"| {what} | {spread(values[:, 0])} | {np.median(values[:, 1]):.2f} | {limit} | "
            f"{spread(values[:, 0] / torch_cpu)} |"
        )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines.append(f"\nLoad of the machine meanwhile (1, 5, 15 min): {load} on "
                 f"{len(os.sched_getaffinity(0))} cores.")  # fmt: skip
    text = "\n".join(lines)
    print(text)
    ratio = float(np.median(seconds["dlfd submit --dry-run, 1,000 runs"][:, 0] / torch_cpu))
    if args.write:
        write_result("startup", "Start-up of the command line", text, ratio)
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
