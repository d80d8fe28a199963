"""The verbs that are one run: train, unlearn, evaluate.

torch is loaded after the settings are composed: a wrong setting is refused in half a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlfd_dist.compose import compose_job, config_text
from dlfd_dist.config import JobConfig, to_dict
from dlfd_dist.logs import setup_console
from dlfd_dist.runtime.env import rank_info
from dlfd_dist.terminal import print_facts

from ..dry_run import dry_run_text, indented
from ..execute.ranks import run_local

if TYPE_CHECKING:
    from dlfd_dist.jobs import Prepared

FIGURES = (
    "retain_accuracy", "forget_accuracy", "val_accuracy", "test_accuracy", "forgetting_score",
    "nomus", "gap_to_retrained",
)  # fmt: skip

BY_ATTACK = ("forgetting_score", "nomus")
"""Figures that say nothing where the attack cannot tell."""


def run_verb(verb: str, overrides: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Run one configuration; a finished one is not run again."""
    config = compose_job(verb, overrides)
    if dry_run:
        print_dry_run([config], as_json=as_json)
        return 0
    if rank_info().source != "single":
        # An outer torchrun or srun started this process as one of many ranks.
        return run_local([config], [])
    from dlfd_dist.jobs import prepare
    from dlfd_dist.trackers.page import end_trackers

    setup_console()
    prepared = prepare(config, config.runtime.world_size)
    if not prepared.finished():
        if config.runtime.world_size > 1:
            # The ranks get the run by its directory.
            prepared.claim()
        status = run_local([config], [prepared.run_dir.config], lambda *_: prepared)
        if status:
            return status
    else:
        end_trackers(config, prepared.run_dir)
    show_result(prepared, as_json=as_json)
    return 0


def show_result(prepared: Prepared, *, as_json: bool) -> None:
    """Print the result for a script, or its figures and path for a person."""
    run_dir = prepared.run_dir
    result = run_dir.read_result()
    if as_json:
        print(json.dumps({**result, "run_dir": str(run_dir.path)}, indent=2, sort_keys=True))
        return
    facts = [(name, f"{result[name]:.4f}") for name in FIGURES if result.get(name) is not None]
    if few := _too_few(result["mia"] or {}):
        facts = [(name, few if name in BY_ATTACK else text) for name, text in facts]
    if result["mia"] is not None:
        low, high = result["mia"]["interval"]
        accuracy = result["mia"]["accuracy"]
        facts.append(("attack accuracy", f"{accuracy:.4f} ({low:.3f} to {high:.3f})"))
        facts += [("", guard["reason"]) for guard in result["guards"].values() if guard["flag"]]
    if run_dir.model.is_file():
        facts.append(("model", str(run_dir.model)))
    print_facts([*facts, ("result", str(run_dir.result))], 18)


def _too_few(mia: Mapping[str, Any]) -> str:
    """Return why the attack tells nothing, where there are too few people; else nothing."""
    from dlfd_dist.metrics.people import MIN_PEOPLE

    sides = [mia.get(f"num_{side}_people") for side in ("member", "nonmember")]
    if all(count is None or count >= MIN_PEOPLE for count in sides):
        return ""
    return f"- (the attack cannot tell with fewer than {MIN_PEOPLE} people on a side)"


def print_dry_run(configs: Sequence[JobConfig], *, as_json: bool) -> None:
    """Print configuration, plan and files of runs that are not started."""
    from dlfd_dist.jobs.plan import plan

    plans: list[dict[str, Any]] = [plan(config) for config in configs]
    if as_json:
        runs = [{"config": to_dict(c), **p} for c, p in zip(configs, plans, strict=True)]
        print(json.dumps({"dry_run": True, "runs": runs}, indent=2, sort_keys=True))
        return
    for config, lines in zip(configs, plans, strict=True):
        print(dry_run_text({}, plan_lines(config, lines["plan"]), lines["files"], as_json=False))


def plan_lines(config: JobConfig, lines: Sequence[str], title: str | None = None) -> list[str]:
    """Return the configuration and the plan of one run, as a person reads them."""
    head = f"# {title or config.verb}: resolved configuration"
    return [head, config_text(config), "# plan", *indented(lines)]
