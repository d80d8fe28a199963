"""A campaign on a real SLURM under injected faults, compared with the same campaign left alone.

    python -m benchmarks.faults --faults 100 --seed 0 [--out DIR] [--model M] [--steps N] [--write]

It needs what slurm/lab needs (root, Debian), and brings the lab up and down where it is not up. A
campaign of 23 runs is submitted twice, to this machine (cluster=local), where it is left alone, and
to the cluster, where faults are injected, spread over its work: kinds in an order that the seed
draws, victims among the jobs that run. Whatever then is not as in the campaign that was left alone
is a violation, and the exit status 1. --write stores its page in benchmarks/results.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import io
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlfd_dist.run_dir import RunDir, read_events
from launch.cli import main as dlfd
from launch.execute import slurm as clients
from launch.execute.background import is_alive
from launch.execute.journal import Ledger, read_attempts
from launch.execute.states import ENDED_BADLY, RunStatus, planned_runs, run_states
from tests.fakes.faults import NODE_LIMIT_MIN, Faults, Victim, draw_schedule, running
from tests.slurm.cluster import LAB, REPOSITORY, Lab, ask, slurm

POLL_S = 1.0
LAST_SHARE = 0.9
"""Share of the work by which all faults are meant to have come."""
MAX_RETRIES = 10
TIMING = {"seconds", "wall_seconds", "device_seconds", "peak_memory_mb", "restarts", "job_id",
          "slurm_usage"}  # fmt: skip
"""What may differ from the campaign that was left alone."""


@dataclass(frozen=True)
class Shape:
    """How large the campaign is: seeds of one-rank arrays, of packs and of runs on two nodes."""

    arrays: str = "0,1,2"
    packs: str = "3"
    pairs: str = "4"
    methods: str = "finetune,scrub,dlfd"
    pair_methods: str = "finetune,dlfd"
    steps: int = 100
    model: str = "resnet18"
    probe_every: int = 10
    crash_s: tuple[float, float] = (0.5, 25.0)
    """How long a crashed node is away; SLURM misses it after 10 s."""
    gap_s: float = 2.5
    """The least time between two faults, so that what one breaks is under way at the next."""
    patience_s: float = 12.0
    """The next fault comes after so long even if the work has not moved on."""

    def commands(self, out: Path, cluster: str = "slurm_lab") -> list[list[str]]:
        """Return the words of the submissions that make the campaign."""
        common = [
            "compare", "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=12",
            "data.synthetic.images_per_identity=4", "forget.fraction=0.25", "synthesis.steps=2",
            "metrics.num_bootstrap=20", "train.global_batch_size=8", "method.global_batch_size=8",
            f"model={self.model}", "train.lr=0.002", "train.epochs=1000",
            f"train.max_steps={self.steps}", "method.epochs=1000",
            f"method.max_steps={self.steps}", f"method.probe_every={self.probe_every}",
            "run.checkpoint_every=4", "runtime.threads_per_rank=1", f"cluster={cluster}",
            "cluster.mem_gb=3",
            f"cluster.time_min={NODE_LIMIT_MIN}", "cluster.signal_s=30",
            "cluster.max_restarts=100", f'run.dir="{out}"',
        ]  # fmt: skip
        two_nodes = ["cluster.nodes=2", "cluster.tasks_per_node=1"]
        return [
            [*common, f"method={self.methods}", f"seed={self.arrays}", "cluster.pack=1"],
            [*common, "method=finetune,scrub", f"seed={self.packs}", "cluster.pack=2"],
            [*common, f"method={self.pair_methods}", f"seed={self.pairs}", *two_nodes],
        ]


SHORT = Shape(
    "0", methods="finetune", pair_methods="dlfd", steps=240, model="small", probe_every=120,
    crash_s=(3.0, 6.0), gap_s=1.0, patience_s=4.0,
)  # fmt: skip


@dataclass
class Record:
    """One fault and what came of it."""

    number: int
    kind: str
    at_s: float
    """Seconds since the campaign was submitted."""
    job_id: str
    runs: list[str]
    said: str
    came_of_it: str = ""
    restart_s: float | None = None


@dataclass
class Outcome:
    """What the campaign under faults became."""

    runs: list[RunStatus] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    """What a person had to do."""
    violations: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


# --- the two campaigns


def call(*words: str) -> int:
    """Run a dlfd command in this process, its output kept away."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return dlfd(list(words))


