"""`dlfd submit search` on the lab: disturbed on two nodes, and left alone on one."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from launch.cli import main
from launch.execute.places import job_log
from tests.fakes.tiny import LEARNED
from tests.slurm.cluster import Job, Lab, slurm, wait_for
from tests.slurm.conftest import SETTINGS

pytest.importorskip("ray")
pytestmark = pytest.mark.timeout(600)

NUM_TRIALS = 4
SHORT = [
    *[one for one in SETTINGS if not one.startswith("train.")], "method=dlfd",
    "method.epochs=8", "method.dynamic=false", "method.select=last", "method.clip_norm=1.0",
    "method.probe_every=8", "cluster=slurm_lab", "cluster.mem_gb=1",
    "search=random", f"search.num_samples={NUM_TRIALS}", "search.replicate=0",
    "search.workers_per_trial=2",
]  # fmt: skip
"""With so few people synthesis would rest at once, and no trial be better than no unlearning."""


@pytest.fixture
def models(trained: Callable[..., Path]) -> list[str]:
    """The words that name Original and Retrained; both have learned their people by heart."""
    original, retrained = (trained(*LEARNED, on=on, settings=SETTINGS) for on in ("all", "retain"))
    return [f"checkpoint={original}", f"reference={retrained}"]


@pytest.fixture
def submit(
    lab: Lab, models: list[str], capfd: pytest.CaptureFixture[str]
) -> Callable[..., list[Job]]:
    """Return a maker of searches on the lab; it gives back their jobs."""
    if not lab.has_namespaces():
        pytest.skip("Ray cannot start several nodes on one address")

    def make(out: Path, *words: str) -> list[Job]:
        capfd.readouterr()
        given = [*SHORT, *models, f"run.dir={out}", *words]
        assert main(["submit", "search", *given, "--json"]) == 0
        ids = json.loads(capfd.readouterr().out)["job_ids"]
        return [Job(one, job_log(out, "01-001-search", one)) for one in ids]

    return make


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "search.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == "trial"]


def results_of(out: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in out.glob("trials/*/result.json")}


def judged(out: Path) -> list[tuple[str, ...]]:
    return [(r["trial"], r["method.lr"], r["objective"], r["state"]) for r in rows_of(out)]


def processes_of(out: Path) -> list[psutil.Process]:
    """Return what still runs for a search; the lab's processes are this machine's."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(out) in command:
            found.append(process)
    return found


def driver_of(out: Path) -> psutil.Process:
    (found,) = [
        p for p in processes_of(out)
        if "submitit.core._submit" in p.cmdline() and "launch.search.node" not in p.cmdline()
    ]  # fmt: skip
    return found


def rays(job: Job) -> list[int]:
    """Return Ray's processes of a job, by the token that only it has."""
    found = []
    for process in psutil.process_iter(["name", "status"]):
        try:
            if process.info["status"] != psutil.STATUS_ZOMBIE and (
                process.environ().get("SLURM_JOB_ID") == job.number
                and "RAY_AUTH_TOKEN" in process.environ()
            ):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_a_search_with_ray_that_is_killed_and_preempted_finds_what_one_left_alone_finds(
    lab: Lab, submit: Callable[..., list[Job]], tmp_path: Path
):
    """The two ranks of a trial are on two nodes in the first search, and on one in the other."""
    alone, out = tmp_path / "alone", tmp_path / "on two nodes"
    nodes = ("cluster.nodes=2", "cluster.tasks_per_node=1")
    job = submit(out, *nodes, "cluster.partition=low")[0]
    # A trial takes seconds: SLURM is not asked meanwhile.
    wait_for(lambda: len(results_of(out)) >= 1, seen=lambda: job.said)
    before = results_of(out)
    driver_of(out).kill()
    job.wait_for(lambda: job.restarts == 1)
    assert not rays(job)
    wait_for(lambda: job.said.count("Ray has 2 nodes") == 2, seen=lambda: job.said)
    before |= results_of(out)
    assert len(before) < NUM_TRIALS
    more = ("--partition=high", "--nodes=4", "--exclusive", "--wrap=true")
    lab.submit(*more, output=tmp_path / "high.out")
    job.wait_for(lambda: job.restarts == 2)
    assert not rays(job)
    undisturbed = submit(alone, "cluster.nodes=1", "cluster.tasks_per_node=2")
    assert job.wait(300) == "COMPLETED", job.said
    after = results_of(out)
    assert {path: after[path] for path in before} == before
    assert json.loads((out / "result.json").read_text())["restarts"] == 2
    for path in after:
        result = json.loads(Path(path).read_text())
        assert result["world_size"] == 2
        # Its clock is read once for each, microseconds apart, and a trial takes a fifth of a second
        assert result["device_seconds"] == pytest.approx(2 * result["wall_seconds"], rel=1e-3)
    assert not rays(job)
    assert slurm("squeue", "-h", "-j", job.number, "-t", "RUNNING") == ""

    assert undisturbed[-1].wait(300) == "COMPLETED"
    assert [row["state"] for row in rows_of(out)] == ["finished"] * NUM_TRIALS
    assert judged(out) == judged(alone)
    best: list[Any] = [yaml.safe_load((one / "best.yaml").read_text()) for one in (out, alone)]
    assert best[0] == best[1]


def test_more_ranks_than_the_allocation_has_are_refused_at_once(
    lab: Lab, models: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    words = [*SHORT, *models, f"run.dir={tmp_path}/s", "cluster.nodes=2"]
    words += ["cluster.tasks_per_node=1", "search.workers_per_trial=3"]
    assert main(["submit", "search", *words]) == 2
    assert "needs 3 cores" in capfd.readouterr().err
    assert not (tmp_path / "s").exists()
