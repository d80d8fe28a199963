"""Campaigns on the lab: submit, status, results; runs that fail, are stopped, lose a node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from dlfd_dist.run_dir import RunDir, read_events
from tests.slurm.cluster import Lab, slurm, states, wait_for
from tests.slurm.test_templates import was_signalled

SETTINGS = [
    "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=12",
    "data.synthetic.images_per_identity=4", "forget.fraction=0.25", "metrics.num_bootstrap=20",
    "train.global_batch_size=8", "method.global_batch_size=8", "synthesis.steps=2",
    "train.max_steps=3", "method.max_steps=2", "cluster=slurm_lab", "cluster.mem_gb=1",
]  # fmt: skip


def test_two_methods_on_two_seeds_are_done_once_and_reported(dlfd, tmp_path: Path):
    out = tmp_path / "a campaign"
    words = [*SETTINGS, "method=dlfd,finetune", "seed=0,1", f'run.dir="{out}"']
    status, said = dlfd("submit", "compare", *words, "--json")
    assert status == 0
    told = json.loads(said)
    # Original and Retrained: a pack for each seed; the methods: the same, task by task; the report.
    assert len(told["job_ids"]) == 3
    assert "(aftercorr" in slurm("squeue", "-h", "-o", "(%E", "-j", told["job_ids"][1])
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


def test_a_seed_that_is_lost_takes_its_own_runs_with_it_and_no_other(dlfd, tmp_path: Path):
    out = tmp_path / "campaign"
    words = ["method=ssd", "seed=0,1", f"run.dir={out}", "--json"]
    _, said = dlfd("submit", "compare", *SETTINGS, *words)
    training, waiting, _ = json.loads(said)["job_ids"]
    assert "(aftercorr" in slurm("squeue", "-h", "-o", "(%E", "-j", waiting)
    slurm("scancel", f"{training}_1")
    wait_for(lambda: (out / "report.html").is_file())
    found = {label: run["state"] for label, run in states(dlfd, out).items()}
    assert found["ssd seed 0"] == "finished"
    assert found["ssd seed 1"] == "blocked"
    assert {found["original seed 1"], found["retrained seed 1"]} == {"cancelled"}
    missing = json.loads((out / "comparison.json").read_text())["missing"]
    assert "ssd seed 1" in missing
    assert "ssd seed 0" not in missing


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


TRAINING = [
    w for w in SETTINGS if not w.startswith(("train.max_steps", "method", "synthesis"))
] + ["train.epochs=8", "cluster.pack=1"]  # fmt: skip


def steps_of(campaign: Path, run: str) -> int:
    metrics = [path / "metrics.jsonl" for path in campaign.glob(f"runs/{run}*")]
    return max((e["step"] for file in metrics for e in read_events(file)), default=0)


def rank_of(campaign: Path, task: int) -> psutil.Process:
    """Return the only rank of a task; the lab's processes are this machine's."""
    words = {"launch.campaign.task", str(campaign)}
    commands = {p: p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])}
    found = [
        process
        for process, command in commands.items()
        if words <= set(command) and command[-1] == str(task) and "srun" not in command
    ]
    assert len(found) == 1, [commands[process] for process in found]
    return found[0]


def shorten_limit(job_id: str) -> None:
    """Let the time limit of a running job be near: SLURM sends USR2 at its next look."""
    minutes, _, seconds = slurm("squeue", "-h", "-j", job_id, "-o", "%M").rpartition(":")
    limit = int(minutes or 0) + (1 if int(seconds) < 40 else 2)
    slurm("scontrol", "update", f"jobid={job_id}", f"TimeLimit={limit}")


def test_runs_longer_than_their_limit_go_on_by_themselves_until_restarts_run_out(
    dlfd, tmp_path: Path
):
    """The ranks stand still, as if at a long step, until SLURM has found the limit near."""
    out = tmp_path / "campaign"
    dlfd("submit", "train", *TRAINING, "seed=0,1", "cluster.max_restarts=1", f"run.dir={out}")
    wait_for(lambda: all(steps_of(out, f"seed={n}") >= 1 for n in (0, 1)))
    ranks = [rank_of(out, task) for task in (0, 1)]
    for rank in ranks:
        rank.suspend()
    jobs = [states(dlfd, out)[f"seed={n}"]["job_id"] for n in (0, 1)]
    for job_id in jobs:
        shorten_limit(job_id)
    wait_for(lambda: all(map(was_signalled, ranks)))
    for job_id, rank in zip(jobs, ranks, strict=True):
        slurm("scontrol", "update", f"jobid={job_id}", "TimeLimit=30")
        rank.resume()
    # Both come back by themselves; one of them is told to stop a second time.
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
    restarts = [
        json.loads(next(out.glob(f"runs/seed={n}*/result.json")).read_text())["restarts"]
        for n in (0, 1)
    ]
    assert restarts == [2, 1]


@pytest.mark.parametrize("fault", ["down", "processes vanish"])
def test_a_run_that_loses_a_node_goes_on_and_is_not_called_finished_meanwhile(
    dlfd, lab: Lab, tmp_path: Path, fault: str
):
    out = tmp_path / "campaign"
    many = ["cluster.nodes=2", "cluster.tasks_per_node=1", "run.checkpoint_every=1"]
    many += ['cluster.srun_args=["--wait=20"]']
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
        (run,) = (out / "runs").iterdir()

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


@pytest.mark.parametrize("way", ["gres", "per_task"])
def test_each_rank_of_a_campaign_sees_a_gpu_of_its_own(dlfd, way: str, tmp_path: Path):
    """Two fake GPUs on each node; what a rank takes is told by its own environment and code."""
    out = tmp_path / "campaign"
    say = tmp_path / "say.py"
    say.write_text(SAY_DEVICE)
    dlfd(
        "submit", "train", *SETTINGS, f"cluster.gpus={way}", "cluster.nodes=2", "cluster.pack=1",
        "cluster.tasks_per_node=2", f'cluster.prefix=["{sys.executable}","{say}"]',
        f"run.dir={out}",
    )  # fmt: skip
    wait_for(lambda: len(list(tmp_path.glob("rank_*.json"))) == 4)
    seen = {tuple(json.loads(file.read_text())) for file in tmp_path.glob("rank_*.json")}
    assert seen == {(node, local, local) for node in (0, 1) for local in (0, 1)}


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
told.append(int(seen[pick_device(RuntimeConfig(), rank).index]))
file = Path(__file__).with_name(f"rank_{rank.rank}.part")
file.write_text(json.dumps(told))
file.rename(file.with_suffix(".json"))
"""


