"""What is asked of a cluster: the words after `dlfd doctor slurm`, or `dlfd doctor`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dlfd_dist.compose import split_cluster
from dlfd_dist.config import ClusterConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.registry import near_match


@dataclass(frozen=True)
class Question:
    """What is asked of a cluster."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    nodes: int = 2
    gpus_per_node: int = 0
    shared: str = "."
    """The folder that runs will be written to."""
    python: str = sys.executable
    wait_s: int = 300
    """How long the probe job may wait and run."""
    site: ClusterConfig = field(default_factory=ClusterConfig)
    """What cluster=NAME says: the probe job is asked for as the jobs of a campaign would be."""


def read_question(words: Sequence[str]) -> Question:
    """Return the question that key=value words ask; what cluster=NAME says comes first."""
    of_site = [word for word in words if word.startswith(("cluster=", "cluster."))]
    question = _question_of(split_cluster(of_site)[0]) if of_site else Question()
    kinds = {
        setting.name: type(setting.default)
        for setting in fields(Question)
        if setting.name != "site"
    }
    given: dict[str, Any] = {}
    for word in (word for word in words if word not in of_site):
        name, separator, value = word.partition("=")
        if name not in kinds or not separator:
            raise ConfigError(
                f"'{word}' is not understood. 'dlfd doctor' takes, of a cluster, cluster=NAME, "
                + ", ".join(f"{known}=" for known in kinds)
                + f".{near_match(name, kinds)}"
            )
        given[name] = _number(name, value) if kinds[name] is int else value
    return replace(question, **given)


def _question_of(site: ClusterConfig) -> Question:
    if site.kind != "slurm":
        raise ConfigError(
            f"cluster.kind={site.kind} is this machine: 'dlfd doctor' without words checks it."
        )
    return Question(
        site.partition or "", site.account or "", site.qos or "", nodes=site.nodes or 2,
        gpus_per_node=0 if site.gpus == "none" else site.tasks_per_node or site.max_tasks_per_node,
        python=site.python or sys.executable, site=site,
    )  # fmt: skip


def _number(name: str, value: str) -> int:
    least = 0 if name == "gpus_per_node" else 1
    if not value.isdecimal() or int(value) < least:
        raise ConfigError(f"{name}='{value}' is not a whole number from {least} up.")
    return int(value)
