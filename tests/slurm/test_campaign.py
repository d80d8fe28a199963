"""Campaigns on the lab: submit, status, results; a run that fails; a run that is asked to stop."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlfd_dist.run_dir import read_events
from launch.cli import main
from tests.slurm.cluster import Lab

SETTINGS = [
    "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=12",
    "data.synthetic.images_per_identity=4", "forget.fraction=0.25", "metrics.num_bootstrap=20",
    "train.global_batch_size=8", "method.global_batch_size=8", "synthesis.steps=2",
    "train.max_steps=3", "method.max_steps=2", "cluster=slurm_lab", "cluster.mem_gb=1",
]  # fmt: skip


@pytest.fixture
def dlfd(capfd: pytest.CaptureFixture[str], lab: Lab) -> Callable[..., tuple[int, str]]:
    """Return a runner of `dlfd ...`: its exit status and what it wrote to standard output."""

    def run(*words: object) -> tuple[int, str]:
        capfd.readouterr()
        status = main([str(word) for word in words])
        return status, capfd.readouterr().out

    return run


def states(dlfd: Callable[..., tuple[int, str]], campaign: Path) -> dict[str, dict[str, Any]]:
    _, out = dlfd("status", campaign, "--json")
    return {run["label"]: run for run in json.loads(out)["runs"]}


def wait_for(done: Callable[[], bool], *, timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.5)


def test_two_methods_on_two_seeds_are_done_once_and_reported(dlfd, tmp_path: Path):
    out = tmp_path / "a campaign"
    words = [*SETTINGS, "method=dlfd,finetune", "seed=0,1", f'run.dir="{out}"']
    status, said = dlfd("submit", "compare", *words, "--json")
    assert status == 0
    told = json.loads(said)
    # Original and Retrained: an array; the methods: a pack for each seed; the report.
    assert len(told["job_ids"]) == 4
    assert len(told["runs"]) == 8
    # Asked again at once, all is in the queue already.
    _, said = dlfd("submit", "compare", *words, "--json")
    assert json.loads(said)["runs"] == []
    wait_for(lambda: (out / "report.html").is_file())
    found = states(dlfd, out)
    assert {run["state"] for run in found.values()} == {"finished"}
    comparison = json.loads((out / "comparison.json").read_text())
    assert comparison["missing"] == []
    assert len(comparison["runs"]) == 8
    status, said = dlfd("submit", "compare", *words)
    assert status == 0
    assert "nothing to submit" in said
    # A further seed reuses what is there.
    _, said = dlfd("submit", "compare", *words[:-2], "seed=0,1,2", words[-1], "--dry-run", "--json")
    plan = json.loads(said)
    assert len(plan["reused"]) == 8
    assert sum(job["runs"] for job in plan["jobs"]) == 4
    run = Path(found["dlfd seed 0"]["directory"])
    assert json.loads((run / "code.json").read_text())["version"]
    status, said = dlfd("logs", run)
    assert status == 0
    assert "result: " in said


def test_a_failing_run_on_two_nodes_marks_itself_and_its_children_and_is_named(
    dlfd, tmp_path: Path
):
    bad, out = tmp_path / "bad models", tmp_path / "bad method"
    many = ["cluster.nodes=2", "cluster.tasks_per_node=1"]
    dlfd("submit", "compare", *SETTINGS, "method=ssd", "train.lr=1e30", f'run.dir="{bad}"')
    dlfd(
        "submit", "compare", *SETTINGS, "method=finetune,ssd", "method.lr=1e30", *many,
        f'run.dir="{out}"',
    )  # fmt: skip
    wait_for(lambda: (out / "report.html").is_file())
    found = states(dlfd, out)
    assert {label for label, run in found.items() if run["state"] == "failed"} == {
        "finetune seed 0"
    }
    assert "became nan" in found["finetune seed 0"]["cause"]
    assert any("became nan" in line for line in found["finetune seed 0"]["lines"])
    assert json.loads((out / "comparison.json").read_text())["missing"] == ["finetune seed 0"]
    assert "finetune seed 0" in (out / "report.html").read_text()

    wait_for(lambda: states(dlfd, bad)["ssd seed 0"]["state"] == "blocked")
    found = states(dlfd, bad)
    assert found["original seed 0"]["state"] == "failed"
    assert found["ssd seed 0"]["state"] == "blocked"
    assert "original seed 0 failed" in found["ssd seed 0"]["cause"]
    assert dlfd("status", bad)[0] == 1


def test_a_run_told_to_stop_is_requeued_counts_it_and_restarts_by_its_script_alone(
    dlfd, lab: Lab, tmp_path: Path
):
    out = tmp_path / "campaign"
    words = [w for w in SETTINGS if not w.startswith(("train.max_steps", "method", "synthesis"))]
    words += ["train.epochs=20", "run.checkpoint_every=1000", "cluster.tasks_per_node=2"]
    _, said = dlfd("submit", "train", *words, f"run.dir={out}", "--json")
    job_id = json.loads(said)["job_ids"][0]
    wait_for(lambda: any(map(read_events, out.glob("runs/*/metrics.jsonl"))))
    assert states(dlfd, out)["train"]["state"] == "running"
    subprocess.run(["scancel", "--signal=USR2", job_id], check=True)
    wait_for(lambda: states(dlfd, out)["train"]["state"] == "restarting")
    # Cancelled while it waits to go on, then started again by what lies in its directory.
    assert dlfd("cancel", out)[0] == 0
    wait_for(lambda: states(dlfd, out)["train"]["state"] == "cancelled")
    (run,) = (out / "runs").iterdir()
    assert (run / "checkpoints" / "latest").is_file()
    subprocess.run(["sbatch", str(run / "submit.sbatch")], check=True, capture_output=True)
    wait_for(lambda: states(dlfd, out)["train"]["state"] == "finished")
    assert json.loads((run / "result.json").read_text())["restarts"] == 1
