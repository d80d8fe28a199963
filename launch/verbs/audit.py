"""dlfd audit ulira|klom: shadow models trained, made to forget, retrained, and told apart."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlfd_dist.config import to_dict
from dlfd_dist.data.loaders import DataReader, ResolvedData
from dlfd_dist.jobs import prepare
from dlfd_dist.jobs.context import check_enough
from dlfd_dist.jobs.models import model_outline
from dlfd_dist.jobs.plan import plan as plan_run
from dlfd_dist.logs import setup_console
from dlfd_dist.methods import methods
from dlfd_dist.report.audit import summary_lines
from dlfd_dist.runtime.env import refuse_ranks

from ..execute.here import Progress, Runs, stop_signals
from ..execute.workers import Workers
from ..plan.audit import AuditPlan, plan_audit, trainings, unlearnings
from ..plan.compare import with_models
from ..plan.runs import Planned
from ..results.audit import FILES, rows_of, write_audit
from .compare import claimed, num_workers
from .run import print_dry_run


def run_audit(words: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Run an audit and write audit.json, audit.csv and the page into run.dir."""
    plan = plan_audit(words)
    _check(plan)
    for variant in plan.plan.left_out:
        print(f"left out: {variant}", file=sys.stderr)
    if dry_run:
        _print_plan(plan, as_json=as_json)
        return 0
    setup_console()
    done, failures = _run(plan)
    wanted = [*trainings(plan), *unlearnings(plan)]
    result = write_audit(plan.out, plan.kind, plan.audit, wanted, done, rows_of(wanted[0].config))
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        for label in result["missing"]:
            why = failures.get(label, "a run that it needs did not finish.")
            print(f"not finished: {label}: {why}")
        print(*summary_lines(result), f"report: {plan.out / 'report.html'}", sep="\n")
    return 1 if result["missing"] else 0


def _check(plan: AuditPlan) -> None:
    refuse_ranks("dlfd audit")
    for one in [*trainings(plan), *unlearnings(plan)]:
        one.config.validate(one.config.runtime.world_size)


def _run(plan: AuditPlan) -> tuple[dict[str, Path], dict[str, str]]:
    """Run the stages; return the finished runs and why the others failed, by label."""
    first, last = trainings(plan), unlearnings(plan)
    config = first[0].config
    reader = DataReader()
    data, read = prepare(config, config.runtime.world_size, reader).data, reader.rows
    _check_methods(plan, data)
    for one in last:
        rows = read(one.config.data, one.config.drawn_forget)
        check_enough(one.config, rows, config.runtime.world_size)
    with (
        stop_signals() as stop,
        claimed(plan.out, plan.plan.configs[0], "audit"),
        Workers(num_workers(config, plan.audit.workers)) as workers,
        Progress(len(first) + len(last)) as progress,
    ):
        runs = Runs(read, workers, progress, stop)
        models = runs.run(first)
        done = models | runs.run(with_models(last, models))
        return done, runs.failures


def _check_methods(plan: AuditPlan, data: ResolvedData) -> None:
    model = model_outline(plan.first, data)
    for config in plan.plan.configs:
        methods.get(config.method.name).check(config.method, model)


def _print_plan(plan: AuditPlan, *, as_json: bool) -> None:
    runs: list[Planned] = [*trainings(plan), *unlearnings(plan)]
    files = [str(plan.out / name) for name in FILES]
    workers = num_workers(plan.first, plan.audit.workers)
    if as_json:
        shown: dict[str, Any] = {
            "dry_run": True, "audit": to_dict(plan.audit), "kind": plan.kind,
            "config": to_dict(plan.plan.configs[0]), "plan": plan_run(plan.first)["plan"],
            "runs": [one.label for one in runs], "workers": workers, "files": files,
        }  # fmt: skip
        print(json.dumps(shown, indent=2, sort_keys=True))
        return
    print_dry_run([plan.first], as_json=False)
    print(
        f"# audit: {len(runs)} runs under {plan.out / 'runs'}, {workers} at a time, those finished "
        "before are reused"
    )
    print(f"# {_forgotten(plan)}")
    for one in runs:
        print(f"  {one.label}")
    print("# files that would be written")
    for file in files:
        print(f"  {file}")


def _forgotten(plan: AuditPlan) -> str:
    if plan.draws:
        return f"every shadow model forgets {plan.first.forget.fraction:.0%} of the people, drawn"
    return "every shadow model forgets the same people, those of the request"
