"""dlfd submit against a SLURM whose programs record how they were called."""

from __future__ import annotations

import math
import os
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import submitit

from dlfd_dist.compose import split_cluster
from dlfd_dist.config import ClusterConfig
from dlfd_dist.errors import ConfigError, RunDirError
from dlfd_dist.resources import resource_dir
from dlfd_dist.run_dir import exclusively
from launch.execute import background as local_campaign
from launch.execute.batch import BatchJob, Waits
from launch.execute.journal import Ledger
from launch.execute.places import job_folder
from launch.execute.submission import Lanes
from launch.plan.shape import LaunchSpec
from launch.results import campaign as results
from launch.results.compare import COMPARE_LOCK
from launch.verbs.task import CampaignTask
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
    job = BatchJob(
        Path("/shared/my runs/jobs/submitit"), "dlfd-0123abcd-01-001-train", "two runs", spec,
        settings, array="0-1", directory="/home/ann's", code=Path("/home/ann's/code"),
        waits=Waits(["7_0"], ["8"]),
    )  # fmt: skip
    text = job.executor().text().replace(str(resource_dir("slurm")), "SLURM_DIR")
    record = RECORDS / f"{cluster}.sbatch"
    if os.environ.get("DLFD_ACCEPT"):
        record.parent.mkdir(exist_ok=True)
        record.write_text(text, encoding="utf-8")
    assert text == record.read_text(encoding="utf-8"), "DLFD_ACCEPT=1 pytest accepts the new text"


HOSTILE = "x\ntouch ran\n#"
A_JOB = BatchJob(Path("/shared/jobs"), "dlfd-01", "two runs", LaunchSpec(), ClusterConfig())


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
    given = f"--x={given}" if word == "options" else given
    job = replace(A_JOB, cluster=replace(cluster, **{word: [given] if wants_list else given}))
    with pytest.raises(ConfigError, match="has a control character in"):
        job.executor()


@pytest.mark.parametrize(
    "part",
    [
        {"folder": Path(f"/shared/{HOSTILE}")}, {"name": HOSTILE}, {"title": HOSTILE},
        {"directory": f"/home/{HOSTILE}"}, {"code": Path(f"/{HOSTILE}")},
        {"output": Path(f"/{HOSTILE}")}, {"array": HOSTILE}, {"waits": Waits([HOSTILE])},
    ],
    ids=lambda part: next(iter(part)),
)  # fmt: skip
def test_no_path_and_no_name_ends_a_line_of_the_script(part):
    with pytest.raises(ConfigError, match="has a control character in"):
        replace(A_JOB, **part).executor()


@pytest.mark.parametrize("name", ["100%j", "back\\slash"])
def test_a_folder_that_slurm_reads_as_a_pattern_is_refused(name: str):
    with pytest.raises(ConfigError, match="reads as a pattern"):
        replace(A_JOB, folder=Path("/shared") / name).executor()


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--exclusive", "#SBATCH --exclusive"),
        ("--mail-type=END", "#SBATCH --mail-type=END"),
        ("--exclude n[1-2],n4", "#SBATCH --exclude='n[1-2],n4'"),
        ("--time=5", "#SBATCH --time=5"),
        (r"--comment=a\b 'c'", """#SBATCH --comment='a\\\\b '"'"'c'"'"''"""),
    ],
)
def test_a_further_option_of_sbatch_is_one_line_and_wins(option: str, line: str):
    job = replace(A_JOB, cluster=ClusterConfig(options=[option]))
    lines = job.executor().text().splitlines()
    assert [one for one in lines if one.startswith(line.split("=")[0])] == [line]


@pytest.mark.parametrize("option", ["exclusive", "-x n1", "---", ""])
def test_what_is_no_option_of_sbatch_is_refused(option: str):
    with pytest.raises(ConfigError, match=r"write --NAME or --NAME=VALUE"):
        replace(A_JOB, cluster=ClusterConfig(options=[option])).executor()


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
    text = A_JOB.executor().text()
    assert "export PYTHONSAFEPATH=1\n" in text
    assert " -P -u -m submitit.core._submit /shared/jobs\n" in text


# --- the queue


