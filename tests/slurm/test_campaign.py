"""Campaigns on the lab: submit, status, results; runs that fail, are stopped, lose a node."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import submitit
from safetensors.torch import load_file
from submitit.core.utils import FailedJobError

from dlfd_dist.run_dir import RunDir, read_events
from launch.execute.places import job_folder
from tests.fakes.command_line import ended as child_ended
from tests.fakes.tiny import TINY, TINY_RUN
from tests.slurm.cluster import Lab, ended, slurm, states, wait_for
from tests.slurm.test_templates import was_signalled

SETTINGS = [
    *TINY, "train.max_steps=3", "method.max_steps=2", "cluster=slurm_lab", "cluster.mem_gb=1",
]  # fmt: skip

ALONE = "cluster.max_tasks_per_node=1"
"""One process does the runs of a pack. In test_faults.py there is one for each."""


def test_a_comparison_loses_a_seed_alone_is_submitted_again_and_does_every_run_once(
    dlfd, tmp_path: Path
):
    out = tmp_path / "a campaign"
    words = [*SETTINGS, ALONE, "method=dlfd,finetune", "seed=0,1", f'run.dir="{out}"']
    status, said = dlfd("submit", "compare", *words, "--json")
    assert status == 0
    told = json.loads(said)
    # Original and Retrained: a pack for each seed; the methods: the same, task by task; the report.
    training, methods, _ = told["job_ids"]
    slurm("scancel", f"{training}_1")
    assert "(aftercorr" in slurm("squeue", "-h", "-o", "(%E", "-j", methods)
    assert len(told["runs"]) == 8
    wait_for(lambda: (out / "report.html").is_file())
    found = {label: run["state"] for label, run in states(dlfd, out).items()}
    assert found == {
        "original seed 0": "finished", "original seed 1": "cancelled",
        "retrained seed 0": "finished", "retrained seed 1": "cancelled",
        "dlfd seed 0": "finished", "dlfd seed 1": "blocked",
        "finetune seed 0": "finished", "finetune seed 1": "blocked",
    }  # fmt: skip
    missing = {label for label, state in found.items() if state != "finished"}
    assert set(json.loads((out / "comparison.json").read_text())["missing"]) == missing
    assert "dlfd seed 1" in (out / "report.html").read_text()

    _, said = dlfd("submit", "compare", *words, "--json")
    assert {run["run"] for run in json.loads(said)["runs"]} == missing
    # Asked again at once, all is in the queue already.
    _, said = dlfd("submit", "compare", *words, "--json")
    assert json.loads(said)["runs"] == []
    wait_for(lambda: not json.loads((out / "comparison.json").read_text())["missing"])
    found = states(dlfd, out)
    assert {run["state"] for run in found.values()} == {"finished"}
    assert len(json.loads((out / "comparison.json").read_text())["runs"]) == 8
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


def test_runs_that_fail_mark_themselves_and_their_children_and_are_named(
    dlfd, original: Path, tmp_path: Path
):
    models, methods = tmp_path / "bad models", tmp_path / "bad method"
    failing = [*SETTINGS, ALONE, "method=ssd", "train.lr=1e30", f'run.dir="{models}"']
    dlfd("submit", "compare", *failing)
    dlfd(
        "submit", "unlearn", *SETTINGS, "method=finetune,ssd", f"checkpoint={original}",
        "method.lr=1e30", "cluster.nodes=2", "cluster.tasks_per_node=1", f'run.dir="{methods}"',
    )  # fmt: skip
    ended = ("finished", "failed")
    wait_for(lambda: all(run["state"] in ended for run in states(dlfd, methods).values()))
    found = states(dlfd, methods)
    (failed,) = [label for label, run in found.items() if run["state"] == "failed"]
    assert "finetune" in failed
    assert "became nan" in found[failed]["cause"]
    assert any("became nan" in line for line in found[failed]["lines"])
    assert_failed_for_submitit(submitit.SlurmJob(job_folder(methods), found[failed]["job_id"]))

    wait_for(lambda: states(dlfd, models)["ssd seed 0"]["state"] == "blocked")
    found = states(dlfd, models)
    assert found["original seed 0"]["state"] == "failed"
    assert "became nan" in found["original seed 0"]["cause"]
    assert "original seed 0 failed" in found["ssd seed 0"]["cause"]
    assert dlfd("status", models)[0] == 1


def assert_failed_for_submitit(job: submitit.SlurmJob[Any]) -> None:
    wait_for(lambda: ended(job, "FAILED"))
    assert "became nan" in str(job.stdout())
    assert "Traceback" not in str(job.stdout())
    assert "exit status 2; the log of the job says why" in str(job.exception())
    with pytest.raises(FailedJobError):
        job.result()
    assert slurm("sacct", "-n", "-X", "-P", "-j", job.job_id, "-o", "ExitCode") == "2:0"


TRAINING = [
    w for w in SETTINGS if not w.startswith(("train.max_steps", "method", "synthesis"))
] + ["cluster.pack=1"]  # fmt: skip


def steps_of(campaign: Path, run: str) -> int:
    metrics = [path / "metrics.jsonl" for path in campaign.glob(f"runs/{run}*")]
    return max((e["step"] for file in metrics for e in read_events(file)), default=0)


def ranks_of(campaign: Path, task: int) -> list[psutil.Process]:
    """Return the ranks of a task; the lab's processes are this machine's."""
    folder = str(job_folder(campaign))
    processes = {p: p.info for p in psutil.process_iter(["cmdline", "environ"])}
    return [
        process
        for process, info in processes.items()
        if folder in (info["cmdline"] or [])
        and "srun" not in info["cmdline"]
        and (info["environ"] or {}).get("SLURM_ARRAY_TASK_ID") == str(task)
    ]


def test_runs_told_to_stop_go_on_until_restarts_run_out_or_by_their_script_alone(
    dlfd, tmp_path: Path
):
    """A rank of each stands still meanwhile, as if at a long step.

    In test_faults.py a time limit and a preemption are what stops runs.
    """
    out = tmp_path / "campaign"
    dlfd(
        "submit", "train", *TRAINING, "train.epochs=24", "run.checkpoint_every=1000", "seed=0,1",
        "cluster.tasks_per_node=2", "cluster.max_restarts=1", f"run.dir={out}",
    )  # fmt: skip
    standing: list[psutil.Process] = []
    for task in (0, 1):
        wait_for(lambda task=task: steps_of(out, f"seed={task}") >= 1)
        standing.append(ranks_of(out, task)[0])
        standing[-1].suspend()
    found = states(dlfd, out)
    assert {run["state"] for run in found.values()} == {"running"}
    jobs, runs = ([found[f"seed={n}"][name] for n in (0, 1)] for name in ("job_id", "directory"))
    for job_id, rank in zip(jobs, standing, strict=True):
        slurm("scancel", "--signal=USR2", job_id)
        wait_for(lambda rank=rank: was_signalled(rank))
        rank.resume()

    # Both are to come back by themselves. One is cancelled while it waits for that, and started
    # again by what lies in its directory.
    wait_for(lambda: states(dlfd, out)["seed=1"]["state"] == "restarting")
    assert dlfd("cancel", runs[1])[0] == 0
    wait_for(lambda: states(dlfd, out)["seed=1"]["state"] == "cancelled")
    assert (Path(runs[1]) / "checkpoints" / "latest").is_file()
    slurm("sbatch", str(Path(runs[1]) / "submit.sbatch"))

    # The other is told to stop a second time.
    wait_for(lambda: states(dlfd, out)["seed=0"]["restarts"] == 1)
    before = steps_of(out, "seed=0")
    wait_for(lambda: steps_of(out, "seed=0") > before)
    slurm("scancel", "--signal=USR2", jobs[0])
    wait_for(lambda: states(dlfd, out)["seed=0"]["state"] not in ("running", "restarting"))
    found = states(dlfd, out)["seed=0"]
    assert found["state"] == "failed"
    assert "stopped after 1 restarts, cluster.max_restarts=1; " in found["cause"]
    wait_for(lambda: states(dlfd, out)["seed=1"]["state"] == "finished")
    _, said = dlfd("retry", out, "--failed", "--json")
    assert [run["run"] for run in json.loads(said)["runs"]] == ["seed=0"]
    wait_for(lambda: states(dlfd, out)["seed=0"]["state"] == "finished")
    results = [RunDir(Path(run)).read_result() for run in runs]
    assert [result["restarts"] for result in results] == [2, 1]
    assert {result["world_size"] for result in results} == {2}
    # A rank that has loaded torch holds more than 100 MB, as SLURM counts it.
    assert all(result["slurm_usage"]["max_rss_mb"] > 100 for result in results)


@pytest.mark.parametrize("fault", ["down", "processes vanish"])
def test_a_run_that_loses_a_node_goes_on_and_is_not_called_finished_meanwhile(
    dlfd, lab: Lab, tmp_path: Path, fault: str
):
    out = tmp_path / "campaign"
    many = ["cluster.nodes=2", "cluster.tasks_per_node=1", "run.checkpoint_every=1"]
    many += ["train.epochs=40", 'cluster.srun_args=["--wait=20"]']
    dlfd("submit", "train", *TRAINING, *many, f"run.dir={out}")
    wait_for(lambda: steps_of(out, "train") >= 2)
    job_id = states(dlfd, out)["train"]["job_id"]
    hosts = slurm("squeue", "-h", "-j", job_id, "-o", "%N")
    node = slurm("scontrol", "show", "hostnames", hosts).splitlines()[1]
    if fault == "down":
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    else:
        vanish(job_id)
    seen: list[str] = []
    try:
        (run,) = (out / "runs").glob("[!.]*")

        def finished() -> bool:
            has_result = RunDir(run).finished()
            seen.append(states(dlfd, out)["train"]["state"])
            assert has_result or seen[-1] in ("running", "restarting", "finished")
            return has_result

        wait_for(finished)
    finally:
        lab.resume(node)
    assert "restarting" in seen
    assert seen[-1] == "finished"
    assert json.loads((run / "result.json").read_text())["restarts"] == 1
    _, said = dlfd("logs", run)
    assert int(said.split("going on from step ")[1].split()[0]) >= 2


def vanish(job_id: str) -> None:
    """End rank 1 and what SLURM follows it with, as when a node dies and SLURM misses it."""
    for process in psutil.process_iter(["environ"]):
        env = process.info["environ"] or {}
        if (env.get("SLURM_JOB_ID"), env.get("SLURM_PROCID")) == (job_id, "1"):
            stepd = process.parent()
            assert stepd is not None
            assert stepd.name() == "slurmstepd"
            stepd.kill()
            process.kill()
            return
    raise AssertionError("rank 1 is not there")


def test_each_rank_of_a_campaign_sees_a_gpu_of_its_own(dlfd, tmp_path: Path):
    """Two fake GPUs on each node; what a rank takes is told by its own environment and code.

    With gres a rank sees all GPUs of its node, with per_task its own alone.
    """
    for way, nodes in (("gres", 2), ("per_task", 1)):
        folder = tmp_path / way
        folder.mkdir()
        (folder / "say.py").write_text(SAY_DEVICE)
        dlfd(
            "submit", "train", *SETTINGS, f"cluster.gpus={way}", f"cluster.nodes={nodes}",
            "cluster.tasks_per_node=2", "cluster.pack=1", f"run.dir={folder / 'campaign'}",
            f'cluster.prefix=["{sys.executable}","{folder / "say.py"}"]',
        )  # fmt: skip
    wait_for(lambda: len(list(tmp_path.glob("*/rank_*.json"))) == 6)
    seen = {
        way: {tuple(json.loads(f.read_text())) for f in (tmp_path / way).glob("rank_*.json")}
        for way in ("gres", "per_task")
    }
    assert seen["gres"] == {(node, local, local, 2) for node in (0, 1) for local in (0, 1)}
    assert seen["per_task"] == {(0, local, local, 1) for local in (0, 1)}


SAY_DEVICE = """
import json, os, sys
from pathlib import Path
import torch
from dlfd_dist.config import RuntimeConfig
from dlfd_dist.runtime.env import rank_info
from dlfd_dist.runtime.init import pick_device

