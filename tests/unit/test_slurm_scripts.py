"""slurm/lib and slurm/templates, run by bash beside commands of SLURM that record their words."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from submitit.slurm.slurm import _parse_node_list

SLURM = Path(__file__).parents[2] / "slurm"
TEMPLATES = ("srun", "torchrun", "ray")
RECORDED = ["OMP_NUM_THREADS", "SRUN_CPUS_PER_TASK", "MASTER_ADDR", "MASTER_PORT", "RAY_AUTH_MODE"]
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$RECORD/srun.words"
env > "$RECORD/srun.env"
exit "$SRUN_ENDS"
"""
SCONTROL = """#!/bin/bash
case "$1 $2" in "show hostnames"|"show job") exit 1 ;; esac # a container, or a hung controller
echo "$*" >> "$RECORD/scontrol.words"
"""
JOB = {"SLURM_JOB_ID": "71", "SLURM_JOB_NODELIST": "node[3-4]", "SLURM_JOB_NUM_NODES": "2"}


def bash(folder: Path, words: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    """Run bash where srun and scontrol write into `folder`; srun ends with 0 or SRUN_ENDS."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    base = {"PATH": f"{folder}:/usr/bin:/bin", "RECORD": str(folder), "SRUN_ENDS": "0"}
    return subprocess.run(
        ["bash", *words], capture_output=True, text=True, timeout=60, cwd=folder,
        env={**base, "DLFD_SLURM": str(SLURM), "DLFD_PYTHON": "py", **JOB, **env},
    )  # fmt: skip


def template(folder: Path, name: str, **env: str) -> subprocess.CompletedProcess[str]:
    return bash(folder, [str(SLURM / "templates" / f"{name}.sbatch"), "run one", "key=1"], **env)


def called(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the words and the environment that srun was called with."""
    words = (folder / "srun.words").read_text().splitlines()
    lines = (folder / "srun.env").read_text().splitlines()
    return words, dict(line.split("=", 1) for line in lines if "=" in line)


def meeting(folder: Path, **env: str) -> tuple[str, int]:
    """Return where the ranks of a job meet."""
    text = f". {SLURM}/lib/rendezvous.sh; echo $MASTER_ADDR $MASTER_PORT"
    address, port = bash(folder, ["-c", text], **env).stdout.split()
    return address, int(port)


def test_ranks_meet_on_the_first_node_at_a_port_of_this_start_of_this_job(tmp_path: Path):
    starts = [{"SLURM_JOB_ID": str(job), "SLURM_RESTART_COUNT": str(count)}
              for job in (71, 72) for count in range(3)]  # fmt: skip
    found = [meeting(tmp_path, **start) for start in starts]
    assert {address for address, _ in found} == {"node3"}
    assert len({port for _, port in found}) == len(starts)
    # From 32768 Linux hands out ports to outgoing connections.
    assert all(20000 <= port < 32768 for _, port in found)
    assert meeting(tmp_path, SLURM_RESTART_COUNT="0") == meeting(tmp_path)
    assert 20000 <= meeting(tmp_path, SLURM_JOB_ID="67043327", SLURM_RESTART_COUNT="99")[1] < 32768


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"), ("n1,n2", "n1"), ("n[1-3,5],m2", "n1"), ("node[07-09,12],other", "node07"),
        ("m2,n[1-2]", "m2"), ("rack[1-2]node[3-4]", "rack1node3"), ("a[1-2]-ib,b", "a1-ib"),
        ("a-1,b[2-3]", "a-1"), ("n[12]", "n12"),
    ],
)  # fmt: skip
def test_the_first_node_is_read_from_slurms_list_as_submitit_reads_it(
    nodes: str, first: str, tmp_path: Path
):
    assert meeting(tmp_path, SLURM_JOB_NODELIST=nodes)[0] == first == _parse_node_list(nodes)[0]


