"""Which code runs here and on what: revision, uncommitted changes, versions of packages."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from . import __version__
from .resources import root

PARTS = ("dlfd_dist", "launch", "configs", "slurm")
PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "POT", "safetensors")


@dataclass(frozen=True)
class Code:
    """The code that this process runs."""

    version: str
    revision: str | None
    """None: it does not come from a git checkout."""
    diff_sha256: str | None
    """Of the uncommitted changes to the parts that run; None: there are none."""


def current() -> tuple[Code, str]:
    """Return the code that runs now, and its uncommitted changes.

    A copy that `dlfd submit` made says itself which code it is.
    """
    copied = root() / "code.json"
    if copied.is_file() and not (root() / ".git").exists():
        return Code(**json.loads(copied.read_text(encoding="utf-8"))), ""
    revision, diff = _git("rev-parse", "HEAD").strip(), ""
    if revision:
        diff = _git("diff", "HEAD", "--", *PARTS)
        for name in _git("ls-files", "--others", "--exclude-standard", "--", *PARTS).splitlines():
            content = (root() / name).read_bytes()
            diff += f"untracked {name} {hashlib.sha256(content).hexdigest()}\n"
    digest = hashlib.sha256(diff.encode()).hexdigest() if diff else None
    return Code(__version__, revision or None, digest), diff


def _git(*words: str) -> str:
    if not (root() / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root()), *words], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def environment() -> dict[str, Any]:
    """Return what figures may depend on; no host name, for machines are named after people."""
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages,
    }


def utc(when: datetime | None = None) -> str:
    """Return a time, now if none is given, as 2026-01-31T23:59:59Z."""
    moment = when or datetime.now(timezone.utc)
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.cache
def of_this_process() -> dict[str, Any]:
    """Return code and environment as they were when this process first asked."""
    return {"code": asdict(current()[0]), "environment": environment()}
