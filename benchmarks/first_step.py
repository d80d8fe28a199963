"""Seconds from a command to its first step, and what is done twice up to there.

    python benchmarks/first_step.py [--tree old=PATH --tree new=.] [--repeats 5]
                       [--model resnet18,small] [--what unlearn] [--write]

Commands, on 48 images with a manifest and checkpoints that are there already: dlfd train, unlearn
on one rank and on two, evaluate, a run of dlfd compare (from the moment a worker opens its log;
those after its first) and a task of dlfd submit cluster=local. Wall seconds up to the first batch
of the last rank, and processor seconds up to then of the processes that have not ended (dlfd submit
itself has). Beside them how often a manifest was read, a checkpoint hashed, a model made with
values, torch loaded and a process of ours started up to then; of compare per run, to its end, with
the coordinator, the hash of the delivered model and the models of the evaluation.

Several trees (git worktree add PATH REVISION) are measured in turn, command by command. Counting is
done from outside (counted/sitecustomize.py), so that old trees need not know of it. The last line
is `ratio R`: wall seconds of the last tree over the first, of unlearn on one rank with the first
model.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from results import spread, write_result

HERE = Path(__file__).resolve().parent
PEOPLE, IMAGES, EDGE = 12, 4, 32
ONE_RANK = "unlearn, 1 rank"
COUNTED = ("manifest", "hash", "model", "torch", "start")


def write_photographs(root: Path) -> None:
    """Write 12 people with 4 pictures of noise each and metadata.csv."""
    root.mkdir()
    generator, rows = np.random.default_rng(0), []
    for person in range(PEOPLE):
        for number in range(IMAGES):
            name = f"{person:02d}-{number}.png"
            pixels = generator.integers(0, 255, (EDGE, EDGE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name)
            rows.append((name, f"Person-{person:02d}", number % 2))
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image_path", "identity", "label"), *rows])


@dataclass(frozen=True)
class Measured:
    """One command: seconds to the first batch, and the counts in the order of COUNTED."""

    wall: float
    cpu: float
    counts: tuple[float, ...]


@dataclass(frozen=True)
class Bench:
    """A tree and its name, a model and the folder to work in."""

    name: str
    tree: Path
    model: str
    folder: Path

    @property
    def words(self) -> list[str]:
        return [
            f"data.root={self.folder / 'photographs'}", f"data.image_size={EDGE}",
            f"model={self.model}", "forget.fraction=0.25", "metrics.num_bootstrap=20",
            "train.max_steps=1", "train.global_batch_size=8", "method.global_batch_size=8",
            "method.max_steps=1", "runtime.device=cpu", "data.leaks=false",
        ]  # fmt: skip

    @property
    def models(self) -> list[str]:
        return [f"{k}={self.trained / k}" for k in ("checkpoint", "reference")]

    @property
    def trained(self) -> Path:
        """Where this tree's own models are: a report of others may not be one that it can write"""
        return self.folder / self.name / self.model

    def run(self, *words: str) -> list[dict]:
        """Run dlfd from the tree; return the events of its processes."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="counted") as counted:
            environment = {
                **os.environ, "DLFD_COUNTED": counted, "DLFD_CACHE": str(self.folder / "cache"),
                "PYTHONPATH": f"{HERE / 'counted'}{os.pathsep}{self.tree}",
            }  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-m", "launch.cli", *words], cwd=self.folder, env=environment,
                capture_output=True, check=False, text=True,
            )  # fmt: skip
            # The ranks of an old tree may crash as they end, when their result is there.
            assert done.returncode == 0 or "result: " in done.stderr, done.stderr
            if words[0] == "submit":
                _wait_for_report(self.folder / words[-1].removeprefix("run.dir="))
            return list(_events(Path(counted)))

    def prepare(self) -> None:
        """Train Original and Retrained, which also decodes the images."""
        for name, on in (("checkpoint", "all"), ("reference", "retain")):
            where = f"run.dir={self.trained / name}"
            self.run("train", *self.words, f"train.on={on}", where)

    def commands(self) -> dict[str, Callable[[str], Measured]]:
        """Return what is measured: each is given a directory that is not there yet."""
        unlearn = ["unlearn", *self.words, *self.models, "method=finetune"]
        checkpoint = self.models[0]

        def whole(*words: str) -> Callable[[str], Measured]:
            return lambda out: to_first_batch(self.run(*words, f"run.dir={out}"))

        return {
            "train": whole("train", *self.words),
            ONE_RANK: whole(*unlearn),
            "unlearn, 2 ranks": whole(*unlearn, "runtime.world_size=2"),
            "evaluate": whole("evaluate", *self.words, checkpoint),
            "compare, a run": lambda out: of_a_run(
                self.run(
                    "compare", *self.words, "method=finetune,neggrad", "seed=0,1",
                    "compare.workers=2", f"run.dir={out}",
                )
            ),
            "submit, a task": whole("submit", *unlearn, "cluster=local"),
        }  # fmt: skip


def _wait_for_report(campaign: Path) -> None:
    """Wait for what the last job of a campaign writes last."""
    end = time.monotonic() + 120
    while not (campaign / "report.html").exists():
        assert time.monotonic() < end, f"no report in {campaign}"
        time.sleep(0.2)
    time.sleep(2)  # the process that wrote it ends


def _events(folder: Path) -> Iterator[dict]:
    for file in folder.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            yield json.loads(line)


def first_batches(events: list[dict]) -> list[dict]:
    """Return the first batch of every process that had one, in the order of time."""
    first: dict[int, dict] = {}
    for event in sorted(events, key=lambda event: event["time"]):
        if event["event"] == "batch":
            first.setdefault(event["pid"], event)
    return list(first.values())


def counts_of(events: list[dict], until: float) -> list[float]:
    """Return the counts up to a moment, as COUNTED names them."""
    counts = dict.fromkeys(COUNTED, 0)
    for event in events:
        if event["event"] in counts and event["time"] <= until:
            counts[event["event"]] += event.get("values", True)
    return [float(count) for count in counts.values()]


def to_first_batch(events: list[dict]) -> Measured:
    """Measure a command whose first process is the command itself."""
    last, start = first_batches(events)[-1], min(event["time"] for event in events)
    counts = counts_of(events, last["time"])
    return Measured(last["time"] - start, last["cpu"], tuple(counts))


def of_a_run(events: list[dict]) -> Measured:
    """Measure the runs that workers did after their first, for imports are done by then."""
    spans = []
    num_runs = sum(event["event"] == "batch" for event in events)
    for pid in {event["pid"] for event in events if event["event"] == "batch"}:
        own = sorted((e for e in events if e["pid"] == pid), key=lambda event: event["time"])
        begin, own_spans = None, []
        for event in own:
            if event["event"] == "run":
                begin = event
            elif event["event"] == "batch" and begin is not None:
                passed = [event[clock] - begin[clock] for clock in ("time", "own_cpu")]
                own_spans, begin = [*own_spans, passed], None
        spans += own_spans[1:]
    wall, cpu = np.median(np.array(spans), axis=0)
    counts = np.array(counts_of(events, float("inf"))) / num_runs
    return Measured(float(wall), float(cpu), tuple(counts))


def trees_of(words: list[str]) -> dict[str, Path]:
    named = dict(word.split("=", 1) for word in words or ["this=."])
    return {name: Path(path).resolve() for name, path in named.items()}


def table(found: dict[tuple[str, str, str], list[Measured]]) -> str:
    lines = [
        "| model | what | tree | wall s, median (min to max) | processor s | manifest | hash | "
        "model | torch | process |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (model, what, tree), values in found.items():
        cpu = np.array([value.cpu for value in values])
        counts = " | ".join(f"{count:.3g}" for count in values[0].counts)
        wall = spread(np.array([value.wall for value in values]))
        lines.append(f"| {model} | {what} | {tree} | {wall} | {spread(cpu)} | {counts} |")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines.append(f"\nLoad of the machine meanwhile (1, 5, 15 min): {load} on "
                 f"{len(os.sched_getaffinity(0))} cores.")  # fmt: skip
    return "\n".join(lines)


def _compared(found: dict[tuple[str, str, str], list[Measured]]) -> str:
    """Return the command of the ratio: unlearn on one rank, if it was measured."""
    whats = [what for _, what, _ in found]
    return ONE_RANK if ONE_RANK in whats else whats[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tree", action="append", metavar="NAME=PATH", default=[])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="resnet18,small")
    parser.add_argument("--what", default="", help="commands with this in their name")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    trees, models = trees_of(args.tree), args.model.split(",")
    found: dict[tuple[str, str, str], list[Measured]] = {}
    with tempfile.TemporaryDirectory() as name:
        write_photographs(Path(name) / "photographs")
        for model in models:
            benches = {t: Bench(t, path, model, Path(name)) for t, path in trees.items()}
            for bench in benches.values():
                bench.prepare()
            names = list(next(iter(benches.values())).commands())
            whats = [what for what in names if args.what in what]
            for number in range(args.repeats):
                for what in whats:
                    for tree, bench in benches.items():
                        out = f"{tree}-{model}-{number}-{what.replace(' ', '').replace(',', '')}"
                        measured = bench.commands()[what](out)
                        found.setdefault((model, what, tree), []).append(measured)
                        print(f"{model} {what} {tree}: {measured}", flush=True)
    text = table(found)
    print(text)
    first, last = (
        np.median([m.wall for m in found[models[0], _compared(found), tree]])
        for tree in (next(iter(trees)), list(trees)[-1])
    )
    if args.write:
        write_result("first_step", "From the command to the first step", text, float(last / first))
    print(f"ratio {last / first:.2f}")


if __name__ == "__main__":
    main()
