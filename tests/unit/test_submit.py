"""dlfd submit against a SLURM whose programs record how they were called."""

from __future__ import annotations

import math
import os
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dlfd_dist.compose import split_cluster
from dlfd_dist.config import ClusterConfig
from dlfd_dist.errors import ConfigError, RunDirError
from dlfd_dist.resources import resource_dir
from dlfd_dist.run_dir import exclusively
from launch.campaign import local as local_campaign
from launch.campaign import results
from launch.campaign.ledger import Ledger
from launch.campaign.sbatch import Script
from launch.campaign.spec import LaunchSpec
from launch.campaign.submit import Lanes
from launch.comparison.compare import COMPARE_LOCK
from tests.fakes.campaigns import GIVEN, Campaigns, make_campaigns

RECORDS = Path(__file__).parents[1] / "records" / "sbatch"


@pytest.fixture
def campaigns(tmp_path, monkeypatch, capfd) -> Campaigns:
    return make_campaigns(tmp_path, monkeypatch, capfd)


# --- the text


@pytest.mark.parametrize(
    ("cluster", "spec"),
    [
        ("slurm_generic", LaunchSpec(why="one rank")),
        ("slurm_lab", LaunchSpec(2, 2, why="DDP")),
        ("example_gres", LaunchSpec(2, 4, why="DDP")),
        ("example_gpus_per_task", LaunchSpec(1, 8, True, "packed")),
        ("example_cpu", LaunchSpec(1, 4, True, "packed")),
    ],
)
def test_the_batch_script_is_the_recorded_one(cluster: str, spec: LaunchSpec):
    settings, _ = split_cluster([f"cluster={cluster}", "cluster.max_running=5"])
    settings = replace(settings, python=settings.python or "/env/bin/python")
    script = Script(
        Path("/shared/my runs"), "0123abcd", "01-001-train", "two runs", spec, settings,
        array="0-1", directory="/home/ann's", code=Path("/home/ann's/code"),
    )  # fmt: skip
    text = script.text().replace(str(resource_dir("slurm")), "SLURM_DIR")
    record = RECORDS / f"{cluster}.sbatch"
    if os.environ.get("DLFD_ACCEPT"):
        record.parent.mkdir(exist_ok=True)
        record.write_text(text, encoding="utf-8")
    assert text == record.read_text(encoding="utf-8"), "DLFD_ACCEPT=1 pytest accepts the new text"


HOSTILE = "x\ntouch ran\n#"


