"""dlfd doctor in a container: what was not handed in from outside is named with its remedy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch.doctor import container as module
from launch.doctor.check import Check
from launch.doctor.container import CLIENTS, check_container, container


def only(name: str, checks: list[Check]) -> Check:
    return next(check for check in checks if check.name == name)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("APPTAINER", "SINGULARITY"):
        monkeypatch.delenv(f"{name}_CONTAINER", raising=False)
    (tmp_path / ".dockerenv").touch()
    (tmp_path / "dev" / "shm").mkdir(parents=True)
    monkeypatch.delenv("SLURM_CONF", raising=False)
    (tmp_path / "etc" / "slurm").mkdir(parents=True)
    (tmp_path / "etc" / "slurm" / "slurm.conf").touch()
    return tmp_path


def test_a_machine_that_is_no_container_is_not_asked(tmp_path: Path, monkeypatch):
    for name in ("APPTAINER", "SINGULARITY"):
        monkeypatch.delenv(f"{name}_CONTAINER", raising=False)
    assert check_container(tmp_path) == []


@pytest.mark.parametrize(
    ("environ", "mark", "kind"),
    [({"APPTAINER_CONTAINER": "/a.sif"}, None, "Apptainer"), ({}, ".dockerenv", "Docker"),
     ({}, "run/.containerenv", "Podman"), ({}, None, "")],
)  # fmt: skip
def test_what_runs_the_container_is_known(environ, mark, kind, tmp_path: Path):
    if mark:
        (tmp_path / mark).parent.mkdir(exist_ok=True)
        (tmp_path / mark).touch()
    assert container(environ, tmp_path) == kind


@pytest.mark.parametrize(
    ("there", "socket", "ok", "said"),
    [((), False, True, "a login node submits them"), (CLIENTS, True, True, "sbatch"),
     (CLIENTS, False, False, "missing: the socket of munge"),
     (("sbatch", "squeue"), True, False, "missing: sacct, scancel, srun")],
    ids=["none", "all", "no munge", "some"],
)  # fmt: skip
def test_clients_of_slurm_are_all_there_or_none(
    there, socket, ok, said, docker: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "which", lambda name: name if name in there else None)
    if socket:
        (docker / "run" / "munge").mkdir(parents=True)
        (docker / "run" / "munge" / "munge.socket.2").touch()
    check = only("SLURM", check_container(docker))
    assert (check.ok, said in check.found) == (ok, True)
    assert ok or "bind SLURM's clients" in check.remedy


def test_clients_that_know_no_cluster_do_no_harm(docker: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    (docker / "etc" / "slurm" / "slurm.conf").unlink()
    check = only("SLURM", check_container(docker))
    assert check.ok
    assert check.found.startswith("clients without a slurm.conf")


@pytest.mark.parametrize(("mib", "ok"), [(64, False), (2048, True)])
def test_dockers_own_shared_memory_is_too_small(mib: int, ok: bool, docker: Path, monkeypatch):
    room = SimpleNamespace(f_bavail=mib, f_frsize=1 << 20)
    monkeypatch.setattr(module.os, "statvfs", lambda _: room)
    check = only("shared memory", check_container(docker))
    assert (check.ok, check.found) == (ok, f"{mib} MiB free")
    assert ok or "--shm-size" in check.remedy


def test_no_shared_memory_is_one_line(docker: Path):
    (docker / "dev" / "shm").rmdir()
    assert not only("shared memory", check_container(docker)).ok


@pytest.mark.parametrize(
    ("cuda", "nccl", "gpus", "driver", "ok"),
    [(None, False, False, False, True), ("12.8", False, True, True, False),
     ("12.8", True, True, True, True), ("12.8", True, False, False, True),
     ("12.8", True, False, True, False)],
    ids=["for CPUs", "no NCCL", "GPUs seen", "no driver", "GPUs not handed in"],
)  # fmt: skip
def test_nccl_is_there_where_gpus_are(
    cuda, nccl, gpus, driver, ok, docker: Path, monkeypatch: pytest.MonkeyPatch
):
    import torch

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr("torch.cuda.nccl.version", lambda: (2, 27, 3))
    real = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda path: driver if "nvidia" in os.fspath(path) else real(path)
    )
    assert only("NCCL", check_container(docker)).ok is ok