def test_a_script_without_a_list_of_nodes_ends_and_does_not_let_ranks_wait(tmp_path: Path):
    text = f". {SLURM}/lib/rendezvous.sh; echo went on"
    done = bash(tmp_path, ["-c", text], SLURM_JOB_NODELIST="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "SLURM_JOB_NODELIST is empty" in done.stderr


def test_the_token_of_ray_is_long_new_for_every_job_and_said_to_nobody(tmp_path: Path):
    text = f". {SLURM}/lib/ray.sh; env > $RECORD/env"
    tokens = set()
    for _ in range(2):
        done = bash(tmp_path, ["-c", text])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        env = (tmp_path / "env").read_text()
        tokens.add(re.findall(r"^RAY_AUTH_TOKEN=([0-9a-f]{64})$", env, re.MULTILINE)[0])
        assert "RAY_AUTH_MODE=token\n" in env
    assert len(tokens) == 2


@pytest.mark.parametrize(("status", "ends"), [(0, 0), (1, 1), (75, 75), (137, 75)])
def test_a_search_whose_first_node_was_killed_comes_back(status: int, ends: int, tmp_path: Path):
    text = f". {SLURM}/lib/ray.sh; ray_status {status}"
    assert bash(tmp_path, ["-c", text]).stdout == f"{ends}\n"


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_asks_to_be_requeued_and_for_a_signal_to_its_steps(name: str):
    text = (SLURM / "templates" / f"{name}.sbatch").read_text()
    options = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
    # Without B: the ranks hear the signal, and not the batch shell alone.
    assert {"--requeue", "--signal=USR2@120", "--open-mode=append"} <= set(options)
    assert ("--ntasks-per-node=1" in options) is (name != "srun")


@pytest.mark.parametrize(
    ("status", "requeued"),
    [(0, False), (1, False), (2, False), (75, True), (140, True), (143, True)],
)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_job_ends_as_its_ranks_did_and_comes_back_where_they_saved(
    name: str, status: int, requeued: bool, tmp_path: Path
):
    assert template(tmp_path, name, SRUN_ENDS=str(status)).returncode == status
    assert (tmp_path / "scontrol.words").exists() is requeued
    if requeued:
        assert (tmp_path / "scontrol.words").read_text() == "requeue 71\n"


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_rank_that_ends_does_not_kill_the_others_at_once(name: str, tmp_path: Path):
    template(tmp_path, name)
    words, _ = called(tmp_path)
    assert words[:2] == ["--kill-on-bad-exit=0", "--wait=60"]
    assert words[-2:] == ["run one", "key=1"]


@pytest.mark.parametrize(
    ("name", "ranks", "threads"), [("srun", {}, "6"), ("ray", {}, "1"),
                                   ("torchrun", {"DLFD_RANKS_PER_NODE": "2"}, "3")],
)  # fmt: skip
def test_srun_hands_on_the_cores_and_where_the_ranks_meet(name, ranks, threads, tmp_path: Path):
    template(tmp_path, name, SLURM_CPUS_PER_TASK="6", **ranks)
    _, env = called(tmp_path)
    found = {key: env.get(key) for key in RECORDED}
    assert found == {
        "OMP_NUM_THREADS": threads, "SRUN_CPUS_PER_TASK": "6", "MASTER_ADDR": "node3",
        "MASTER_PORT": str(meeting(tmp_path)[1]),
        "RAY_AUTH_MODE": "token" if name == "ray" else None,
    }  # fmt: skip


def test_torchrun_is_told_nodes_ranks_and_where_they_meet(tmp_path: Path):
    template(tmp_path, "torchrun", SLURM_GPUS_ON_NODE="4")
    words, env = called(tmp_path)
    shape = {"--nnodes=2", "--nproc-per-node=4", "--master-addr=node3"}
    assert shape < set(words)
    assert f"--master-port={env['MASTER_PORT']}" in words
    # The task's own shell, and not the batch script's, knows which node it is on.
    assert any('--node-rank="$SLURM_NODEID"' in word for word in words)


def test_ray_starts_the_search_beside_ray_itself(tmp_path: Path):
    template(tmp_path, "ray")
    words, _ = called(tmp_path)
    assert words[2:-2] == ["py", "-m", "launch.search.node", "py", "-m", "launch.search.job"]


def test_every_script_passes_bash_syntax():
    for path in (*SLURM.glob("lib/*.sh"), *SLURM.glob("templates/*.sbatch")):
        done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert os.access(path, os.R_OK)
