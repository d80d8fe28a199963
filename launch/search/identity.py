"""Which search a directory holds, and whether a start may go on with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dlfd_dist import __version__
from dlfd_dist.config import signature
from dlfd_dist.data.loaders import ResolvedRows
from dlfd_dist.errors import RunDirError
from dlfd_dist.jobs.context import input_digests
from dlfd_dist.resources import checkout
from dlfd_dist.run_dir import write_json

from .plan import SearchPlan

# What may differ between two starts of one search: where it runs, and what comes after the trials.
NOT_IN_IDENTITY = (
    "replicate", "replicate_seeds", "concurrent", "address", "object_store_mb", "pin",
    "cpus_per_trial", "gpus_per_trial", "workers_per_trial", "join_s",
)  # fmt: skip


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


def check_same(plan: SearchPlan, rows: ResolvedRows) -> dict[str, Any]:
    """Return the identity; RunDirError where the directory holds another search."""
    mine, recorded = identity(plan, rows), _recorded(plan)
    if recorded is not None:
        _refuse_other(plan, _difference(recorded, mine) or _code_difference(recorded, mine))
    return mine


def _refuse_other(plan: SearchPlan, difference: str | None) -> None:
    if difference:
        raise RunDirError(
            f"run.dir={plan.out} is another search: {difference} Choose another directory, or "
            "start it as it was begun."
        )


def claim(plan: SearchPlan, rows: ResolvedRows, *, resume: bool | None) -> None:
    """Take the directory of the search; RunDirError where it is not this search's.

    resume: whether there must be a search to go on with; None: there may be one. A job that
        comes back goes on though somebody committed in the meantime; the log says so
    """
    recorded = _recorded(plan)
    if recorded is None:
        if resume:
            raise RunDirError(
                f"run.dir={plan.out} holds no search to go on with: leave --resume out, or give "
                "the run.dir of the search."
            )
        try:
            if _in_use(plan.out):
                raise RunDirError(
                    f"run.dir={plan.out} exists and is not a search: choose another directory."
                )
            plan.out.mkdir(parents=True, exist_ok=True)
            write_json(plan.identity, identity(plan, rows))
        except OSError as err:
            raise RunDirError(
                f"run.dir={plan.out} cannot be written ({err.strerror}): choose another directory."
            ) from err
        return
    if resume is False:
        raise RunDirError(
            f"run.dir={plan.out} holds a search already: add --resume to go on with it, or choose "
            "another directory."
        )
    mine = identity(plan, rows)
    _refuse_other(plan, _difference(recorded, mine))
    other_code = _code_difference(recorded, mine)
    if resume is None and other_code:
        if mine["code"] not in (later := recorded.get("went_on_at", [])):
            print(f"warning: this search goes on though {other_code}", file=sys.stderr)
            write_json(plan.identity, {**recorded, "went_on_at": [*later, mine["code"]]})
        return
    _refuse_other(plan, other_code)


def _in_use(path: Path) -> bool:
    """Return whether a path holds files that no search and no campaign of ours wrote."""
    if not path.is_dir():
        return path.exists()
    return any(path.iterdir()) and not (path / "ledger.jsonl").is_file()


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


def _difference(recorded: Mapping[str, Any], mine: Mapping[str, Any]) -> str | None:
    """Return one sentence on what differs first, None if it is the same search."""
    names = {"data": "data set", "request": "forget request", "checkpoint": "checkpoint"}
    for key in {**mine["inputs"], **recorded.get("inputs", {})}:
        was, now = recorded.get("inputs", {}).get(key), mine["inputs"].get(key)
        if was != now:
            what = names.get(key, key)
            return f"its {what} is {_short(was)}, and this one's is {_short(now)}."
    for key, now in mine["search"].items():
        was = recorded.get("search", {}).get(key)
        if was != now:
            return f"its search.{key} is {was}, and this one's is {now}."
    if recorded.get("method") != mine["method"]:
        return f"its method is {recorded.get('method')}, and this one's is {mine['method']}."
    if recorded.get("space") != mine["space"]:
        return "its search space is another."
    if recorded.get("config") != mine["config"]:
        return "other settings on the command line."
    return None


def _code_difference(recorded: Mapping[str, Any], mine: Mapping[str, Any]) -> str | None:
    for key, now in mine["code"].items():
        was = recorded.get("code", {}).get(key)
        if was != now:
            return f"it was begun at code {key} {_short(was)}, and the code is at {_short(now)}."
    return None


def _short(value: Any) -> str:
    return str(value)[:12] if value else "none"
