"""dlfd compare: methods x seeds against Original and Retrained; no run is done twice."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlfd_dist.compose import config_text, with_sweep
from dlfd_dist.config import JobConfig, to_dict
from dlfd_dist.data.loaders import DataReader, ResolvedRows, resolve_rows
from dlfd_dist.errors import ConfigError, RunDirError
from dlfd_dist.jobs import prepare
from dlfd_dist.jobs.context import check_enough
from dlfd_dist.jobs.models import model_outline
from dlfd_dist.jobs.plan import plan as plan_run
from dlfd_dist.logs import setup_console
from dlfd_dist.methods import methods
from dlfd_dist.report.records import read_comparison
from dlfd_dist.report.summary import findings_of, summarise
from dlfd_dist.report.tables import (
    text_table,
)
from dlfd_dist.report.tuning import chosen_lines
from dlfd_dist.run_dir import exclusively, write_text
from dlfd_dist.runtime.env import RankInfo, refuse_ranks
from dlfd_dist.runtime.init import pick_device

from ..execute.here import Progress, Runs, stop_signals
from ..execute.ranks import cores
from ..execute.workers import Workers
from ..plan.compare import make_plan, measurement_runs, training_runs, unlearning_runs, with_models
from ..plan.contrasts import named_contrasts
from ..plan.runs import Plan
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
from ..results.compare import FILES, Ran, write_results
from .run import print_dry_run


def run_compare(
    overrides: Sequence[str], *, dry_run: bool, as_json: bool, title: str = "Comparison"
) -> int:
    """Run a comparison and write table, summary and page into run.dir."""
    plan = make_plan(with_sweep(overrides))
    _check(plan)
    for variant in plan.left_out:
        print(f"left out: {variant}", file=sys.stderr)
    if dry_run:
        first = plan.configs[0]
        _check_methods(plan, resolve_rows(first.data, first.drawn_forget, draw=False))
        _print_plan(plan, as_json=as_json)
        return 0
    setup_console()
    ran = _run(plan)
    missing = write_results(plan.out, ran, title)
    _show(plan, ran, missing, as_json=as_json)
    return 1 if missing else 0


def _check(plan: Plan) -> None:
    refuse_ranks("dlfd compare")
    if not plan.configs[0].names_people:
        raise ConfigError("Nobody to forget: give forget.request=FILE or forget.fraction=0.2.")
    for config in plan.configs:
        config.validate(config.runtime.world_size)


def _check_methods(plan: Plan, rows: ResolvedRows) -> None:
    """Refuse a method that cannot run on the data or with the model."""
    model = model_outline(plan.configs[0], rows)
    for config in plan.configs:
        check_enough(config, rows, config.runtime.world_size)
        methods.get(config.method.name).check(config.method, model)


def num_workers(config: JobConfig, wanted: int | None) -> int:
    """Return the number wanted, else one per core; runs on a GPU do not share it unasked."""
    on_gpu = pick_device(config.runtime, RankInfo()).type == "cuda"
    return wanted or (1 if on_gpu else cores())


def _workers_of(plan: Plan) -> int:
    return num_workers(plan.configs[0], plan.compare.workers)


def _run(plan: Plan) -> Ran:
    """Run the stages: Original and Retrained, the trials, the methods on every seed."""
    trainings, trials = training_runs(plan), plan_trials(plan)
    first = trainings[0].config
    reader = DataReader()
    data = prepare(first, first.runtime.world_size, reader).data
    _check_methods(plan, data)
    measurements, unlearnings = measurement_runs(plan), unlearning_runs(plan, plan.configs)
    wanted = [*trainings, *measurements, *unlearnings]
    retrained, tries = tuning_models(plan), [*tuning_measurements(plan), *trial_runs(trials)]
    with (
        stop_signals() as stop,
        claimed(plan.out, plan.configs[0]),
        Workers(_workers_of(plan)) as workers,
        Progress(len(wanted) + len(retrained) + len(tries)) as progress,
    ):
        runs = Runs(reader.rows, workers, progress, stop)
        models = runs.run([*trainings, *retrained])
        done = models | runs.run(with_models([*measurements, *tries], models))
        trials = judged(plan, trials, done)
        tuned = unlearning_runs(plan, tuned_configs(plan, trials))
        done |= runs.run(with_models(tuned, models))
        tuning = tuning_record(plan, trials) if plan.compare.tune else None
        return Ran(wanted, done, runs.failures, tuning, data.manifest.title, named_contrasts(plan))


@contextlib.contextmanager
def claimed(out: Path, config: JobConfig, verb: str = "compare") -> Iterator[None]:
    """Hold the directory of a comparison or an audit; RunDirError if that cannot be.

    Parameters
    ----------
    out : it may be new or begun before
    config : what stands in its config.yaml
    """
    what = {"compare": "a comparison", "audit": "an audit"}[verb]
    try:
        is_other = out.exists() and (not out.is_dir() or any(out.iterdir()))
        if is_other and not (out / "runs").is_dir():
            raise RunDirError(f"run.dir={out} exists and is not {what}: choose another directory.")
        (out / "runs").mkdir(parents=True, exist_ok=True)
        lock = out / f"{verb}.lock"
        lock.open("a").close()
    except OSError as err:
        raise RunDirError(
            f"run.dir={out} cannot be written ({err.strerror}): free some space or choose another "
            "directory."
        ) from err
    with exclusively(lock, f"dlfd {verb}"):
        write_text(out / "config.yaml", config_text(config))
        yield


def _show(plan: Plan, ran: Ran, missing: Sequence[str], *, as_json: bool) -> None:
    out = plan.out
    records = read_comparison(out).records
    rows, findings = summarise(records), findings_of(records, ran.contrasts)
    report = str(out / "report.html")
    if as_json:
        shown = {
            "summary": rows, **findings.to_dict(), "missing": missing, "tuning": ran.tuning,
            "report": report,
        }  # fmt: skip
        print(json.dumps(shown, indent=2))
        return
    for label in missing:
        why = ran.failures.get(label, "a run that it needs did not finish.")
        print(f"not finished: {label}: {why}")
    print()
    print(text_table(rows, ran.tuning, findings))
    for line in chosen_lines(ran.tuning):
        print(line)
    print(f"report: {report}")


def _print_plan(plan: Plan, *, as_json: bool) -> None:
    first = training_runs(plan)[0].config
    trials = plan_trials(plan)
    wanted = [
        *training_runs(plan), *measurement_runs(plan), *unlearning_runs(plan, plan.configs)
    ]  # fmt: skip
    names = [one.label for one in wanted]
    contrasts = named_contrasts(plan)
    files = [str(plan.out / name) for name in FILES]
    if as_json:
        shown: dict[str, Any] = {
            "dry_run": True, "config": to_dict(plan.configs[0]), "plan": plan_run(first)["plan"],
            "runs": names, "compare": to_dict(plan.compare), "train_seeds": plan.train_seeds,
            "trials": [run.label for run in trial_runs(trials)], "workers": _workers_of(plan),
            "for_trials": [run.label for run in [*tuning_models(plan), *tuning_measurements(plan)]],
            "files": files, "contrasts": contrasts,
        }  # fmt: skip
        print(json.dumps(shown, indent=2, sort_keys=True))
        return
    print_dry_run([first], as_json=False)
    print(
        f"# comparison: {len(names)} runs under {plan.out / 'runs'}, {_at_a_time(plan)}, those "
        "finished before are reused"
    )
    for name in names:
        print(f"  {name}")
    if plan.compare.tune:
        runs = f"{len(trials)} trials in {len(trial_runs(trials))} runs"
        print(f"# tuning: {runs} before it, under {plan.out / 'tuning'}")
        for one in [*tuning_models(plan), *tuning_measurements(plan)]:
            print(f"  {one.label}, for the trials alone")
        for line in _trial_lines(plan, trials):
            print(f"  {line}")
    pairs = ", ".join(f"{subject} against {other}" for subject, other in contrasts["pairs"])
    print(f"# contrasts: {pairs}; tied within {contrasts['margin']:g}")
    print("# files that would be written")
    for file in files:
        print(f"  {file}")


def _at_a_time(plan: Plan) -> str:
    world_size = plan.configs[0].runtime.world_size
    if world_size > 1:
        return f"one at a time on {world_size} ranks"
    return f"{_workers_of(plan)} at a time"


def _trial_lines(plan: Plan, trials: Sequence[Trial]) -> Iterator[str]:
    """Yield per method how many trials it gets and what they search."""
    for config in plan.configs:
        number = sum(trial.name == config.run.name for trial in trials)
        spans = searched(config, plan.given)
        ranges = "; ".join(f"{key}: {span}" for key, span in spans.items())
        what = f" ({ranges})" if ranges else ", nothing to search"
        yield f"{config.run.name}: {number} trials{what}"