ORL = [
    "data=orl", "data.image_size=32", "forget.fraction=0.2", "metrics.num_bootstrap=20",
    "method.global_batch_size=8", "method.max_steps=3", "synthesis.steps=2",
    "runtime.threads_per_rank=1", "run.checkpoint_every=1000",
]  # fmt: skip


def test_four_ranks_on_two_nodes_give_the_model_of_four_local_ranks_on_real_faces(
    dlfd, tmp_path: Path
):
    original = tmp_path / "original"
    more = ["train.max_steps=2", "train.global_batch_size=8", "run.dir=" + str(original)]
    assert dlfd("train", *[w for w in ORL if not w.startswith(("method", "synth"))], *more)[0] == 0
    out, kinds = tmp_path / "campaign", ("float64", "float32")
    words = ["unlearn", *ORL, "method=dlfd", f"checkpoint={original}"]
    cluster = ["cluster=slurm_lab", "cluster.nodes=2", "cluster.tasks_per_node=2"]
    dlfd("submit", *words, "runtime.dtype=float64,float32", *cluster, f"run.dir={out}")
    for kind in kinds:
        here = [f"runtime.dtype={kind}", "runtime.world_size=4", f"run.dir={tmp_path / kind}"]
        assert dlfd(*words, *here)[0] == 0
    wait_for(lambda: {run["state"] for run in states(dlfd, out).values()} == {"finished"})
    for kind in kinds:
        (run,) = (out / "runs").glob(f"*{kind}*")
        assert RunDir(run).read_result()["world_size"] == 4
        before, there, here = (
            load_file(RunDir(path).model) for path in (original, run, tmp_path / kind)
        )
        moved = max((before[n].double() - here[n].double()).abs().max().item() for n in here)
        apart = max((there[n].double() - here[n].double()).abs().max().item() for n in here)
        assert moved > 1e-4
        # The reduction of gloo does not depend on where the ranks are: not even float32 differs.
        assert apart == 0.0, (kind, apart)