def run_campaigns(
    lab: Lab, out: Path, shape: Shape, num_faults: int, seed: int, log: Any = print
) -> Outcome:
    """Run the campaign under faults and, beside it and without SLURM, left alone; compare."""
    outcome, calm, rough = Outcome(), out / "calm", out / "rough"
    start, rng = time.monotonic(), random.Random(seed)
    alone = LeftAlone(shape.commands(calm, "local"))
    try:
        commands = shape.commands(rough)
        for words in commands:
            assert call("submit", *words) == 0, f"not submitted: {words}"
        drive = Drive(Faults(lab, rough, commands, rng, shape.crash_s), shape, outcome, log)
        drive.inject(draw_schedule(num_faults, rng))
        drive.settle()
        outcome.seconds["rough"] = time.monotonic() - start
        log(f"rough: {outcome.seconds['rough']:.0f} s")
        outcome.seconds["calm"] = alone.wait()
    finally:
        alone.stop()
    outcome.runs = run_states(rough)
    outcome.violations += compare(calm, rough)
    outcome.violations += bookkeeping(rough)
    for record in outcome.records:
        tell_what_came(rough, record, drive.began)
    return outcome


class LeftAlone:
    """The same campaign on this machine: no fault of the cluster reaches it."""

    def __init__(self, commands: Sequence[Sequence[str]]):
        self.start = time.monotonic()
        self.todo = [[sys.executable, "-m", "launch.cli", "submit", *words] for words in commands]
        self.campaign: Path | None = None
        # The other thread changes the environment, and exec would read it meanwhile (EFAULT).
        self.environment = dict(os.environ)
        self.thread = threading.Thread(target=self._run)
        self.seconds, self.failed = 0.0, ""
        self.thread.start()

    def _run(self) -> None:
        """Submit one after another, each when the jobs of the one before have ended."""
        for command in self.todo:
            done = subprocess.run(
                [*command, "--json"], env=self.environment, capture_output=True, text=True
            )
            if done.returncode:
                self.failed = done.stderr
                return
            told = json.loads(done.stdout)
            while any(is_alive(Path(told["campaign"]), one) for one in told["job_ids"]):
                time.sleep(POLL_S)
        self.seconds = time.monotonic() - self.start

    def wait(self) -> float:
        """Return how long it took."""
        self.thread.join()
        assert not self.failed, self.failed
        return self.seconds

    def stop(self) -> None:
        """Submit no more; what runs is left to end."""
        self.todo.clear()
        self.thread.join()


# --- faults, spread over the work


