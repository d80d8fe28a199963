"""Which search a directory holds, and whether a start may go on with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dlfd_dist import __version__
from dlfd_dist.config import signature
from dlfd_dist.data.loaders import ResolvedRows
from dlfd_dist.errors import RunDirError
from dlfd_dist.jobs.context import input_digests
from dlfd_dist.resources import checkout
from dlfd_dist.run_dir import take_directory, write_json, writing_to

from .plan import SearchPlan

# What may differ between two starts of one search: where it runs, and what comes after the trials.
NOT_IN_IDENTITY = (
    "replicate", "replicate_seeds", "concurrent", "address", "object_store_mb", "pin",
    "cpus_per_trial", "gpus_per_trial", "workers_per_trial", "join_s",
)  # fmt: skip
NAMES = {"data": "data set", "request": "forget request"}
"""What users call the inputs of a run."""


def identity(plan: SearchPlan, rows: ResolvedRows) -> dict[str, Any]:
    """Return what makes the search this one: inputs, code, settings, space."""
    inputs = input_digests(plan.config, rows)
    settings = {k: v for k, v in asdict(plan.search).items() if k not in NOT_IN_IDENTITY}
    return {
        "inputs": inputs,
        "code": {"version": __version__, "revision": _revision()},
        "config": signature(plan.config, inputs),
        "search": settings,
        "space": {name: str(values) for name, values in plan.space.items()},
        "method": plan.config.method.name,
        "title": rows.manifest.title,
    }


def _revision() -> str | None:
    """Return the last commit that touched what a search runs; None outside a checkout."""
    root = checkout()
    if root is None or not (root / ".git").exists():
        return None
    words = ["log", "-1", "--format=%H", "--", "dlfd_dist", "launch/search"]
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    return done.stdout.strip() or None


def check_same(plan: SearchPlan, rows: ResolvedRows) -> None:
    """Raise RunDirError where the directory holds another search."""
    if (recorded := _recorded(plan)) is not None:
        current = identity(plan, rows)
        _refuse_other(plan, _difference(recorded, current) or _code_difference(recorded, current))


def _refuse_other(plan: SearchPlan, difference: str | None) -> None:
    if difference:
        raise RunDirError(
            f"run.dir={plan.out} is another search: {difference} Choose another directory, or "
            "start it as it was begun."
        )


def claim(plan: SearchPlan, rows: ResolvedRows, *, resume: bool | None) -> None:
    """Take the directory of the search; RunDirError where it is not this search's.

    Parameters
    ----------
    resume : whether there must be a search to go on with; None: there may be one. A job that comes
        back goes on though somebody committed in the meantime; the log says so
    """
    recorded = _recorded(plan)
    if recorded is None:
        _begin(plan, rows, resume=resume)
        return
    if resume is False:
        raise RunDirError(
            f"run.dir={plan.out} holds a search already: add --resume to go on with it, or choose "
            "another directory."
        )
    current = identity(plan, rows)
    _refuse_other(plan, _difference(recorded, current))
    other_code = _code_difference(recorded, current)
    if resume is not None:
        _refuse_other(plan, other_code)
    elif other_code and current["code"] not in (later := recorded.get("went_on_at", [])):
        print(f"warning: this search goes on though {other_code}", file=sys.stderr)
        write_json(plan.identity, {**recorded, "went_on_at": [*later, current["code"]]})


def _begin(plan: SearchPlan, rows: ResolvedRows, *, resume: bool | None) -> None:
    if resume:
        raise RunDirError(
            f"run.dir={plan.out} holds no search to go on with: leave --resume out, or give the "
            "run.dir of the search."
        )
    # The directory may be that of the search's campaign.
    take_directory(plan.out, "a search", "ledger.jsonl")
    with writing_to(plan.out):
        write_json(plan.identity, identity(plan, rows))


def _recorded(plan: SearchPlan) -> dict[str, Any] | None:
    if not plan.identity.is_file():
        return None
    try:
        recorded = json.loads(plan.identity.read_text(encoding="utf-8"))
        return recorded if isinstance(recorded, dict) and "inputs" in recorded else {}
    except (OSError, ValueError) as err:
        raise RunDirError(
            f"{plan.identity} is damaged, so nobody can tell which search this is: choose another "
            "run.dir."
        ) from err


def _difference(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """Return one sentence on what differs first, None if it is the same search."""
    before, now = _compared(recorded), _compared(current)
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            return (
                f"its {name} is {_short(before.get(name))}, and this one's is "
                f"{_short(now.get(name))}."
            )
    return None


def _compared(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a search this one, by the names that a user knows."""
    inputs: dict[str, Any] = dict(record.get("inputs", {}))
    return {
        **{NAMES.get(name, name): digest for name, digest in inputs.items()},
        **{f"search.{name}": value for name, value in record.get("search", {}).items()},
        "method": record.get("method"),
        **{f"range of {name}": values for name, values in record.get("space", {}).items()},
        "digest of the settings": record.get("config"),
    }


def _code_difference(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    for key, now in current["code"].items():
        was = recorded.get("code", {}).get(key)
        if was != now:
            return f"it was begun at code {key} {_short(was)}, and the code is at {_short(now)}."
    return None


def _short(value: Any) -> str:
    return str(value)[:12] if value else "none"
