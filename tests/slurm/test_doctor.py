"""dlfd doctor slurm on the lab: a healthy cluster, and faults that are really there."""

from __future__ import annotations

import json
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.cli import main
from tests.slurm.cluster import Lab, slurm

Doctor = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def doctor(lab: Lab, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Doctor:
    """Return a runner of `dlfd doctor slurm --json`: its status and its checks by name."""

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        capfd.readouterr()
        status = main(["doctor", "slurm", f"shared={tmp_path}", *words, "--json"])
        return status, {check["name"]: check for check in json.loads(capfd.readouterr().out)}

    return run


def test_a_healthy_cluster_passes_and_keeps_nothing(doctor: Doctor, tmp_path: Path):
    status, checks = doctor("partition=batch", "nodes=2")
    assert status == 0, checks
    assert all(check["ok"] for check in checks.values())
    assert checks["2 nodes over gloo"]["found"].startswith("n")
    assert sys.executable in checks["python on the nodes"]["found"]
    assert checks["locks between nodes"]["found"] == "hold between nodes"
    assert "seen after" in checks["folder between nodes"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_fake_gpus_are_given_by_slurm_and_not_seen_by_torch(doctor: Doctor):
    status, checks = doctor("nodes=1", "gpus_per_node=2")
    assert status == 1
    assert checks["GPUs of the partition"]["ok"]
    assert "SLURM gave 0,1, torch sees 0" in checks["GPUs on the nodes"]["found"]


def test_a_folder_of_one_node_only_is_found_out(doctor: Doctor, lab: Lab):
    if not lab.has_namespaces():
        pytest.skip("without namespaces the lab's nodes have no folders of their own")
    own = Path("/tmp/ray")  # SLURM_LAB_PRIVATE: up.sh makes it here, and every node has its own
    status, checks = doctor(f"shared={own}")
    assert status == 1
    assert "the first node cannot write to /tmp/ray" in checks["probe job"]["found"]
    assert "shared=DIR" in checks["probe job"]["remedy"]


def test_an_interpreter_that_the_nodes_lack_is_named(doctor: Doctor):
    status, checks = doctor("python=/no/python")
    assert status == 1
    assert "the first node has no /no/python" in checks["probe job"]["found"]


def test_an_interpreter_without_dlfd_dist_is_told_by_what_it_said(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
):
    bare = tmp_path_factory.mktemp("bare")
    venv.create(bare)
    monkeypatch.delenv("PYTHONPATH")
    status, checks = doctor("nodes=1", f"python={bare / 'bin' / 'python'}")
    assert status == 1
    assert "0 of 1 nodes answered" in checks["python on the nodes"]["found"]
    assert "No module named" in checks["python on the nodes"]["found"]


@pytest.fixture
def loopback_name(lab: Lab) -> Iterator[None]:
    """The first node's own name means 127.0.1.1 on every node, as Debian's installer writes it."""
    hosts = lab.folder / "hosts"
    before = hosts.read_text()
    # Written in place: the nodes have this very file bound over their /etc/hosts.
    hosts.write_text("127.0.1.1 n1\n" + before)
    yield
    hosts.write_text(before)


@pytest.mark.usefixtures("loopback_name")
def test_a_node_name_that_means_loopback_is_told_before_anybody_waits(doctor: Doctor, lab: Lab):
    if not lab.has_namespaces():
        pytest.skip("without namespaces all nodes of the lab are 127.0.0.1")
    status, checks = doctor()
    assert status == 1
    assert "n1, n2: the first node is 127.0.1.1" in checks["2 nodes over gloo"]["found"]
    assert "/etc/hosts" in checks["2 nodes over gloo"]["remedy"]


def test_a_job_that_stays_pending_is_cancelled_and_its_reason_told(doctor: Doctor, lab: Lab):
    nodes = ",".join(f"n{number}" for number in (1, 2, 3, 4))
    blocker = lab.submit("--nodes=4", "--exclusive", "--wrap=sleep 60", output=Path("/dev/null"))
    try:
        blocker.wait_for(lambda: blocker.state == "RUNNING")
        status, checks = doctor("wait_s=2")
    finally:
        slurm("scancel", blocker.number)
    assert status == 1
    assert "pending (" in checks["probe job"]["found"]
    assert "wait_s=" in checks["probe job"]["remedy"]
    assert "dlfd-doctor" not in slurm("squeue", "-h", "-o", "%j", "-t", "PENDING", "-w", nodes)


def test_too_few_nodes_are_counted_by_state(doctor: Doctor, lab: Lab):
    slurm("scontrol", "update", "nodename=n4", "state=drain", "reason=test")
    try:
        status, checks = doctor("nodes=4", "partition=batch")
    finally:
        lab.resume("n4")
    assert status == 1
    assert checks["partition batch"]["found"].startswith("3 of 4 nodes take jobs")
    assert "1 drain" in checks["partition batch"]["found"]
    assert "probe job" not in checks


def test_a_partition_that_is_not_there_is_answered_with_those_that_are(doctor: Doctor):
    status, checks = doctor("partition=nope")
    assert status == 1
    assert checks["partition nope"]["remedy"] == "choose one of: batch, high, low"