@dataclass
class Drive:
    """Injects the faults and looks after what a person would look after."""

    faults: Faults
    shape: Shape
    outcome: Outcome
    log: Any
    began: float = field(default_factory=time.time)
    start: float = field(default_factory=time.monotonic)
    labels: dict[str, str] = field(default_factory=dict)
    doubled: set[str] = field(default_factory=set)
    retries: int = 0

    @property
    def campaign(self) -> Path:
        return self.faults.campaign

    def __post_init__(self) -> None:
        runs = planned_runs(self.campaign, Ledger(self.campaign))
        self.labels = {run.key: run.label for run in runs}

    def inject(self, schedule: Sequence[str]) -> None:
        last = time.monotonic()
        for number, kind in enumerate(schedule, 1):
            share = LAST_SHARE * (number - 1) / len(schedule)
            while (waited := time.monotonic() - last) < self.shape.gap_s or (
                self.progress() < share and waited < self.shape.patience_s
            ):
                self.look()
            record = self._one(number, kind)
            if record is None:
                self.outcome.violations.append(f"only {number - 1} faults found a job that ran")
                return
            self.outcome.records.append(record)
            last = time.monotonic()
            left = (last - self.start) * (len(schedule) - number) / number
            runs = ", ".join(record.runs)
            self.log(
                f"{record.at_s:5.0f} s: fault {number}/{len(schedule)}: {kind}: {record.job_id} "
                f"({runs}) {record.said}; {self.progress():.0%} of the steps, ETA {left:.0f} s"
            )

    def _one(self, number: int, kind: str) -> Record | None:
        """Make one fault; a victim that ends before it is hit is drawn again."""
        while (victim := self._victim()) is not None:
            at = time.monotonic() - self.start
            try:
                said = self.faults.make(kind, victim)
            except (AssertionError, subprocess.SubprocessError) as err:
                # squeue may list a job for a moment after it has ended.
                if "already finished" in str(err) or victim not in running(self.campaign):
                    continue
                self.outcome.violations.append(f"fault {number}, {kind}: {err}")
                said = str(err)
            labels = [self.labels[key] for key in victim.keys]
            return Record(number, kind, at, victim.job_id, labels, said)
        return None

    def _victim(self) -> Victim | None:
        """Return a job that runs, once there is one; None when the campaign is over."""
        while not (found := running(self.campaign)):
            self.look()
            if not ask("squeue", "-h") and not self.retry():
                return None
        begun = [one for one in found if any(map(self._has_begun, one.keys))]
        # Mostly those that work, sometimes those that are still importing torch.
        return self.faults.rng.choice(begun if begun and self.faults.rng.random() < 0.75 else found)

    def _has_begun(self, key: str) -> bool:
        events = read_attempts(self.campaign, key).events
        return bool(events) and events[-1]["event"] == "start"

    def progress(self) -> float:
        """Return the share of all steps that have been done."""
        files = self.campaign.glob("runs/*/metrics.jsonl")
        done = sum(file.read_text().count('"event": "step"') for file in files)
        return done / (len(self.labels) * self.shape.steps)

    def look(self) -> None:
        """Check that no run has two jobs; do what an operator would; wait a moment."""
        self._no_run_has_two_jobs()
        self.faults.raise_limits()
        for line in ask("squeue", "-h", "-r", "-o", "%i|%r").splitlines():
            job_id, reason = line.split("|")
            if "held" in reason.lower():
                slurm("scontrol", "release", job_id)
                self.outcome.by_hand.append(f"released {job_id} ({reason})")
        drained = ask("sinfo", "-h", "-N", "-p", "batch", "-t", "drain", "-o", "%n")
        for node in drained.split():
            self.faults.lab.resume(node)
            self.outcome.by_hand.append(f"resumed {node}")
        time.sleep(POLL_S)

    def _no_run_has_two_jobs(self) -> None:
        try:
            queue = clients.squeue()
        except clients.SchedulerError:
            return  # a busy controller; the next look asks again
        for key, jobs in placed_jobs(self.campaign).items():
            alive = [
                one for one in jobs
                if one in queue and queue[one].reason != "DependencyNeverSatisfied"
            ]  # fmt: skip
            if len(alive) > 1 and key not in self.doubled:
                self.doubled.add(key)
                self.outcome.violations.append(
                    f"{self.labels[key]} has {len(alive)} jobs at once: {', '.join(alive)}"
                )

    def retry(self) -> bool:
        """Try again what ended badly, as a user would; False: there is nothing to try again."""
        bad = [s for s in run_states(self.campaign) if s.state in ENDED_BADLY]
        if not bad or self.retries >= MAX_RETRIES:
            return False
        self.retries += 1
        causes = [f"{s.label} {s.state}: {s.cause}" for s in bad if s.state != "blocked"]
        self.outcome.by_hand.append(f"dlfd retry: {'; '.join(causes)}")
        self.log(self.outcome.by_hand[-1])
        call("retry", str(self.campaign), "--failed")
        return True

    def settle(self) -> None:
        """Wait for the end of the campaign."""
        while ask("squeue", "-h") or self.retry():
            self.look()


def placed_jobs(campaign: Path) -> dict[str, list[str]]:
    """Return every job that a run was ever put into, by its key."""
    from launch.execute.journal import given_again, placements_of

    found: dict[str, list[str]] = {}
    for event in Ledger(campaign).events():
        if event["event"] == "submitted":
            # A controller that forgot a job gives its id again: nobody is in it any more.
            for jobs in found.values():
                jobs[:] = [one for one in jobs if not given_again(one, event["job_id"])]
            for key, place in placements_of(event).items():
                found.setdefault(key, []).append(place.job_id)
    return found


# --- what must be as if nothing had happened


