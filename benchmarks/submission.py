"""How long a campaign takes to be planned and queued, and a job until its first step.

    python -m benchmarks.submission [--seeds 167] [--repeats 3] [--write]

It needs what slurm/lab needs (root, Debian), and brings the lab up and down where it is not up. The
grid is four methods on many seeds with their Original and Retrained; its jobs are queued to begin
in an hour, and cancelled. The baseline of queueing is as many sbatch of an empty script; that of
the first step is a job that only writes down when it began. --write stores its page in
benchmarks/results.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import in_the_lab
from dlfd_dist.run_dir import read_events
from launch.cli import main as dlfd
from launch.execute.batches import make_batches
from launch.plan.campaign import plan_campaign
from launch.verbs.submit import submit
from tests.slurm.cluster import LAB, Lab, slurm

SMALL = [
    "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=12",
    "data.synthetic.images_per_identity=4", "train.global_batch_size=8", "train.max_steps=1",
    "cluster=slurm_lab", "cluster.mem_gb=1",
]  # fmt: skip
LIMIT_S = 120.0


@dataclass(frozen=True)
class Grid:
    """What planning and queueing the grid took."""

    runs: int
    jobs: int
    plan_s: float
    submit_s: float
    sbatch_s: float
    """As many sbatch of an empty script."""


def queue_grid(out: Path, seeds: int) -> Grid:
    words = [
        "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=12",
        "forget.fraction=0.25", "method=dlfd,finetune,scrub,ssd", f"seed=range(0,{seeds})",
        "cluster=slurm_lab", 'cluster.options=["--begin=now+1hour"]', f"run.dir={out}",
    ]  # fmt: skip
    start = time.monotonic()
    campaign = plan_campaign("compare", words)
    make_batches(campaign.runs, campaign.cluster, 1)
    planned = time.monotonic()
    submission = submit(campaign)
    queued = time.monotonic()
    slurm("scancel", *submission.job_ids)
    began = time.monotonic()
    jobs = [later() for _ in submission.job_ids]
    baseline = time.monotonic() - began
    slurm("scancel", *jobs)
    return Grid(len(campaign.runs), len(jobs), planned - start, queued - planned, baseline)


def later() -> str:
    return slurm("sbatch", "--parsable", "--begin=now+1hour", "--output=/dev/null", "--wrap=true")


def first_step(out: Path) -> float:
    """Return the seconds from `dlfd submit` to the first step of its run."""
    start = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        assert dlfd(["submit", "train", *SMALL, f"run.dir={out}"]) == 0
    wait_for(lambda: any(_stepped(file) for file in out.glob("runs/*/metrics.jsonl")))
    return time.monotonic() - start


def _stepped(file: Path) -> bool:
    return any(event["event"] == "step" for event in read_events(file))


def trivial(out: Path) -> float:
    """Return the seconds from sbatch until a job that does nothing has begun."""
    start = time.monotonic()
    slurm("sbatch", "--mem=100M", "--output=/dev/null", f"--wrap=touch {out}")
    wait_for(out.exists)
    return time.monotonic() - start


def wait_for(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not reached():
        assert time.monotonic() < end, f"not in {LIMIT_S:.0f} s"
        time.sleep(0.05)


def import_torch() -> float:
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - start


def page(grid: Grid, rows: list[tuple[float, float, float]], command: str) -> str:
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "submitit"))
    steps, empty, imports = (statistics.median(column) for column in zip(*rows, strict=True))
    return "\n".join([
        "# From a command to a queue, and to a first step", "",
        f"`{command}`", "",
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, load "
        f"{os.getloadavg()[0]:.1f}, python {platform.python_version()}, {versions}, "
        f"{slurm('sinfo', '--version')} of four nodes (slurm/lab).", "",
        "| what | s | baseline | s | ratio |", "| --- | ---: | --- | ---: | ---: |",
        f"| {grid.runs} runs planned | {grid.plan_s:.2f} | | | |",
        f"| ... and queued as {grid.jobs} jobs | {grid.submit_s:.2f} | {grid.jobs} sbatch of an "
        f"empty script | {grid.sbatch_s:.2f} | {grid.submit_s / grid.sbatch_s:.1f} |",
        f"| submit to first step, median of {len(rows)} | {steps:.2f} | sbatch to the start of an "
        f"empty job | {empty:.2f} | {steps / empty:.1f} |",
        f"| ... over SLURM's own latency | {steps - empty:.2f} | `import torch` alone | "
        f"{imports:.2f} | {(steps - empty) / imports:.1f} |", "",
        "Each repeat (submit to first step, empty job, import): "
        + "; ".join(" ".join(f"{value:.2f}" for value in row) for row in rows) + ".", "",
    ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=167)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if not Lab().is_up():
        again = [str(LAB / "with.sh"), sys.executable, "-m", "benchmarks.submission", *sys.argv[1:]]
        return subprocess.run(again).returncode
    in_the_lab()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        grid = queue_grid(out / "grid", args.seeds)
        print(f"{grid.runs} runs: planned {grid.plan_s:.1f} s, queued {grid.submit_s:.1f} s")
        rows = []
        for number in range(args.repeats):
            rows.append((first_step(out / f"run-{number}"),
                         trivial(out / f"empty-{number}"), import_torch()))  # fmt: skip
            print(f"{number + 1}/{args.repeats}: {rows[-1][0]:.1f} s to the first step", flush=True)
        while slurm("squeue", "-h"):
            time.sleep(0.5)
    words = f"python -m benchmarks.submission --seeds {args.seeds} --repeats {args.repeats} --write"
    text = page(grid, rows, words)
    print(text)
    if args.write:
        stem = f"submission_cpu{len(os.sched_getaffinity(0))}_{datetime.date.today().isoformat()}"
        (Path(__file__).parent / "results" / f"{stem}.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
