"""dlfd compare: methods x seeds against Original and Retrained; no run is done twice."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence

from dlfd_dist.compose import with_sweep
from dlfd_dist.config import to_dict
from dlfd_dist.data.loaders import DataReader, ResolvedRows, resolve_rows
from dlfd_dist.jobs import prepare
from dlfd_dist.jobs.context import check_enough
from dlfd_dist.logs import setup_console
from dlfd_dist.plain import counted
from dlfd_dist.report.tuning import chosen_lines

from ..dry_run import indented
from ..execute.here import num_workers, running
from ..plan.compare import comparison_of
from ..plan.comparison import Comparison
from ..plan.few import too_few
from ..plan.linked import comparison_plan
from ..plan.race import Race
from ..plan.runs import Plan
from ..plan.tuning import races_of
from ..results.compare import FILES, Written, write_comparison
from ..results.ended import Ended
from ..results.report import show_summary
from ..results.tuning import Choices
from .staged import at_a_time, check_configs, check_methods, show_missing, show_plan


def run_compare(
    overrides: Sequence[str], *, dry_run: bool, as_json: bool, title: str = "Comparison"
) -> int:
    """Run a comparison and write table, summary and page into run.dir."""
    comparison = comparison_of(with_sweep(overrides))
    check_configs("compare", comparison, comparison.configs)
    races = races_of(comparison)
    plan = comparison_plan(comparison, races)
    if dry_run:
        first = comparison.configs[0]
        rows = resolve_rows(first.data, first.drawn_forget, draw=False)
        _check_methods(comparison, plan, rows)
        if warning := too_few(rows):
            print(f"warning: {warning}", file=sys.stderr)
        _show_plan(comparison, races, plan, as_json=as_json)
        return 0
    setup_console()
    ended = _carry_out(comparison, plan, title)
    written = write_comparison(ended)
    _show(ended, written, as_json=as_json)
    return 1 if written.missing else 0


def run_demo(overrides: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Compare on real faces over three seeds; further overrides win over the demo's settings."""
    words = ["experiment=demo", "run.dir=runs/demo", *overrides]
    return run_compare(words, dry_run=dry_run, as_json=as_json, title="dlfd demo")


def _check_methods(comparison: Comparison, plan: Plan, rows: ResolvedRows) -> None:
    """Refuse a method that cannot run on the data or with the model."""
    for config in comparison.configs:
        check_enough(config, rows, config.runtime.world_size)
    check_methods(comparison, plan.runs[0], rows)


def _carry_out(comparison: Comparison, plan: Plan, title: str) -> Ended:
    first, reader, choices = plan.runs[0].config, DataReader(), Choices(plan)
    data = prepare(first, first.runtime.world_size, reader).data
    _check_methods(comparison, plan, data)
    request, workers = comparison.configs[0], comparison.compare.workers
    with running(plan, "a comparison", request, reader.rows, workers) as runs:
        done = runs.carry_out(choices.ready)
    return Ended(plan, plan.runs, done, runs.failures, choices.records, title)


def _show(ended: Ended, written: Written, *, as_json: bool) -> None:
    missing, rows, findings = written
    report = str(ended.plan.path / "report.html")
    if as_json:
        shown = {
            "summary": rows, **findings.to_dict(), "missing": missing, "tuning": ended.tuning,
            "report": report,
        }  # fmt: skip
        print(json.dumps(shown, indent=2))
        return
    show_missing(missing, ended.failures)
    print()
    show_summary(rows, ended.tuning, findings)
    for line in chosen_lines(ended.tuning):
        print(line)
    print(f"report: {report}")


def _show_plan(
    comparison: Comparison, races: Mapping[str, Race], plan: Plan, *, as_json: bool
) -> None:
    contrasts = plan.for_finisher["contrasts"]
    labels = [run.label for run in plan.runs if run.in_table]
    trials = [run.label for run in plan.runs if run.role == "trial"]
    for_trials = [run.label for run in plan.runs if run.tuning]
    workers = comparison.compare.workers
    values = {
        "runs": labels, "compare": to_dict(comparison.compare),
        "train_seeds": comparison.train_seeds, "trials": trials, "for_trials": for_trials,
        "contrasts": contrasts, "workers": num_workers(comparison.configs[0], workers),
    }  # fmt: skip
    lines = [
        f"# comparison: {counted(len(labels), 'run')} under {comparison.out / 'runs'}, "
        f"{at_a_time(comparison, workers)}, those finished before are reused",
        *indented(labels),
    ]
    if comparison.compare.tune:
        number = sum(len(race.trials) for race in races.values())
        runs = f"{counted(number, 'trial')} in {counted(len(trials), 'run')}"
        lines.append(f"# tuning: {runs} before it, under {comparison.out / 'tuning'}")
        lines += [f"  {label}, for the trials alone" for label in for_trials]
        lines += indented(_trial_lines(comparison, races))
    pairs = ", ".join(f"{subject} against {other}" for subject, other in contrasts["pairs"])
    lines.append(f"# contrasts: {pairs}; tied within {contrasts['margin']:g}")
    show_plan(comparison, plan.runs[0], values, lines, FILES, as_json=as_json)


def _trial_lines(comparison: Comparison, races: Mapping[str, Race]) -> Iterator[str]:
    """Yield per method how many trials it gets and what they search."""
    for config in comparison.configs:
        race = races.get(config.run.name)
        ranges = "; ".join(f"{key}: {span}" for key, span in race.searched.items()) if race else ""
        what = f" ({ranges})" if ranges else ", nothing to search"
        yield f"{config.run.name}: {counted(len(race.trials) if race else 0, 'trial')}{what}"
