"""dlfd search: trials with Ray Tune, the best again with other seeds, the results."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlfd_dist.access import for_others_to_read_only, refuse_foreign
from dlfd_dist.compose import config_text
from dlfd_dist.config import to_dict
from dlfd_dist.data.loaders import ResolvedRows
from dlfd_dist.errors import Stopped
from dlfd_dist.jobs import prepare
from dlfd_dist.jobs.plan import num_steps
from dlfd_dist.logs import setup_console
from dlfd_dist.objectives import OBJECTIVES
from dlfd_dist.plain import counted
from dlfd_dist.run_dir import RunDir, exclusively, write_text
from dlfd_dist.runtime.checkpoint import drop_checkpoints
from dlfd_dist.runtime.env import job_info, refuse_ranks
from dlfd_dist.trackers import catch_up

from ..dry_run import dry_run_text, indented
from ..execute.ranks import cores
from ..execute.task import SIGNALS
from .algorithms import param_space, perturb_every, scheduler, searcher
from .cluster import ADDRESS, Room, gpus_per_rank, local_room, ray_cluster, require_ray
from .identity import claim
from .plan import SearchPlan, check_reference, longest, make_plan, rows_of
from .point import Point, Shared, trial_config
from .progress import Ended, Table, short
from .results import FILES, Row, all_judged, bound_text, candidates, write_all, write_end
from .results import rows_of as result_rows
from .trial import reference_of, untouched_value

logger = logging.getLogger("dlfd_dist.search")


STOPPED_SEARCH = (
    "The search was stopped as asked; the same command with --resume goes on from there."
)


def run_search(
    overrides: Sequence[str], *, resume: bool | None, dry_run: bool, as_json: bool
) -> int:
    """Search the settings of a method and write what was found into run.dir.

    resume: whether there must be a search to go on with; None, as jobs need it: there may be one
    """
    refuse_ranks("dlfd search")
    require_ray()
    plan = make_plan(overrides)
    if dry_run:
        _check_room(plan)
        _print_plan(plan, as_json=as_json)
        return 0
    return search(plan, resume=resume, as_json=as_json)


def search(plan: SearchPlan, *, resume: bool | None, as_json: bool) -> int:
    """Carry a search out, or go on with it; return the exit status."""
    refuse_ranks("dlfd search")
    require_ray()
    _check_room(plan)
    setup_console()
    data = prepare(plan.config, plan.search.workers_per_trial).data
    check_reference(plan, data)
    # Ray unpickles what lies there, also what its workers wrote.
    with for_others_to_read_only():
        claim(plan, data, resume=resume)
        with exclusively(plan.out / "search.lock", "dlfd search"):
            write_text(plan.out / "config.yaml", config_text(plan.config))
            content = _run(plan, data)
    show(plan, content, as_json=as_json)
    return 0 if content["winner"] is not None else 1


def _check_room(plan: SearchPlan) -> None:
    """Refuse a search whose trials need more than this machine has."""
    if plan.search.address is None and ADDRESS not in os.environ:
        room = local_room()
        room.check(plan.search, gpus_per_rank(plan, room))


def _run(plan: SearchPlan, rows: ResolvedRows) -> dict[str, Any]:
    """Run the trials and the replicates of the best; write the results after each."""
    start = time.monotonic()
    every = perturb_every(plan.search, num_steps(plan.config, rows), plan.config.method.probe_every)
    shared = Shared(plan.config, plan.search, reference_of(plan), every)
    with _terminate_as_interrupt(), ray_cluster(plan.search) as room:
        room.check(plan.search, gpus_per_rank(plan, room))
        tuner = _Phases(plan, rows, shared, room)
        trials = result_rows(tuner.trials(), plan.out)
        _drop_stopped(plan, trials)
        untouched = untouched_value(plan, shared.reference)
        write_all(plan, trials, [], [], untouched, time.monotonic() - start)
        replicates, judgements = _replicate(plan, tuner, trials)
    _end_trackers(plan, shared, [*trials, *replicates])
    took = time.monotonic() - start
    content = write_all(plan, trials, replicates, judgements, untouched, took)
    write_end(plan, content, job_info().run_restarts)
    return content


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let TERM and USR2 do what Ctrl-C does, which Tune answers by saving its state.

    Once: a second Ctrl-C would end Tune while it saves, and SLURM sends both.
    """
    heard: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        heard.append(number)
        if len(heard) == 1:
            signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Phases:
    """Runs trials and replicates with Tune, in one Ray."""

    def __init__(self, plan: SearchPlan, rows: ResolvedRows, shared: Shared, room: Room):
        self.plan, self.rows, self.shared, self.room = plan, rows, shared, room
        self.gpus = gpus_per_rank(plan, room)
        self.concurrent = room.at_a_time(plan.search, self.gpus)

    def trials(self) -> list[Ended]:
        """Run the trials, going on with those of an earlier start."""
        from ray.tune import Tuner

        search, folder = self.plan.search, self.plan.ray / "search"
        use = "unpickles what is in it (Ray's tuner.pkl)"
        refuse_foreign(self.plan.out, use, files=("ray/**/*",))
        if Tuner.can_restore(str(folder)):
            tuner = Tuner.restore(
                str(folder), self._trainable(self.shared), resume_unfinished=True,
                restart_errored=True,
            )  # fmt: skip
        else:
            shutil.rmtree(folder, ignore_errors=True)
            tuner = self._tuner("search", self.shared, param_space(self.plan), search.num_samples)
        return self._fit(tuner, search.num_samples, "trial")

    def replicates(self, points: Sequence[dict[str, Any]]) -> list[Ended]:
        """Run settings with other seeds; those finished before are found by signature."""
        from ray import tune

        shutil.rmtree(self.plan.ray / "replicates", ignore_errors=True)
        shared = replace(self.shared, save_every=None)
        tuner = self._tuner("replicates", shared, {"point": tune.grid_search(list(points))}, None)
        return self._fit(tuner, len(points), "replicate")

    def _trainable(self, shared: Shared) -> Any:
        from ray import tune

        from .ranks import resources, tune_trial

        search = self.plan.search
        room = resources(search.cpus_per_trial, self.gpus, search.workers_per_trial)
        function = tune.with_parameters(tune_trial, shared=shared, gpus=self.gpus)
        return tune.with_resources(function, room)

    def _tuner(
        self, name: str, shared: Shared, space: dict[str, Any], num_samples: int | None
    ) -> Any:
        from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner
        from ray.tune.logger import TBXLoggerCallback

        from .follow import Follow

        plan, is_given, choice = self.plan, bool(space), {}
        if num_samples is not None:
            max_steps = longest(plan, self.rows)
            choice = {
                "search_alg": searcher(plan, self.concurrent),
                "scheduler": scheduler(plan, max_steps, self.shared.save_every),
            }
        config = TuneConfig(
            # Tune repeats a grid so many times; every trial stands in it once.
            num_samples=1 if is_given else num_samples or 1,
            max_concurrent_trials=self.concurrent if is_given else None,
            reuse_actors=True,
            trial_dirname_creator=_trial_name,
            **choice,
        )
        run = RunConfig(
            name=name, storage_path=str(plan.ray), verbose=0,
            callbacks=[Follow(), TBXLoggerCallback()],
            # A trial whose process was killed; one that cannot be has told so, and has not failed.
            failure_config=FailureConfig(max_failures=1),
        )  # fmt: skip
        return Tuner(self._trainable(shared), param_space=space, tune_config=config, run_config=run)

    def _fit(self, tuner: Any, total: int, name: str) -> list[Ended]:
        from .follow import Follow

        Follow.table, Follow.ended = Table(self.plan.search, total, name), []
        # Tune announces itself on standard output, which is the result's.
        with contextlib.redirect_stdout(None):
            tuner.fit()
        Follow.table.close()
        done = [trial for trial in Follow.ended if trial.status in ("TERMINATED", "ERROR")]
        if len(done) < total:
            raise Stopped(STOPPED_SEARCH)
        return Follow.ended


