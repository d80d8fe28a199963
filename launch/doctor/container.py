"""What a container must be given from outside: SLURM's clients, NCCL, room in /dev/shm."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from .check import Check

CLIENTS = ("sbatch", "squeue", "sacct", "scancel", "srun")
SOCKETS = ("run/munge/munge.socket.2", "var/run/munge/munge.socket.2", "run/slurm/sack.socket")
"""Where a client proves to SLURM who asks."""
SHM_MIB = 1024
"""Loaders and NCCL share memory; Docker gives 64 MiB where nothing is said."""


def container(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> str:
    """Return what runs this container; empty: it is none."""
    for name in ("APPTAINER", "SINGULARITY"):
        if f"{name}_CONTAINER" in environ:
            return name.capitalize()
    marks = {".dockerenv": "Docker", "run/.containerenv": "Podman"}
    return next((kind for mark, kind in marks.items() if (root / mark).exists()), "")


def check_container(root: Path = Path("/")) -> list[Check]:
    """Return the checks of a container; none where this is no container."""
    kind = container(root=root)
    if not kind:
        return []
    return [Check("container", True, kind), _clients(root), _nccl(), _shm(root / "dev" / "shm")]


def _clients(root: Path) -> Check:
    there = [name for name in CLIENTS if shutil.which(name)]
    configured = "SLURM_CONF" in os.environ or (root / "etc" / "slurm" / "slurm.conf").exists()
    if not there or not configured:
        # An image may bring SLURM's packages along; without a configuration they reach no cluster.
        which = "clients without a slurm.conf" if there else "no client"
        finding = f"{which} in this container: jobs can run in it, and a login node submits them"
        return Check("SLURM", True, finding)
    lacking = [name for name in CLIENTS if name not in there]
    if not any((root / socket).exists() for socket in SOCKETS):
        lacking.append("the socket of munge or of sackd")
    remedy = "bind SLURM's clients, /etc/slurm, libmunge and /run/munge, or none of them"
    finding = f"{', '.join(there)}" + (f"; missing: {', '.join(lacking)}" if lacking else "")
    return Check("SLURM", not lacking, finding, remedy)


def _nccl() -> Check:
    import torch
    from torch import distributed
    from torch.cuda import nccl

    if torch.version.cuda is None:
        return Check("NCCL", True, "not needed: this torch is built for CPUs")
    if not distributed.is_nccl_available():
        remedy = "install a torch of pytorch.org's CUDA index in the image"
        return Check("NCCL", False, f"torch for CUDA {torch.version.cuda} lacks it", remedy)
    version = ".".join(map(str, nccl.version()))
    if torch.cuda.is_available():
        return Check("NCCL", True, version)
    if not Path("/proc/driver/nvidia/version").exists():
        return Check("NCCL", True, f"{version}, not used: this machine has no NVIDIA driver")
    remedy = "start the container with --nv (Apptainer) or --gpus all (Docker)"
    return Check("NCCL", False, f"{version}, and no GPU is seen though there is a driver", remedy)


def _shm(path: Path) -> Check:
    remedy = f"start the container with --shm-size=2g or --ipc=host: {SHM_MIB} MiB are needed"
    try:
        status = os.statvfs(path)
    except OSError as err:
        return Check("shared memory", False, f"not usable ({err.strerror})", remedy)
    free = status.f_bavail * status.f_frsize >> 20
    return Check("shared memory", free >= SHM_MIB, f"{free} MiB free", remedy)