rank, seen = rank_info(), os.environ["CUDA_VISIBLE_DEVICES"].split(",")
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: len(seen)
told = [int(os.environ["SLURM_NODEID"]), rank.local_rank]
told += [int(seen[pick_device(RuntimeConfig(), rank).index]), len(seen)]
file = Path(__file__).with_name(f"rank_{rank.rank}.part")
file.write_text(json.dumps(told))
file.rename(file.with_suffix(".json"))
"""


ORL = [
    *TINY_RUN, "data=orl", "data.image_size=32", "forget.fraction=0.2", "method.max_steps=3",
    "run.checkpoint_every=1000",
]  # fmt: skip


def test_four_ranks_on_two_nodes_give_the_model_of_four_local_ranks_on_real_faces(
    dlfd, tmp_path: Path
):
    original, out, alone = (tmp_path / name for name in ("original", "campaign", "alone"))
    more = ["train.max_steps=2", f"run.dir={original}"]
    assert dlfd("train", *[w for w in ORL if not w.startswith(("method", "synth"))], *more)[0] == 0
    words = ["unlearn", *ORL, "method=dlfd", f"checkpoint={original}"]
    cluster = ["cluster=slurm_lab", "cluster.nodes=2", "cluster.tasks_per_node=2"]
    dlfd("submit", *words, *cluster, f"run.dir={out}")
    assert child_ended([*words, "runtime.world_size=4", f"run.dir={alone}"], tmp_path).status == 0
    wait_for(lambda: {run["state"] for run in states(dlfd, out).values()} == {"finished"})
    (run,) = (out / "runs").glob("[!.]*")
    assert RunDir(run).read_result()["world_size"] == 4
    before, there, here = (load_file(RunDir(path).model) for path in (original, run, alone))
    assert max((before[n] - here[n]).abs().max().item() for n in here) > 1e-5
    # The reduction of gloo does not depend on where the ranks are: not even float32 differs.
    assert max((there[n] - here[n]).abs().max().item() for n in here) == 0.0