def _trial_name(trial: Any) -> str:
    return str(trial.trial_id)


def _drop_stopped(plan: SearchPlan, rows: Sequence[Row]) -> None:
    """Remove the checkpoints that nobody goes on from: no trial of this search runs any more."""
    for row in rows:
        if row["state"] in ("stopped", "failed") and row["run_dir"]:
            drop_checkpoints(plan.out / row["run_dir"] / "checkpoints")
    # Those that a population handed on. (Tune's own limit on their number loses count with pbt.)
    for folder in plan.ray.glob("search/*/checkpoint_*"):
        shutil.rmtree(folder)


def _end_trackers(plan: SearchPlan, shared: Shared, rows: Sequence[Row]) -> None:
    """Close in trackers the trials that were stopped: Tune does not wait until they do it."""
    for row in rows:
        if row["run_dir"]:
            config = trial_config(shared, Point(row["settings"], row["seed"]))
            catch_up(config, RunDir(plan.out / row["run_dir"]), list)


def _replicate(
    plan: SearchPlan, phases: _Phases, rows: Sequence[Row]
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Run the candidates with other seeds; return the replicates, and what they make of each."""
    chosen = candidates(rows, plan.search)
    points = [
        {"settings": row["settings"], "seed": seed} for row in chosen for seed in plan.seeds()
    ]
    if not points:
        return [], []
    return all_judged(plan, chosen, result_rows(phases.replicates(points), plan.out))


def show(plan: SearchPlan, content: dict[str, Any], *, as_json: bool) -> None:
    """Print what a search found."""
    files = {name: str(plan.out / name) for name in FILES}
    if as_json:
        print(json.dumps({**content, "files": files}, indent=2, sort_keys=True))
        return
    rows = content["rows"]
    states = Counter(row["state"] for row in rows)
    print(f"trials     {', '.join(f'{number} {state}' for state, number in states.items())}")
    for row in rows:
        if row["state"] == "failed":
            print(f"failed     trial {row['trial']}: {row['failed']}")
    if content["winner"] is None:
        print(content["reason"])
        return
    _show_choice(content)
    for name, path in files.items():
        if Path(path).is_file():
            print(f"{name:10} {path}")


def _show_choice(content: dict[str, Any]) -> None:
    """Print the candidates and the settings that were chosen."""
    rows = {row["trial"]: row for row in content["rows"]}
    print(f"objective  {content['title']}")
    for candidate in content["candidates"]:
        if candidate["mean"] is not None:
            number, values = candidate["trial"], candidate["values"]
            mark = "*" if number == content["winner"] else " "
            print(
                f"{mark} trial {number:3d} in the search {rows[number]['objective']:.3f}, mean of "
                f"{len(values)} other seeds {candidate['mean']:.3f}, "
                f"{bound_text(candidate['bound'], 3)}"
            )
    best = rows[content["winner"]]
    settings = " ".join(f"{name}={short(value)}" for name, value in best["settings"].items())
    print(f"chosen     trial {best['trial']}: {settings}")
    for name, share in list(content["importance"].items())[:5]:
        print(f"importance {share:5.1%} {name}")


def _gpus_in_words(gpus_per_rank: float, room: Room) -> str:
    if gpus_per_rank:
        return f"GPUs: {gpus_per_rank:g} for each rank of a trial, of {room.gpus:g} here"
    if room.gpus:
        return f"GPUs: none is used of {room.gpus:g} here (search.gpus_per_trial, runtime.device)"
    return "GPUs: none is used, for torch sees none here; trials run on CPUs"


def _print_plan(plan: SearchPlan, *, as_json: bool) -> None:
    rows, search = rows_of(plan, draw=False), plan.search
    room = local_room()
    gpus = gpus_per_rank(plan, room)
    at_a_time = room.at_a_time(search, gpus)
    steps = longest(plan, rows)
    space = {name: str(values) for name, values in plan.space.items()}
    values = {
        "config": to_dict(plan.config), "search": to_dict(search), "space": space,
        "at_a_time": at_a_time, "max_steps": steps, "gpus_per_rank": gpus,
    }  # fmt: skip
    lines = [
        config_text(plan.config),
        f"# search: {counted(search.num_samples, 'trial')} of method={plan.config.method.name}, "
        f"{at_a_time} at a time on {counted(cores(), 'core')}, at most {steps} steps each",
        f"# {_gpus_in_words(gpus, room)}",
        f"# sampler {search.sampler}, scheduler {search.scheduler}, "
        f"by {OBJECTIVES[search.objective].title}",
        *indented(f"{name}: {ranges}" for name, ranges in space.items()),
        f"# then the best {search.replicate} again with {search.replicate_seeds} other seeds"
        if search.replicate
        else "# the best trial wins, by one seed",
    ]
    files = [str(plan.out / name) for name in FILES]
    print(dry_run_text(values, lines, files, as_json=as_json))
