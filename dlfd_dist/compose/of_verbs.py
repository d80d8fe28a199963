"""The settings of the verbs themselves: compare.*, audit.*, search.* and cluster.*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import AuditConfig, ClusterConfig, CompareConfig, SearchConfig
from ..resources import resource_dir
from .groups import group_override
from .overrides import parse, split
from .typed import build, read_settings


def split_compare(overrides: Sequence[str]) -> tuple[CompareConfig, list[str]]:
    """Return the settings of `dlfd compare` itself, and the overrides that its runs are made of.

    >>> split_compare(["compare.train_seeds=0,1", "seed=3"])[1]
    ['seed=3']
    """
    values, rest = split("compare", overrides)
    seeds = values.get("train_seeds")
    # A bool is an int too; it is refused where the types are checked.
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        values["train_seeds"] = [seeds]
    if isinstance(values.get("contrasts"), str):
        values["contrasts"] = [values["contrasts"]]
    return build(CompareConfig, values, "compare."), rest


def split_audit(overrides: Sequence[str]) -> tuple[AuditConfig, list[str]]:
    """Return the settings of `dlfd audit` itself, and the overrides that its runs are made of.

    >>> split_audit(["audit.models=4", "seed=3"])[1]
    ['seed=3']
    """
    values, rest = split("audit", overrides)
    return build(AuditConfig, values, "audit."), rest


def split_cluster(overrides: Sequence[str]) -> tuple[ClusterConfig, list[str]]:
    """Return the settings of the cluster (cluster=NAME, cluster.key=value), and what is left.

    >>> split_cluster(["cluster=local", "cluster.nodes=2", "seed=0,1"])[1]
    ['seed=0,1']
    """
    values, rest = split_group("cluster", overrides, "slurm_generic")
    if isinstance(values.get("pack"), int):
        values["pack"] = str(values["pack"])
    return build(ClusterConfig, values, "cluster."), rest


def split_search(overrides: Sequence[str]) -> tuple[SearchConfig, list[str]]:
    """Return the settings of `dlfd search` (search=NAME, search.key=value), and what is left.

    >>> split_search(["search=asha", "search.num_samples=5", "seed=3"])[1]
    ['seed=3']
    """
    values, rest = split_group("search", overrides, "asha")
    return build(SearchConfig, values, "search."), rest


def split_group(
    group: str, overrides: Sequence[str], default: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the values of a group's chosen file and of its settings, and the other overrides."""
    given, rest = split(group, overrides)
    chosen = [parsed for parsed in parse(rest) if parsed.key_or_group == group]
    for parsed in chosen:
        group_override(parsed)
    name = str(chosen[-1].value()) if chosen else default
    values = read_settings(resource_dir("configs") / group / f"{name}.yaml") | given
    return values, [word for word in rest if word.partition("=")[0] != group]
