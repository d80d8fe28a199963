"""Campaigns on this machine (cluster=local): several ranks, status, logs, cancel, and going on."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlfd_dist.run_dir import RunDir, read_events
from tests.fakes.command_line import Ended, Faces

Dlfd = Callable[..., Ended]


def states(dlfd: Dlfd, campaign: Path) -> dict[str, dict[str, Any]]:
    runs = json.loads(dlfd("status", campaign, "--json").out)["runs"]
    return {run["label"]: run for run in runs}


def wait_for(reached: Callable[[], bool], timeout_s: float = 200) -> None:
    end = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.3)


@pytest.fixture
def words(faces: Faces, tmp_path: Path) -> list[str]:
    """Two runs on two ranks each, of more steps than anybody waits for."""
    return [
        "submit", "train", *faces.forget, "seed=0,1", "train.epochs=10000", "cluster=local",
        "cluster.tasks_per_node=2", f"run.dir={tmp_path}/campaign",
    ]  # fmt: skip


@pytest.mark.timeout(600)
def test_runs_on_two_ranks_are_followed_cancelled_and_gone_on_with(
    dlfd: Dlfd, words: list[str], tmp_path: Path
):
    out = tmp_path / "campaign"
    assert dlfd(*words).status == 0
    try:
        wait_for(lambda: any(steps(run) for run in (out / "runs").glob("seed=0*")))
        found = states(dlfd, out)
        assert (found["seed=0"]["state"], found["seed=1"]["state"]) == ("running", "queued")
        # What is under way is joined.
        assert "nothing to submit" in dlfd(*words).out
        assert "2 ranks" in dlfd("logs", f"{out}/seed=0").out
    finally:
        dlfd("cancel", out)
    wait_for(lambda: {run["state"] for run in states(dlfd, out).values()} == {"cancelled"})
    (run,) = (out / "runs").iterdir()
    reached = steps(run)[-1]
    assert f"step_{reached}" == (run / "checkpoints" / "latest").read_text().strip()
    # A shorter request is another run; the same directory takes it.
    short = [w for w in words if not w.startswith(("train.epochs", "seed"))] + ["train.max_steps=1"]
    assert dlfd(*short).status == 0
    wait_for(lambda: states(dlfd, out)["train"]["state"] == "finished")
    done = RunDir(Path(states(dlfd, out)["train"]["directory"])).read_result()
    assert done["world_size"] == 2
    wait_for(lambda: (out / "report.html").is_file())


@pytest.mark.timeout(600)
def test_a_tuned_comparison_is_the_one_that_is_not_submitted(
    dlfd: Dlfd, faces: Faces, tmp_path: Path
):
    small = [word for word in faces.forget if not word.startswith("runtime.")]
    words = [
        "compare", *small, "method=ssd", "seed=0", "train.max_steps=2", "compare.tune=2",
        "compare.objective=gap", "runtime.threads_per_rank=1", "runtime.device=cpu",
    ]  # fmt: skip
    here, there = tmp_path / "here", tmp_path / "there"
    assert dlfd(*words, f"run.dir={here}").status == 0
    submit = ["submit", *words, "cluster=local", f"run.dir={there}", "run.mode=770"]
    ended = dlfd(*submit)
    assert ended.status == 0, ended.err
    try:
        wait_for(lambda: (there / "report.html").is_file())
    finally:
        dlfd("cancel", there)
    assert {run["state"] for run in states(dlfd, there).values()} == {"finished"}
    tables = [(out / "table.md").read_text().splitlines() for out in (here, there)]
    assert tables[0] == tables[1]
    found = [json.loads((out / "comparison.json").read_text())["tuning"] for out in (here, there)]
    assert found[0] == found[1]
    names = [sorted(p.name for p in out.glob("runs/*")) for out in (here, there)]
    assert names[0] == names[1]
    # The group shares the runs, and not what decides what is run.
    assert {stat.S_IMODE(p.stat().st_mode) for p in there.glob("runs/*/result.json")} == {0o660}
    for path in (there, *there.glob("jobs/**/*"), *there.glob("plans/*")):
        assert not path.stat().st_mode & 0o022, path
    # All of it is finished: nothing is left to submit.
    assert "nothing to submit" in dlfd(*submit).out


def steps(run: Path) -> list[int]:
    return [event["step"] for event in read_events(RunDir(run).metrics) if event["event"] == "step"]