def compare(calm: Path, rough: Path) -> list[str]:
    """Return what is not the same in both campaigns: runs, weights, figures, steps."""
    names = {path: {one.parent.name for one in path.glob("runs/*/result.json")}
             for path in (calm, rough)}  # fmt: skip
    folders = {path.name for path in (rough / "runs").glob("[!.]*")}
    wrong = [f"{name} is missing" for name in sorted(names[calm] - names[rough])]
    wrong += [f"{name} is one too many" for name in sorted(folders - names[calm])]
    num_planned = len(planned_runs(calm, Ledger(calm)))
    if len(names[calm]) != num_planned:
        wrong.append(f"left alone, {len(names[calm])} of {num_planned} runs finished")
    for name in sorted(names[calm] & names[rough]):
        one, other = RunDir(calm / "runs" / name), RunDir(rough / "runs" / name)
        wrong += [f"{name}: {what}" for what in different(one, other)]
    return wrong


def different(one: RunDir, other: RunDir) -> Iterator[str]:
    """Yield what differs between two runs besides their times."""
    if one.model.read_bytes() != other.model.read_bytes():
        yield "other weights"
    if one.samples.read_bytes() != other.samples.read_bytes():
        yield "other samples.safetensors"
    results = [without_times(run.read_result()) for run in (one, other)]
    for key in sorted(results[0].keys() | results[1].keys()):
        if results[0].get(key) != results[1].get(key):
            yield f"other {key} in result.json"
    steps = [event["step"] for event in read_events(other.metrics) if event["event"] == "step"]
    if steps != list(range(1, len(steps) + 1)):
        yield f"steps {steps}"
    calm, rough = ([without_times(e) for e in read_events(run.metrics)] for run in (one, other))
    if calm != rough:
        yield f"metrics.jsonl: {len(rough)} events, of {len(calm)} when left alone, or others"


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in TIMING}


def bookkeeping(campaign: Path) -> list[str]:
    """Return what ledger, attempts, report and queue say that must not be."""
    wrong = [
        f"{one.label} is {one.state}" for one in run_states(campaign) if one.state != "finished"
    ]
    runs = planned_runs(campaign, Ledger(campaign))
    for run in runs:
        wrong += [f"{run.label}: {what}" for what in overlaps(campaign, run.key)]
    comparison = json.loads((campaign / "comparison.json").read_text())
    if comparison["missing"] or len(comparison["runs"]) != len(runs):
        wrong.append(
            f"the report has {len(comparison['runs'])} runs and names as missing: "
            f"{comparison['missing']}"
        )
    if not (campaign / "report.html").is_file():
        wrong.append("there is no report.html")
    if queued := ask("squeue", "-h"):
        wrong.append(f"squeue is not empty: {queued}")
    return wrong


def overlaps(campaign: Path, key: str) -> Iterator[str]:
    """Yield where a run was done by two starts at a time, or by one after it was finished."""
    open_start: dict[str, Any] | None = None
    jobs: list[str] = []
    for event in read_attempts(campaign, key).events:
        if event["event"] == "start":
            if open_start is not None and open_start["time"] > event["time"]:
                yield f"start at {event['time']:.1f} before that of {open_start['job_id']}"
            open_start = event
            if not jobs or jobs[-1] != event["job_id"]:
                jobs.append(event["job_id"])
        elif open_start is None:
            yield "an end without a start: two jobs did it at once"
        else:
            open_start = None
    if len(jobs) != len(set(jobs)):
        yield f"done by turns by {', '.join(jobs)}"


def tell_what_came(campaign: Path, record: Record, began: float) -> None:
    """Note how long after a fault its runs were started again, from their attempts."""
    when, found, begun = began + record.at_s, [], False
    for run in planned_runs(campaign, Ledger(campaign)):
        if run.label in record.runs:
            starts = read_attempts(campaign, run.key).starts
            later = [e for e in starts if e["time"] > when]
            begun = begun or len(later) < len(starts)
            found += later[:1]
    if not found:
        record.came_of_it = "ran on"
        return
    first = min(found, key=lambda event: event["time"])
    seconds = first["time"] - when
    job = "same job" if first["job_id"] == record.job_id else f"job {first['job_id']}"
    if begun:
        record.restart_s = seconds
    word = "began again" if begun else "first began"
    record.came_of_it = f"{word} after {seconds:.0f} s ({job})"


# --- the page