def submitted(campaigns: Campaigns, job_id: str) -> str:
    return (job_folder(campaigns.path) / f"{job_id}_submission.sh").read_text()


def test_the_folder_of_submitit_holds_what_a_user_of_submitit_expects(campaigns: Campaigns):
    campaigns.submit("train", "seed=0,1")
    folder = job_folder(campaigns.path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "101_0_submitted.pkl", "101_1_submitted.pkl", "101_submission.sh",
        "102_submission.sh", "102_submitted.pkl",
    ]  # fmt: skip
    assert folder.stat().st_mode & 0o777 == 0o700
    job = submitit.SlurmJob(folder, "101_1")
    assert job.submission().function == CampaignTask(campaigns.path, "01-001-train", 1)
    assert job.paths.submission_file.is_file()
    assert str(folder) in campaigns.run("status", campaigns.path).out
    assert campaigns.run("status", campaigns.path, "--json").json["jobs"] == str(folder)


@pytest.mark.parametrize(("mode", "folder_mode"), [("750", 0o750), ("770", 0o750)])
def test_a_group_may_read_the_jobs_and_never_write_what_is_unpickled(
    campaigns: Campaigns, mode: str, folder_mode: int
):
    for seed in ("0", "0,1"):
        assert campaigns.submit("train", f"seed={seed}", f"run.mode={mode}").status == 0
    folder = job_folder(campaigns.path)
    assert folder.stat().st_mode & 0o777 == folder_mode
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_tasks_that_others_may_write_are_not_submitted_beside(campaigns: Campaigns):
    campaigns.submit("train", "seed=0")
    (pickle, *_) = job_folder(campaigns.path).glob("*.pkl")
    pickle.chmod(0o666)
    again = campaigns.submit("train", "seed=0,1")
    assert again.status == 2
    assert "may be written by others" in again.err
    assert len(campaigns.slurm.state["jobs"]) == 2


def test_what_sbatch_refuses_leaves_no_pickle(campaigns: Campaigns):
    campaigns.submit("train", "seed=0")
    before = sorted(job_folder(campaigns.path).iterdir())
    # Asked whether it would take the job it says yes, and then it does not.
    program = campaigns.slurm.folder / "sbatch"
    refusal = "if '--test-only' not in words: sys.exit('sbatch: error: no')"
    lines = program.read_text().splitlines()
    program.write_text("\n".join([*lines[:4], refusal, *lines[4:]]))
    refused = campaigns.submit("train", "seed=0,1")
    assert refused.status == 2
    assert "sbatch refused: no." in refused.err
    assert sorted(job_folder(campaigns.path).iterdir()) == before


def test_the_number_of_a_task_is_kept_where_an_array_has_gaps(tmp_path: Path, campaigns: Campaigns):
    tasks = [CampaignTask(campaigns.path, "01", number) for number in range(5)]
    jobs = replace(A_JOB, folder=tmp_path / "jobs", array="0,2-4").executor().submit_array(tasks)
    assert [job.job_id for job in jobs] == [f"101_{index}" for index in range(5)]
    assert set(campaigns.slurm.state["jobs"]) == {"101_0", "101_2", "101_3", "101_4"}
    assert [job.submission().function.index for job in jobs] == [0, 1, 2, 3, 4]


def test_children_wait_for_their_own_models_and_the_report_for_all(campaigns: Campaigns):
    told = campaigns.submit("compare", "method=dlfd,ssd", "seed=0,1", "--json").json
    assert told["job_ids"] == ["101", "102", "103", "104"]
    calls = [c for c in campaigns.slurm.calls("sbatch") if "--parsable" in c]
    # The array holds retrained and original of seed 0, then of seed 1.
    waits = ("--dependency=", "--kill-on-invalid-dep=")
    assert [[w for w in call if w.startswith(waits)] for call in calls] == [
        [],
        ["--dependency=afterok:101_1:101_0", "--kill-on-invalid-dep=yes"],
        ["--dependency=afterok:101_3:101_2", "--kill-on-invalid-dep=yes"],
        ["--dependency=afterany:101:102:103"],
    ]
    assert "#SBATCH --array=0-3\n" in submitted(campaigns, "101")