@pytest.mark.parametrize(
    "word",
    ["partition", "account", "qos", "constraint", "gpu_type", "python", "options", "srun_args",
     "prefix"],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r", "\x1b", "\x85", "\u2028"])
def test_no_setting_of_the_cluster_ends_a_line_of_the_script(word: str, end: str):
    given = f"x{end}touch ran{end}#"
    cluster = ClusterConfig(gpus="gres")
    wants_list = isinstance(getattr(cluster, word), list)
    script = Script(
        Path("/shared/runs"), "0123abcd", "01-001-train", "two runs", LaunchSpec(),
        replace(cluster, **{word: [given] if wants_list else given}),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="has a control character in"):
        script.text()


@pytest.mark.parametrize(
    "part",
    [
        {"campaign": Path(f"/shared/{HOSTILE}")}, {"campaign_name": HOSTILE}, {"job": HOSTILE},
        {"title": HOSTILE}, {"directory": f"/home/{HOSTILE}"}, {"code": Path(f"/{HOSTILE}")},
        {"output": Path(f"/{HOSTILE}")}, {"array": HOSTILE},
    ],
    ids=lambda part: next(iter(part)),
)  # fmt: skip
def test_no_path_and_no_name_ends_a_line_of_the_script(part):
    script = Script(
        Path("/shared/runs"), "0123abcd", "01-001-train", "two runs", LaunchSpec(), ClusterConfig()
    )
    with pytest.raises(ConfigError, match="has a control character in"):
        replace(script, **part).text()


def test_a_directory_with_a_newline_is_refused_before_anything_is_written(
    campaigns: Campaigns, tmp_path, monkeypatch
):
    (tmp_path / HOSTILE).mkdir()
    monkeypatch.chdir(tmp_path / HOSTILE)
    ended = campaigns.submit("train")
    assert ended.status == 2
    assert "has a control character in" in ended.err
    assert not campaigns.path.exists()


def test_the_ranks_of_a_job_leave_the_working_directory_out():
    script = Script(
        Path("/shared/runs"), "0123abcd", "01", "a run", LaunchSpec(), ClusterConfig()
    ).text()
    assert "export PYTHONSAFEPATH=1\n" in script
    assert " -P -m launch.campaign.task " in script


# --- the queue


def test_children_wait_for_their_own_models_and_the_report_for_all(campaigns: Campaigns):
    told = campaigns.submit("compare", "method=dlfd,ssd", "seed=0,1", "--json").json
    assert told["job_ids"] == ["101", "102", "103", "104"]
    calls = [c for c in campaigns.slurm.calls("sbatch") if "--parsable" in c]
    # The array holds retrained and original of seed 0, then of seed 1.
    assert [[w for w in call if w.startswith("--") and w != "--parsable"] for call in calls] == [
        [],
        ["--dependency=afterok:101_1:101_0", "--kill-on-invalid-dep=yes"],
        ["--dependency=afterok:101_3:101_2", "--kill-on-invalid-dep=yes"],
        ["--dependency=afterany:101:102:103"],
    ]
    assert "#SBATCH --array=0-3\n" in (campaigns.path / "jobs/01-001-train.sbatch").read_text()


def test_max_running_holds_for_all_arrays_together(campaigns: Campaigns):
    words = ["method=dlfd,ssd", "seed=0,1,2", "cluster.max_running=3"]
    plan = campaigns.submit("compare", *words, "--dry-run").out
    assert "at most 3 of these tasks run at once, over all jobs" in plan
    assert "--dependency=afterok:<01-001-train>_1:<01-001-train>_0,afterany:<01-001-train>" in plan
    campaigns.submit("compare", *words)
    waits = [w for c in campaigns.slurm.calls("sbatch") for w in c if w.startswith("--depend")]
    assert waits == [
        "--dependency=afterok:101_1:101_0,afterany:101",
        # Two tasks each: beside the first pair there is one lane left.
        "--dependency=afterok:101_3:101_2,afterany:101:102",
        "--dependency=afterok:101_5:101_4,afterany:102:103",
        "--dependency=afterany:101:102:103:104",
    ]
    assert "#SBATCH --array=0-5%3\n" in (campaigns.path / "jobs/01-001-train.sbatch").read_text()
    # A later submission waits for what is in the queue.
    campaigns.submit("compare", "method=dlfd,ssd", "seed=0,1,2,3", "cluster.max_running=3")
    assert "--dependency=afterany:101:102:103:104" in campaigns.slurm.calls("sbatch")[-3]


@pytest.mark.parametrize("seed", range(20))
def test_lanes_never_let_more_tasks_run_and_let_all_run_where_there_is_room(seed: int):
    draw = random.Random(seed)
    limit = seed % 7 + 1
    lanes = Lanes(limit, [])
    jobs = [(draw.randint(1, 9), draw.uniform(1, 20)) for _ in range(12)]
    spans: list[tuple[float, float, int]] = []
    for number, (tasks, seconds) in enumerate(jobs):
        after, job = lanes.take(tasks, seconds)
        job.append(str(number))
        width, start = min(tasks, limit), max((spans[int(one)][1] for one in after), default=0.0)
        # The estimate may be wrong either way.
        took = math.ceil(tasks / width) * seconds * draw.uniform(0.1, 3)
        spans.append((start, start + took, width))
    for moment, _, _ in spans:
        assert sum(width for start, end, width in spans if start <= moment < end) <= limit
    assert Lanes(None, []).take(5, 1.0)[0] == []
    assert [Lanes(9, []).take(4, 1.0)[0], Lanes(9, ["7"]).take(4, 1.0)[0]] == [[], ["7"]]


def test_what_is_queued_is_joined_and_what_is_finished_is_reused(campaigns: Campaigns):
    campaigns.submit("train", "seed=0,1")
    again = campaigns.submit("train", "seed=0,1", "--json").json
    assert (again["joined"], again["reused"], again["runs"]) == (["seed=0", "seed=1"], [], [])
    campaigns.start("seed=0")
    campaigns.end("seed=0", 0)
    campaigns.slurm.set("101_0", "COMPLETED")
    more = campaigns.submit("train", "seed=0,1,2", "--json").json
    assert (more["joined"], more["reused"]) == (["seed=1"], ["seed=0"])
    assert [run["run"] for run in more["runs"]] == ["seed=2"]


def test_retry_submits_the_failed_run_and_its_children_alone(campaigns: Campaigns):
    campaigns.submit("compare", "method=ssd", "seed=0,1")
    assert "nothing to retry" in campaigns.run("retry", campaigns.path, "--failed").out
    for label in ("retrained seed 0", "retrained seed 1", "original seed 1"):
        campaigns.start(label)
        campaigns.end(label, 0)
    campaigns.slurm.set("101", "COMPLETED")
    campaigns.start("original seed 0")
    campaigns.end("original seed 0", 1, "dlfd: It broke.\n")
    campaigns.slurm.set("101_1", "FAILED", code="1:0", end="2020-01-01T00:00:00")
    campaigns.slurm.set("102", "CANCELLED", end="2020-01-01T00:00:00")
    told = campaigns.run("retry", campaigns.path, "--failed", "--json").json
    assert [run["run"] for run in told["runs"]] == ["original seed 0", "ssd seed 0"]
    assert told["joined"] == ["ssd seed 1"]


def test_a_submission_that_died_after_sbatch_is_found_again(campaigns: Campaigns):
    campaigns.submit("train", "seed=0")
    ledger = Ledger(campaigns.path)
    lines = ledger.file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"submitted"' not in line]
    assert len(kept) < len(lines)
    ledger.file.write_text("".join(kept))
    again = campaigns.submit("train", "seed=0", "--json").json
    assert (again["joined"], again["runs"]) == (["train"], [])


def test_the_variables_of_an_outer_job_do_not_reach_sbatch(campaigns: Campaigns, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    assert campaigns.submit("train").status == 0
    assert campaigns.slurm.job_variables() == set()


def test_cancel_ends_the_runs_and_the_report(campaigns: Campaigns):
    campaigns.submit("train", "seed=0,1")
    assert campaigns.run("cancel", campaigns.path / "seed=0").status == 0
    assert campaigns.slurm.calls("scancel") == [["--quiet", "101_0"]]
    assert {k: s["state"] for k, s in campaigns.states().items()} == {
        "seed=0": "cancelled", "seed=1": "queued",
    }  # fmt: skip
    campaigns.run("cancel", campaigns.path)
    assert campaigns.slurm.calls("scancel")[1] == ["--quiet", "101_1", "102"]


# --- asked only


def test_a_dry_run_needs_no_slurm_and_writes_nothing(campaigns: Campaigns, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    told = campaigns.submit("compare", "method=dlfd,ssd", "--dry-run")
    assert told.status == 0
    assert told.out.count("#!/bin/bash") == 3
    assert "estimated: " in told.out
    assert "--dependency=afterok:<01-001-train>_1:<01-001-train>_0" in told.out
    assert not campaigns.path.exists()


def test_test_only_asks_sbatch_about_every_job_and_queues_none(campaigns: Campaigns):
    told = campaigns.submit("compare", "method=ssd", "--test-only")
    assert told.status == 0
    assert told.out.count("to start at 2030") == 3
    assert all("--test-only" in call for call in campaigns.slurm.calls("sbatch"))
    assert not campaigns.path.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cluster.partition=batsh"], "cluster.partition=batsh is not known here.*Did you mean"),
        (["cluster.nodes=5"], "cluster.nodes=5 is more than the 4 nodes of partition batch"),
        (["cluster.time_min=61"], "over the limit of partition batch, 60 minutes"),
        (["train.lr=-1"], "train.lr=-1.0 is not allowed"),
        (["data=mufac", "data.root=/nowhere"], "/nowhere"),
    ],
)
def test_what_the_cluster_cannot_give_is_one_sentence(campaigns: Campaigns, words, message):
    told = campaigns.submit("train", *words)
    (sentence,) = [line for line in told.err.splitlines() if not line.startswith("warning")]
    assert told.status == 2
    assert re.search(message, sentence)
    assert not campaigns.path.exists()
    assert not campaigns.slurm.state["jobs"]


def test_what_sbatch_refuses_is_told_before_anything_is_written(campaigns: Campaigns):
    campaigns.slurm.refuse("sbatch", "Batch job submission failed: Invalid qos specification")
    told = campaigns.submit("train")
    assert told.status == 2
    assert "dlfd: sbatch refused: Batch job submission failed: Invalid qos" in told.err
    assert not campaigns.path.exists()


def test_without_sbatch_the_sentence_says_what_to_do(campaigns: Campaigns, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    told = campaigns.submit("train")
    assert told.status == 2
    assert "There is no sbatch on this machine" in told.err
    assert not campaigns.path.exists()


def test_a_directory_that_is_no_campaign_is_left_alone(campaigns: Campaigns):
    campaigns.path.mkdir()
    (campaigns.path / "thesis.tex").write_text("")
    told = campaigns.submit("train")
    assert told.status == 2
    assert "is not a campaign" in told.err
    assert len(list(campaigns.path.iterdir())) == 1


def test_a_campaign_on_a_local_disk_is_warned_of(campaigns: Campaigns):
    path = f'cluster.local_paths=["{campaigns.path.parent}"]'
    assert "warning: run.dir=" in campaigns.submit("train", path, "--dry-run").err
    quiet = campaigns.submit("train", "cluster.local_paths=[/elsewhere]", "--dry-run")
    assert "warning" not in quiet.err


def test_a_snapshot_is_what_the_jobs_run(campaigns: Campaigns):
    campaigns.submit("train", "cluster.snapshot=true")
    (copy,) = (campaigns.path / "code").iterdir()
    assert (copy / "launch" / "campaign" / "task.py").is_file()
    text = (campaigns.path / "jobs" / "01-001-train.sbatch").read_text()
    assert f"export PYTHONPATH={copy}" in text
    assert f". {copy}/slurm/lib/rendezvous.sh" in text


def test_the_local_cluster_gets_the_same_jobs(campaigns: Campaigns, monkeypatch):
    started = []
    monkeypatch.setattr(
        local_campaign, "start", lambda path, jobs: started.append(jobs) or "local:1@here"
    )
    words = [w for w in GIVEN if not w.startswith("cluster")]
    run = campaigns.run("submit", "compare", *words, "method=ssd", "cluster=local",
                        f"run.dir={campaigns.path}")  # fmt: skip
    assert run.status == 0
    assert [name for name, _, _ in started[0]] == ["01-001-train", "01-002-unlearn", "01-report"]
    assert campaigns.slurm.calls("sbatch") == []


def test_one_report_waits_for_another(campaigns: Campaigns, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(results, "REPORT_WAIT_S", 0.3)
    (campaigns.path / "plans").mkdir(parents=True)
    with (
        exclusively(campaigns.path / COMPARE_LOCK, "dlfd compare"),
        pytest.raises(RunDirError, match="is being written by another 'report of the campaign'"),
    ):
        results.write_campaign_report(campaigns.path)
