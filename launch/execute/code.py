"""Which code a campaign runs, written down and, where asked for, copied."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dlfd_dist.provenance import PARTS, Code, current
from dlfd_dist.resources import resource_dir, root
from dlfd_dist.run_dir import replacing, write_json, write_text


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
        # copytree keeps modes, and a checkout under umask 002 may be written by its group.
        for path in partial.rglob("*"):
            path.chmod(path.stat().st_mode & ~0o022)
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
