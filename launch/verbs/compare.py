"""dlfd compare: methods x seeds against Original and Retrained; no run is done twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from dlfd_dist.compose import with_sweep
from dlfd_dist.config import to_dict
from dlfd_dist.data.loaders import DataReader, ResolvedRows, resolve_rows
from dlfd_dist.errors import ConfigError
from dlfd_dist.jobs import prepare
from dlfd_dist.jobs.context import check_enough
from dlfd_dist.logs import setup_console
from dlfd_dist.plain import counted
from dlfd_dist.report.records import read_comparison
from dlfd_dist.report.summary import findings_of, summarise
from dlfd_dist.report.tuning import chosen_lines

from ..dry_run import indented
from ..execute.here import num_workers, running
from ..plan.compare import comparison_of
from ..plan.comparison import (
    Comparison,
    measurement_runs,
    training_runs,
    unlearning_runs,
    with_models,
)
from ..plan.contrasts import named_contrasts
from ..plan.runs import Run
from ..plan.trial_people import tuning_measurements, tuning_models
from ..plan.tuning import (
    Trial,
    judged,
    plan_trials,
    searched,
    trial_runs,
    tuned_configs,
    tuning_record,
)
from ..results.compare import FILES, Outcome, write_results
from ..results.report import show_summary
from .staged import at_a_time, check_configs, check_methods, show_missing, show_plan


def run_compare(
    overrides: Sequence[str], *, dry_run: bool, as_json: bool, title: str = "Comparison"
) -> int:
    """Run a comparison and write table, summary and page into run.dir."""
    comparison = comparison_of(with_sweep(overrides))
    _check(comparison)
    if dry_run:
        first = comparison.configs[0]
        _check_methods(comparison, resolve_rows(first.data, first.drawn_forget, draw=False))
        _show_plan(comparison, as_json=as_json)
        return 0
    setup_console()
    outcome = _run(comparison)
    missing = write_results(comparison.out, outcome, title)
    _show(comparison, outcome, missing, as_json=as_json)
    return 1 if missing else 0


def _check(comparison: Comparison) -> None:
    if not comparison.configs[0].names_people:
        raise ConfigError("Nobody to forget: give forget.request=FILE or forget.fraction=0.2.")
    check_configs("compare", comparison, comparison.configs)


def _check_methods(comparison: Comparison, rows: ResolvedRows) -> None:
    """Refuse a method that cannot run on the data or with the model."""
    for config in comparison.configs:
        check_enough(config, rows, config.runtime.world_size)
    check_methods(comparison, training_runs(comparison)[0], rows)


def _wanted(comparison: Comparison) -> list[Run]:
    """Return the runs of the table, with every method's own settings."""
    return [
        *training_runs(comparison), *measurement_runs(comparison),
        *unlearning_runs(comparison, comparison.configs),
    ]  # fmt: skip


def _run(comparison: Comparison) -> Outcome:
    """Run the stages: Original and Retrained, the trials, the methods on every seed."""
    trainings, trials = training_runs(comparison), plan_trials(comparison)
    first = trainings[0].config
    reader = DataReader()
    data = prepare(first, first.runtime.world_size, reader).data
    _check_methods(comparison, data)
    wanted, retrained = _wanted(comparison), tuning_models(comparison)
    tries = [*tuning_measurements(comparison), *trial_runs(trials)]
    workers = num_workers(comparison.configs[0], comparison.compare.workers)
    total = len(wanted) + len(retrained) + len(tries)
    with running("compare", comparison, reader.rows, workers=workers, total=total) as runs:
        models = runs.models([*trainings, *retrained])
        done = models | runs.run(with_models([*measurement_runs(comparison), *tries], models))
        trials = judged(comparison, trials, done)
        tuned = unlearning_runs(comparison, tuned_configs(comparison, trials))
        done |= runs.run(with_models(tuned, models))
        tuning = tuning_record(comparison, trials) if comparison.compare.tune else None
        data_title, contrasts = data.manifest.title, named_contrasts(comparison)
        return Outcome(wanted, done, runs.failures, tuning, data_title, contrasts)


def _show(
    comparison: Comparison, outcome: Outcome, missing: Sequence[str], *, as_json: bool
) -> None:
    records = read_comparison(comparison.out).records
    rows, findings = summarise(records), findings_of(records, outcome.contrasts)
    report = str(comparison.out / "report.html")
    if as_json:
        shown = {
            "summary": rows, **findings.to_dict(), "missing": missing, "tuning": outcome.tuning,
            "report": report,
        }  # fmt: skip
        print(json.dumps(shown, indent=2))
        return
    show_missing(missing, outcome.failures)
    print()
    show_summary(rows, outcome.tuning, findings)
    for line in chosen_lines(outcome.tuning):
        print(line)
    print(f"report: {report}")


def _show_plan(comparison: Comparison, *, as_json: bool) -> None:
    wanted, trials = _wanted(comparison), plan_trials(comparison)
    labels, contrasts = [run.label for run in wanted], named_contrasts(comparison)
    for_trials = [*tuning_models(comparison), *tuning_measurements(comparison)]
    workers = comparison.compare.workers
    values = {
        "runs": labels, "compare": to_dict(comparison.compare),
        "train_seeds": comparison.train_seeds,
        "trials": [run.label for run in trial_runs(trials)],
        "for_trials": [run.label for run in for_trials], "contrasts": contrasts,
        "workers": num_workers(comparison.configs[0], workers),
    }  # fmt: skip
    lines = [
        f"# comparison: {counted(len(labels), 'run')} under {comparison.out / 'runs'}, "
        f"{at_a_time(comparison, workers)}, those finished before are reused",
        *indented(labels),
    ]
    if comparison.compare.tune:
        runs = f"{counted(len(trials), 'trial')} in {counted(len(trial_runs(trials)), 'run')}"
        lines.append(f"# tuning: {runs} before it, under {comparison.out / 'tuning'}")
        lines += [f"  {run.label}, for the trials alone" for run in for_trials]
        lines += indented(_trial_lines(comparison, trials))
    pairs = ", ".join(f"{subject} against {other}" for subject, other in contrasts["pairs"])
    lines.append(f"# contrasts: {pairs}; tied within {contrasts['margin']:g}")
    show_plan(comparison, wanted[0], values, lines, FILES, as_json=as_json)


def _trial_lines(comparison: Comparison, trials: Sequence[Trial]) -> Iterator[str]:
    """Yield per method how many trials it gets and what they search."""
    for config in comparison.configs:
        number = sum(trial.name == config.run.name for trial in trials)
        spans = searched(config, comparison.given)
        ranges = "; ".join(f"{key}: {span}" for key, span in spans.items())
        what = f" ({ranges})" if ranges else ", nothing to search"
        yield f"{config.run.name}: {counted(number, 'trial')}{what}"
