"""dlfd doctor slurm where SLURM is only its commands: what it concludes, and what it advises."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlfd_dist import __version__
from launch.cli import main
from launch.doctor import probe_job
from launch.doctor import slurm as doctor_slurm
from launch.doctor.probe_job import output_of, probe_script
from launch.doctor.question import Question, read_question
from launch.doctor.report import run_doctor
from launch.doctor.slurm import Node
from tests.fakes.slurm_on_path import FakeSlurm, fake_environment

Doctor = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "fake slurm", monkeypatch)


@pytest.fixture
def doctor(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Doctor:
    """Return a runner of `dlfd doctor slurm --json`: its status and its checks by name."""
    monkeypatch.setattr(probe_job, "POLL_S", 0.02)
    shared = tmp_path / "it's shared"
    shared.mkdir()

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        status = main(["doctor", "slurm", f"shared={shared}", *words, "--json"])
        assert list(shared.iterdir()) == []
        return status, {check["name"]: check for check in json.loads(capsys.readouterr().out)}

    return run


def test_healthy_nodes_pass_every_check(slurm: FakeSlurm, doctor: Doctor):
    slurm.pair()
    status, checks = doctor("partition=gpu", "gpus_per_node=4")
    assert status == 0, checks
    assert list(checks) == [
        "SLURM client", "partition gpu", "sacct", "GPUs of the partition", "folder from here",
        "probe job", "python on the nodes", "2 nodes over gloo", "GPUs on the nodes",
        "nodes over NCCL", "clocks", "folder between nodes", "locks between nodes",
    ]  # fmt: skip
    assert checks["SLURM client"]["found"] == "slurm 23.11.4"


@pytest.mark.parametrize(
    ("second", "name", "found", "remedy"),
    [
        ({"version": "0.0.9"}, "python on the nodes", "node2: 0.0.9", "one environment"),
        ({"torch": "2.4.0"}, "python on the nodes", "torch 2.4.0", "one environment"),
        ({"clock_offset_s": -7.5}, "clocks", "7.50 s apart", "chrony"),
        ({"lock": "not exclusive"}, "locks between nodes", "node2: not exclusive", "-o flock"),
        ({"lock": "No locks available"}, "locks between nodes", "No locks", "-o flock"),
        ({"visible_after_s": None}, "folder between nodes", "node2: does not see", "shared=DIR"),
        ({"nccl": False}, "nodes over NCCL", "2 nodes", "NCCL_SOCKET_IFNAME"),
        ({"cuda_devices": 3}, "GPUs on the nodes", "gave 0,1,2,3, torch sees 3", "nvidia-smi"),
        ({"rendezvous": "timed out"}, "2 nodes over gloo", "node2: timed out", "GLOO_SOCKET"),
        ({"rendezvous": None}, "2 nodes over gloo", "node2: ended before", "GLOO_SOCKET"),
        ({"address": "127.0.1.1"}, "2 nodes over gloo", "node2: the first node", "/etc/hosts"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else None,
)
def test_a_fault_of_a_node_is_named_with_its_remedy(
    second: dict, name: str, found: str, remedy: str, slurm: FakeSlurm, doctor: Doctor
):
    slurm.pair(**second)
    status, checks = doctor("gpus_per_node=4")
    assert status == 1
    assert [check["name"] for check in checks.values() if not check["ok"]] == [name]
    assert found in checks[name]["found"]
    assert remedy in checks[name]["remedy"]


def test_nodes_that_agree_with_each_other_must_agree_with_this_machine(
    slurm: FakeSlurm, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dlfd_dist.__version__", "9.9.9")
    status, checks = doctor()
    assert status == 1
    assert f"dlfd-dist {__version__}" in checks["python on the nodes"]["found"]
    assert "but 9.9.9 here" in checks["python on the nodes"]["found"]


def test_a_node_that_stays_silent_is_counted(
    slurm: FakeSlurm, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
):
    (slurm.findings / "node_1.json").unlink()
    monkeypatch.setattr(probe_job, "PATIENCE_S", 0.1)
    status, checks = doctor()
    assert status == 1
    assert checks["python on the nodes"]["found"].startswith("1 of 2 nodes answered")


# --- before the job

VERSION = 'case "$*" in *--version) echo "slurm 23.11.4"; exit ;; esac'
"""What a sinfo begins with that has a configuration."""


def test_a_machine_without_slurm_is_told_where_to_go(slurm: FakeSlurm, doctor: Doctor):
    for name in ("sinfo", "sbatch"):
        slurm.without(name)
    status, checks = doctor()
    assert status == 1
    assert list(checks) == ["SLURM client"]
    assert checks["SLURM client"]["found"] == "not on the PATH: sinfo, sbatch"
    assert "login node" in checks["SLURM client"]["remedy"]


@pytest.mark.parametrize("place", ["machine", "container"])
def test_the_plain_doctor_says_one_thing_of_slurm(
    place: str, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys
):
    report, of_container = "launch.doctor.report", doctor_slurm.Check("SLURM", True, "no client")
    monkeypatch.setattr(f"{report}._ranks", lambda: doctor_slurm.Check("ranks", True, ""))
    inside = [of_container] if place == "container" else []
    monkeypatch.setattr(f"{report}.check_container", lambda: inside)

    def said() -> str:
        assert run_doctor([], dry_run=False, as_json=True) == 0
        checks = [c for c in json.loads(capsys.readouterr().out) if "SLURM" in c["name"]]
        (check,) = checks
        return check["found"]

    if place == "container":
        assert said() == "no client"
        return
    assert said().startswith("slurm 23.11.4; 'dlfd doctor slurm partition=NAME'")
    slurm.answers("sinfo", error="sinfo: fatal: Could not establish a configuration\n", status=1)
    assert "Could not establish a configuration; to submit jobs, run this on a login" in said()
    for name in doctor_slurm.CLIENTS:
        slurm.without(name)
    assert said().startswith("no client on this machine; to submit jobs, run this on a login node")


def test_clients_that_know_no_cluster_are_a_failure_of_the_cluster(slurm, doctor: Doctor):
    slurm.answers("sinfo", error="sinfo: fatal: Could not establish a configuration\n", status=1)
    status, checks = doctor("partition=gpu")
    assert (status, list(checks)) == (1, ["SLURM client"])
    assert "knows no cluster" in checks["SLURM client"]["found"]


def test_a_controller_that_is_away_is_told_in_its_words(slurm: FakeSlurm, doctor: Doctor):
    slurm.command("sinfo", f"{VERSION}; printf 'x\nslurm_load: Unable to contact' >&2; exit 1")
    status, checks = doctor("partition=gpu")
    assert status == 1
    assert checks["partition gpu"]["found"] == "slurm_load: Unable to contact"
    assert "SLURM_CONF" in checks["partition gpu"]["remedy"]
    assert "probe job" not in checks


def test_a_command_that_hangs_is_given_up(
    slurm: FakeSlurm, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(doctor_slurm, "ANSWER_S", 0.2)
    slurm.command("sinfo", f"{VERSION}; exec sleep 20")
    status, checks = doctor("partition=gpu")
    assert status == 1
    assert checks["partition gpu"]["found"] == "sinfo: no answer in 0.2 s"


def test_an_unknown_partition_is_answered_with_the_known_ones(slurm: FakeSlurm, doctor: Doctor):
    slurm.sinfo()
    status, checks = doctor("partition=gup")
    assert status == 1
    assert checks["partition gup"]["remedy"] == "choose one of: cpu, gpu"


@pytest.mark.parametrize(
    ("state", "takes"),
    [
        ("idle", True), ("mixed-", True), ("idle~", True), ("planned", True), ("completing", True),
        ("idle*", False), ("drained", False), ("down*", False), ("maint", False),
    ],
)  # fmt: skip
def test_nodes_are_judged_by_their_state(state: str, takes: bool):
    assert Node("n", state, "").usable is takes


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", 0), ("gpu:2", 2), ("gpu:a100:4(S:0-1)", 4), ("gpu:1g.5gb:7,gpu:a100:1", 8),
        ("mps:400,gpu:h100_80gb:8(S:0-3)", 8), ("shard:16", 0),
    ],
)  # fmt: skip
def test_gpus_are_counted_in_what_sinfo_says(gres: str, gpus: int):
    assert Node("n", "idle", gres).gpus == gpus


def test_more_gpus_than_the_nodes_have_are_refused_before_the_job(slurm: FakeSlurm, doctor: Doctor):
    slurm.sinfo("node1|idle|gpu:4", "node2|idle|gpu:2")
    status, checks = doctor("gpus_per_node=4")
    assert status == 1
    assert checks["GPUs of the partition"]["found"] == "1 node with 2, 1 node with 4"
    assert "probe job" not in checks


def test_without_accounting_states_come_from_elsewhere(slurm: FakeSlurm, doctor: Doctor):
    slurm.answers("sacct", error="Slurm accounting storage is disabled\n", status=1)
    status, checks = doctor()
    assert status == 0
    assert checks["sacct"]["found"] == (
        "Slurm accounting storage is disabled: states come from squeue and scontrol"
    )
    slurm.without("sacct")
    assert "not installed" in doctor()[1]["sacct"]["found"]


def test_a_folder_that_is_not_there_is_named(slurm: FakeSlurm, doctor: Doctor, tmp_path: Path):
    status, checks = doctor(f"shared={tmp_path}/no")
    assert status == 1
    assert checks["folder from here"]["found"] == f"{tmp_path}/no: No such file or directory"


# --- the job


def test_a_refused_job_is_told_in_slurms_words(slurm: FakeSlurm, doctor: Doctor):
    slurm.answers("sbatch", error="sbatch: error: Invalid account\n", status=1)
    status, checks = doctor()
    assert status == 1
    assert checks["probe job"]["found"] == "sbatch refused: Invalid account."
    assert "account=" in checks["probe job"]["remedy"]


@pytest.mark.parametrize(
    ("told", "found", "remedy"),
    [
        ("JobState=FAILED Reason=NonZeroExitCode ExitCode=41:0", "cannot write to", "shared=DIR"),
        ("JobState=FAILED Reason=NonZeroExitCode ExitCode=42:0", "has no /", "python=PATH"),
        ("JobState=NODE_FAIL Reason=NodeDown ExitCode=0:0", "job 7 node_fail", "sacct -j 7"),
        ("JobState=PENDING Reason=Priority ExitCode=0:0", "pending (Priority) for 1 s", "wait"),
        ("JobState=PENDING Reason=QOSGrpGRES ExitCode=0:0", "(QOSGrpGRES)", "man squeue"),
        ("JobState=RUNNING Reason=None ExitCode=0:0", "running (None)", "a node hangs"),
    ],
)
def test_a_job_that_did_not_work_says_why(
    told: str, found: str, remedy: str, slurm: FakeSlurm, doctor: Doctor, tmp_path: Path
):
    cancelled = tmp_path / "cancelled"
    slurm.command("scancel", f"echo $1 > '{cancelled}'")
    slurm.answers("scontrol", told)
    status, checks = doctor("wait_s=1")
    assert status == 1
    assert found in checks["probe job"]["found"]
    assert remedy in checks["probe job"]["remedy"]
    assert "python on the nodes" not in checks
    unfinished = "PENDING" in told or "RUNNING" in told
    assert cancelled.exists() is unfinished


def test_a_job_is_submitted_as_if_from_outside_any_job(
    slurm: FakeSlurm, doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    monkeypatch.setenv("SLURM_CONF", "/etc/other.conf")
    assert doctor()[0] == 0
    handed = fake_environment(tmp_path / "fake slurm")
    assert "SLURM_JOB_ID" not in handed
    assert handed["SLURM_CONF"] == "/etc/other.conf"


def test_the_last_word_is_that_of_a_task_and_not_of_the_script(tmp_path: Path):
    (tmp_path / "job.out").write_text("/env/bin/python\n")
    (tmp_path / "7_0_log.out").write_text("No module named launch\n")
    assert output_of(tmp_path).splitlines()[-1] == "No module named launch"


# --- a setting of configs/cluster


def test_the_probe_job_is_asked_for_as_the_jobs_of_that_cluster_are(
    slurm: FakeSlurm, doctor: Doctor, tmp_path: Path
):
    slurm.sinfo("node1|idle|gpu:a100:4", "node2|idle|gpu:a100:4")
    words = ["cluster=example_gres", 'cluster.options=["--comment=two words"]', "wait_s=9"]
    status, checks = doctor(*words)
    assert status == 0, checks
    script = (tmp_path / "fake slurm" / "script").read_text()
    asked = ["partition=gpu", "account=my_project", "qos=normal", "mem=245760M", "gres=gpu:a100:4"]
    assert all(f"#SBATCH --{option}\n" in script for option in asked)
    assert "#SBATCH --comment='two words'\n" in script
    assert script.index("module load cuda") < script.index("\nsrun ")
    doctor(
        "cluster=example_gpus_per_task",
        "gpus_per_node=2",
        "partition=other",
        "cluster.gpu_type=a100",
    )
    script = (tmp_path / "fake slurm" / "script").read_text()
    assert "#SBATCH --gpus-per-task=a100:2\n" in script
    assert "#SBATCH --partition=other\n" in script
    assert "#SBATCH --constraint=h100\n" in script
    assert "--wait=60 apptainer exec --nv" in script
    assert "command -v" not in script


def test_a_kind_of_gpu_that_the_nodes_lack_is_answered_with_what_they_have(
    slurm: FakeSlurm, doctor: Doctor
):
    status, checks = doctor("cluster=example_gres")
    assert status == 1
    assert checks["GPUs of the partition"]["found"] == "2 nodes with 0 of a100"
    assert "cluster.gpu_type that is there: gpu:4" in checks["GPUs of the partition"]["remedy"]


def test_a_refused_setting_is_named(slurm: FakeSlurm, doctor: Doctor):
    slurm.answers("sbatch", error="sbatch: error: Invalid feature specification\n", status=1)
    status, checks = doctor("cluster=slurm_generic", "cluster.constraint=h200")
    assert status == 1
    assert checks["probe job"]["found"] == "sbatch refused: Invalid feature specification."
    assert "constraint" in checks["probe job"]["remedy"]


# --- words and dry runs


def test_words_are_read():
    question = read_question(["partition=gpu", "nodes=4", "wait_s=9", "python=/a=b"])
    assert question == Question(partition="gpu", nodes=4, wait_s=9, python="/a=b")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("cluster=local", "is this machine"), ("cluster=nope", "cluster=nope is not known"),
        ("partiton=gpu", "Did you mean 'partition'"), ("nodes", "'nodes' is not understood"),
        ("nodes=two", "nodes='two' is not a whole number from 1"), ("nodes=0", "nodes='0'"),
        ("gpus_per_node=-1", "gpus_per_node='-1' is not a whole number from 0"),
    ],
)  # fmt: skip
def test_a_word_that_is_not_understood_is_refused(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["doctor", "slurm", word]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
def test_a_dry_run_shows_the_script_without_slurm(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["doctor", "slurm", "partition=gpu", "nodes=3", f"shared={tmp_path}", "--dry-run"]
    assert main([*words, *flags]) == 0
    out = capsys.readouterr().out
    script = json.loads(out)["script"] if flags else out
    assert "#SBATCH --partition=gpu\n" in script
    assert "#SBATCH --nodes=3\n" in script
    assert "--account" not in script
    assert list(tmp_path.iterdir()) == []


def test_a_hostile_folder_stays_one_word_of_the_script(tmp_path: Path):
    folder = tmp_path / 'it\'s $(touch never) "here"'
    folder.mkdir()
    script = probe_script(Question(python="true"), folder)
    body = script.replace("exec > job.out", "pwd; exec > job.out")
    done = subprocess.run(["bash"], input=body, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == f"{folder}\n"
    assert not list(tmp_path.rglob("never"))
