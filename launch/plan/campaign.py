"""A campaign: any grid of runs as a DAG, original and retrained -> unlearn -> report.

A run evaluates itself, so that a stage `evaluate` exists only where that is the verb. Nothing is
written and no scheduler is asked here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dlfd_dist.config import ClusterConfig, JobConfig
from dlfd_dist.config.words import key_of, value_of

from .check import Check
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


def _compare_campaign(verb: str, words: Sequence[str], cluster: ClusterConfig) -> Plan:
    from .compare import comparison_of
    from .few import too_few
    from .linked import comparison_plan
    from .tuning import races_of

    comparison, check = comparison_of(words), Check(cluster)
    plan = check.plan(comparison_plan(comparison, races_of(comparison), verb, words, cluster))
    first = plan.runs[0].config
    return replace(plan, warning=too_few(check.read(first.data, first.drawn_forget)))


def _audit_campaign(words: Sequence[str]) -> Plan:
    from dlfd_dist.compose import split_cluster

    from .audit import audit_of
    from .linked import audit_plan

    # The first word is the kind of audit, which is no setting.
    cluster, rest = split_cluster(words[1:])
    words = [*words[:1], *rest]
    return Check(cluster).plan(audit_plan(audit_of(words), words, cluster))


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