def test_the_report_may_have_a_partition_without_gpus(campaigns: Campaigns):
    words = ["cluster.gpus=per_task", "cluster.partition=gpu", "cluster.report_partition=cpu"]
    *runs, report = campaigns.submit("compare", "method=ssd", *words, "--dry-run").out.split(
        "\n# 01-"
    )
    assert "#SBATCH --partition=cpu\n" in report
    assert "--gpus" not in report
    scripts = [script for script in runs if "#!/bin/bash" in script]
    assert scripts
    assert all("#SBATCH --partition=gpu\n" in script for script in scripts)


def test_a_dry_run_says_how_long_a_task_may_take(campaigns: Campaigns):
    told = campaigns.submit("compare", "method=ssd", "cluster.time_min=30", "--dry-run").out
    assert "each task may take 30 min (cluster.time_min); a run that needs longer goes on" in told


def test_max_running_holds_for_all_arrays_together(campaigns: Campaigns):
    words = ["method=dlfd,ssd", "seed=0,1,2", "cluster.max_running=3"]
    plan = campaigns.submit("compare", *words, "--dry-run").out
    assert "at most 3 of these tasks run at once, over all jobs" in plan
    waits = "afterok:<01-001-train>_1:<01-001-train>_0,afterany:<01-001-train>"
    assert f"#SBATCH --dependency='{waits}'\n" in plan
    campaigns.submit("compare", *words)
    waits = [w for c in campaigns.slurm.calls("sbatch") for w in c if w.startswith("--depend")]
    assert waits == [
        "--dependency=afterok:101_1:101_0,afterany:101",
        # Two tasks each: beside the first pair there is one lane left.
        "--dependency=afterok:101_3:101_2,afterany:101:102",
        "--dependency=afterok:101_5:101_4,afterany:102:103",
        "--dependency=afterany:101:102:103:104",
    ]
    assert "#SBATCH --array=0-5%3\n" in submitted(campaigns, "101")
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
    pickle = job_folder(campaigns.path) / "101_submitted.pkl"
    pickle.unlink()
    again = campaigns.submit("train", "seed=0", "--json").json
    assert (again["joined"], again["runs"]) == (["train"], [])
    # The job waits for its pickle for a minute.
    assert pickle.is_file()


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
    assert "--dependency='afterok:<01-001-train>_1:<01-001-train>_0'" in told.out
    assert not campaigns.path.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster.gpus=none"], "; no GPU is asked for (cluster.gpus=none), so"),
        (["cluster.gpus=gres", "cluster.ranks=4"], "; 16 GPUs over all tasks, which "
         "need not run at once, at most 4 in a task"),
        (["cluster.gpus=per_task"], "; 4 GPUs over all tasks, which need not run at once, at "
         "most 1 in"),
        (["cluster.gpus=none", "cluster.options=['--gpus=2']"], "; GPUs by cluster.options alone: "
         "--gpus=2"),
        (["cluster.kind=local"], "; on this machine, with the GPUs that torch"),
    ],
    ids=["none", "gres", "per task", "options", "local"],
)  # fmt: skip
def test_a_dry_run_says_how_many_jobs_and_gpus(campaigns: Campaigns, words, said):
    told = campaigns.submit("compare", "method=dlfd,ssd", *words, "--dry-run")
    assert told.status == 0, told.err
    assert f"  3 jobs, 4 tasks with runs{said}" in told.out


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
        (["cluster.report_partition=bach"], "cluster.report_partition=bach is not known here"),
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
    assert (copy / "launch" / "verbs" / "task.py").is_file()
    text = submitted(campaigns, "101")
    assert f"python_path {copy}" in text
    assert f". {copy}/slurm/lib/rendezvous.sh" in text


def test_a_verb_that_is_no_job_is_refused(campaigns: Campaigns):
    run = campaigns.run("submit", "doctor")
    assert run.status == 2
    assert "'dlfd submit doctor' is not known: it takes train" in run.err


def test_the_local_cluster_gets_the_same_jobs(campaigns: Campaigns, monkeypatch):
    started = []
    monkeypatch.setattr(
        local_campaign, "start", lambda path, jobs, module: started.append(jobs) or "local:1@here"
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
