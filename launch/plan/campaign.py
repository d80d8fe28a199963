"""A campaign: any grid of runs as a DAG, original and retrained -> unlearn -> report.

A run evaluates itself, so that a stage `evaluate` exists only where that is the verb. Nothing is
written and no scheduler is asked here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dlfd_dist.config import ClusterConfig, JobConfig, to_dict
from dlfd_dist.config.words import key_of, value_of

from .check import Check, CheckedStages
from .runs import Plan, Run, digest, file_name


def plan_campaign(verb: str, words: Sequence[str]) -> Plan:
    """Return the plan of the runs that `dlfd submit VERB ...` asks for, every run validated."""
    from dlfd_dist.compose import split_cluster, with_sweep

    if verb == "audit":
        return _audit_campaign(words)
    cluster, rest = split_cluster(words)
    if verb == "compare":
        rest = with_sweep(rest)
    keys = set(map(key_of, rest))
    if verb == "compare" or (verb == "unlearn" and "checkpoint" not in keys):
        if verb == "unlearn" and "method" not in keys:
            rest.append("method=dlfd")
        return _compare_campaign(verb, rest, cluster)
    return _grid_campaign(verb, rest, cluster)


# --- comparisons: methods x seeds on their own Original and Retrained


def _compare_campaign(verb: str, words: Sequence[str], cluster: ClusterConfig) -> Plan:
    from .compare import comparison_of
    from .contrasts import named_contrasts
    from .few import too_few
    from .tuning import races_of, stages_of, tuning_record

    comparison = comparison_of(words)
    races = races_of(comparison)
    planned = stages_of(comparison, races)
    stages = CheckedStages(planned.models, cluster)
    trials, measurements = stages.start(planned.trials), stages.start(planned.measurements)
    originals = {
        pair.original for race in races.values() for trial in race.trials for pair in trial.against
    }
    needed = [run.key for run in measurements if run.label in originals]
    methods = _after_trials(stages.start(planned.methods), trials, needed)
    for_finisher = {
        "contrasts": named_contrasts(comparison),
        "tuning": tuning_record(comparison, {}),
        "races": {name: race.values() for name, race in races.items()},
    }
    runs = [*stages.trained, *trials, *measurements, *methods]
    first = runs[0].config
    return Plan(
        comparison.out.absolute(), verb, list(words), cluster, runs, "comparison", for_finisher,
        comparison.left_out, too_few(stages.check.read(first.data, first.drawn_forget)),
    )  # fmt: skip


def _after_trials(
    methods: Sequence[Run], trials: Sequence[Run], measured: Sequence[str]
) -> list[Run]:
    """Let every run of a method wait for the end of the method's trials, which choose its settings.

    The directory of such a run is known when the run has begun: the attempts tell it.

    Parameters
    ----------
    measured : keys of the runs that say what the untouched Original is worth to the trials
    """
    by_title: dict[str, list[str]] = {}
    for trial in trials:
        by_title.setdefault(trial.title, []).append(trial.key)
    runs = []
    for run in methods:
        after = tuple(by_title.get(run.title, ()))
        if after:
            after = (*after, *measured)
            key = digest("-".join([run.key, *after]))
            run = replace(run, key=key, after=after, directory=None)
        runs.append(run)
    return runs


def _audit_campaign(words: Sequence[str]) -> Plan:
    from dlfd_dist.compose import split_cluster

    from .audit import audit_of, trainings, unlearnings

    # The first word is the kind of audit, which is no setting.
    cluster, rest = split_cluster(words[1:])
    words = [*words[:1], *rest]
    audit = audit_of(words)
    runs = []
    for seed in audit.seeds:
        # Each shadow model forgets people of its own.
        trained, unlearned = (
            [run for run in stage if run.train_seed == seed]
            for stage in (trainings(audit), unlearnings(audit))
        )
        stages = CheckedStages(trained, cluster)
        runs += [*stages.trained, *stages.start(unlearned)]
    for_finisher = {"kind": audit.kind, "audit": to_dict(audit.settings)}
    return Plan(
        audit.out.absolute(), "audit", list(words), cluster, runs, "audit", for_finisher,
        audit.comparison.left_out,
    )  # fmt: skip


def _grid_campaign(verb: str, words: Sequence[str], cluster: ClusterConfig) -> Plan:
    from dlfd_dist.compose import expand_grid

    from .comparison import placed

    points = expand_grid(words)
    keys = dict.fromkeys(map(key_of, points[0]))
    listed = [key for key in keys if len({value_of(point, key) for point in points}) > 1]
    composed = list(_compose_points(verb, points))
    out = Path(composed[0].run.dir or f"runs/{verb}-{digest(json.dumps(sorted(words)))}").absolute()
    runs = []
    for point, config in zip(points, composed, strict=True):
        title = " ".join(f"{key}={value_of(point, key)}" for key in listed) or verb
        name = file_name(title)[:80]
        runs.append(Run(title, verb, config.seed, placed(config, out / "runs", name)))
    return Plan(out, verb, list(words), cluster, Check(cluster)(runs), "page")


def _compose_points(verb: str, points: Sequence[Sequence[str]]) -> Iterator[JobConfig]:
    """Yield the configurations; points that differ by their seed alone are composed once."""
    from dlfd_dist.compose import compose_job

    known: dict[tuple[str, ...], JobConfig] = {}
    for point in points:
        seed = value_of(point, "seed")
        rest = tuple(word for word in point if not word.startswith("seed="))
        if rest in known and seed.isdecimal():
            yield replace(known[rest], seed=int(seed))
        else:
            yield known.setdefault(rest, compose_job(verb, point))
