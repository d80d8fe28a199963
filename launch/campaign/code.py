"""Which code a campaign runs: revision, uncommitted changes and, where asked for, a copy."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlfd_dist import __version__
from dlfd_dist.resources import resource_dir
from dlfd_dist.run_dir import replacing, write_json, write_text

PARTS = ("dlfd_dist", "launch", "configs", "slurm")


@dataclass(frozen=True)
class Code:
    """The code that this process runs."""

    version: str
    revision: str | None
    """None: it does not come from a git checkout."""
    diff_sha256: str | None
    """Of the uncommitted changes to the parts that run; None: there are none."""


def root() -> Path:
    """Return the folder that holds the packages."""
    return Path(__file__).resolve().parents[2]


def checkout() -> Path | None:
    """Return the folder of the checkout or snapshot this process runs; None: it is installed."""
    return root() if (root() / "configs").is_dir() else None


def current() -> tuple[Code, str]:
    """Return the code that runs now, and its uncommitted changes."""
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


def store(folder: Path, code: Code, diff: str) -> None:
    """Write code.json and, where there are uncommitted changes, code.diff into a folder."""
    if diff:
        write_text(folder / "code.diff", diff)
    write_json(folder / "code.json", asdict(code))


def snapshot(folder: Path, code: Code) -> Path:
    """Copy the code under a name that its content gives; return the copy."""
    name = f"{(code.revision or code.version)[:12]}-{(code.diff_sha256 or 'clean')[:8]}"
    copy = folder / "code" / name
    if copy.is_dir():
        return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    with replacing(copy) as partial:
        for part in PARTS:
            source = root() / part if (root() / part).is_dir() else resource_dir(part)
            shutil.copytree(source, partial / part, ignore=shutil.ignore_patterns("__pycache__"))
        store(partial, code, "")
    return copy


def difference(submitted: dict[str, Any]) -> str | None:
    """Return one sentence when the code of a campaign is not the code of now."""
    now = asdict(current()[0])
    if submitted == now:
        return None
    if submitted["revision"] != now["revision"]:
        was, is_now = (_short(code["revision"]) for code in (submitted, now))
        return f"It was submitted at revision {was}, and the code is at {is_now} now."
    if submitted["version"] != now["version"]:
        return f"It was submitted with version {submitted['version']}, not {now['version']}."
    return "It was submitted with other uncommitted changes than the code has now."


def _short(revision: str | None) -> str:
    return (revision or "unknown")[:12]