def page(outcome: Outcome, args: argparse.Namespace, shape: Shape) -> str:
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "numpy", "POT"))
    version = ask("sinfo", "--version")
    finished = sum(one.state == "finished" for one in outcome.runs)
    words = " ".join(w for w in shape.commands(Path("DIR"))[0] if not w.startswith("run.dir"))
    wrong = [f"- {one}" for one in outcome.violations] or [
        "None. Every run has one result; weights (bit for bit), samples, figures and events are "
        "those of the campaign that was left alone; no run had two jobs at a time; the report "
        "misses nothing; the queue is empty."
    ]
    return "\n".join([
        f"# {len(outcome.records)} faults in a campaign of {len(outcome.runs)} runs", "",
        f"`python -m benchmarks.faults --faults {args.faults} --seed {args.seed} "
        f"--model {shape.model} --steps {shape.steps} --write`", "",
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, python "
        f"{platform.python_version()}, {versions}, {version} of four nodes (slurm/lab).",
        f"One-rank arrays (seeds {shape.arrays}), packs of two (seed {shape.packs}) and DDP over "
        f"two nodes (seed {shape.pairs}). First submission: `dlfd submit {words}`.", "",
        f"Left alone on this machine {outcome.seconds['calm']:.0f} s, under faults "
        f"{outcome.seconds['rough']:.0f} s; {finished} of {len(outcome.runs)} runs finished.", "",
        "## Violations", "", *wrong, "",
        "## Done by hand", "", *(f"- {n} x {one}" for one, n in by_hand(outcome).items()),
        "" if outcome.by_hand else "Nothing.\n",
        "## Kinds", "", *kinds_table(outcome.records), "",
        "## Runs", "", *runs_table(outcome), "",
        "## Faults", "", *faults_table(outcome.records), "",
    ])  # fmt: skip


def by_hand(outcome: Outcome) -> dict[str, int]:
    return dict(Counter(one for one in outcome.by_hand))


def kinds_table(records: Sequence[Record]) -> list[str]:
    lines = [
        "| kind | faults | began again | median s until then | ran on, finished or had not begun |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind in dict.fromkeys(one.kind for one in sorted(records, key=lambda one: one.kind)):
        same = [one for one in records if one.kind == kind]
        times = [one.restart_s for one in same if one.restart_s is not None]
        median = f"{statistics.median(times):.0f}" if times else "–"
        lines.append(
            f"| {kind} | {len(same)} | {len(times)} | {median} | {len(same) - len(times)} |"
        )
    return lines


def runs_table(outcome: Outcome) -> list[str]:
    hits = Counter(label for record in outcome.records for label in record.runs)
    lines = ["| run | state | faults aimed at it | starts |", "| --- | --- | ---: | ---: |"]
    return lines + [
        f"| {one.label} | {one.state} | {hits[one.label]} | {one.restarts + 1} |"
        for one in outcome.runs
    ]


def faults_table(records: Sequence[Record]) -> list[str]:
    lines = ["| # | s | kind | job | runs | | what came of it |",
             "| ---: | ---: | --- | --- | --- | --- | --- |"]  # fmt: skip
    return lines + [
        f"| {one.number} | {one.at_s:.0f} | {one.kind} | {one.job_id} | {', '.join(one.runs)} | "
        f"{one.said} | {one.came_of_it} |"
        for one in records
    ]


# --- the command line


def in_the_lab() -> Lab:
    """Return the lab that this process was started in, by with.sh, with the jobs' environment."""
    lab = Lab()
    os.environ |= {
        "SLURM_CONF": str(lab.folder / "slurm.conf"), "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return lab


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default=Shape.model, help="resnet18, or small with more steps")
    parser.add_argument("--steps", type=int, default=Shape.steps, help="steps of every run")
    parser.add_argument("--short", action="store_true", help="10 runs of few steps")
    parser.add_argument("--out", default="runs/faults")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if not Lab().is_up():
        again = [str(LAB / "with.sh"), sys.executable, "-m", "benchmarks.faults", *sys.argv[1:]]
        return subprocess.run(again).returncode
    shape = SHORT if args.short else Shape(model=args.model, steps=args.steps)
    out = Path(args.out).absolute()

    def log(line: str) -> None:
        print(line, flush=True)

    outcome = run_campaigns(in_the_lab(), out, shape, args.faults, args.seed, log)
    values = [asdict(one) for one in outcome.records]
    (out / "faults.json").write_text(json.dumps(values, indent=2) + "\n")
    text = page(outcome, args, shape)
    print(text)
    if args.write:
        stem = f"faults_cpu{len(os.sched_getaffinity(0))}_{datetime.date.today().isoformat()}"
        path = Path(__file__).parent / "results" / f"{stem}.md"
        path.write_text(text)
        print(f"written: {path}")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
