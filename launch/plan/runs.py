"""The record of a run, and the record of a plan: its runs, the cluster, and who finishes it.

torch and Hydra are not loaded: status and logs read plans too.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dlfd_dist.access import PRIVATE
from dlfd_dist.config import ClusterConfig, JobConfig, to_dict
from dlfd_dist.errors import RunDirError
from dlfd_dist.run_dir import RunDir

from .shape import LaunchSpec

TRAINED = ("original", "retrained", "control")
"""The roles of the models that a comparison or an audit trains, and measures."""


@dataclass(frozen=True)
class Run:
    """One run of a plan."""

    label: str
    """The name of the run, such as `dlfd seed 1`; no two runs of a request share one."""
    role: str
    """original, retrained, control, trial, method, search, or the verb of a grid"""
    train_seed: int
    settings: JobConfig | Mapping[str, Any]
    """The configuration; of a run from a plan file its plain values (see `config`)."""
    variant: str = ""
    """What sets the run apart from other runs of its method, such as `dynamic=False`."""
    draw: int | None = None
    """The seed of the people drawn, where they are others than those that the seed draws: of a
    trained model that is held against them, and of a trial."""
    tuning: bool = False
    """Whether trials alone are held against this model, so that it is in no row of the table."""

    # What `plan.linked` fills in.
    key: str = ""
    """What other runs name this run by: the label or, once it is checked, 8 hex digits of the
    signature or, before its models exist, of settings and parents."""
    parents: tuple[str, ...] = ()
    """Keys of the runs whose models this run starts from."""
    after: tuple[str, ...] = ()
    """Keys of the runs that must have ended before this run, well or not."""

    # What `plan.check` fills in for runs that are submitted.
    spec: LaunchSpec = field(default_factory=LaunchSpec)
    directory: str | None = None
    """The run directory, where it is known before the run."""
    rank_seconds: float = 0.0
    """The estimated seconds on one rank."""

    @functools.cached_property
    def config(self) -> JobConfig:
        """The configuration. To read all settings of a run from a plan file takes some 10 ms."""
        if isinstance(self.settings, JobConfig):
            return self.settings
        from dlfd_dist.compose import job_from_dict

        return job_from_dict(dict(self.settings))

    def with_config(self, config: JobConfig) -> Run:
        return replace(self, settings=config)

    def setting(self, name: str) -> Any:
        """Return the value of one setting, such as `method.name`; the others are not read."""
        value: Any = self.settings
        for part in name.split("."):
            value = value[part] if isinstance(value, Mapping) else getattr(value, part)
        return value

    @property
    def verb(self) -> str:
        return "search" if self.role == "search" else self.setting("verb")

    @property
    def trains(self) -> bool:
        """Whether the run trains a model that others start from."""
        return self.role in TRAINED and self.verb == "train"

    @property
    def stage(self) -> int:
        """0: it starts from no other run. 1: it measures a trained model, or tries a method on it.
        2: a method, with its own settings or those that trials chose."""
        return 2 if self.role == "method" else 1 if self.parents else 0

    @property
    def in_table(self) -> bool:
        """Whether the run has a row in the table of a comparison; trials have none."""
        return not self.tuning and self.role != "trial"

    @property
    def seed(self) -> int:
        """The seed in the run's row of the table."""
        return self.setting("seed") if self.draw is None else self.draw

    @property
    def method(self) -> str | None:
        return self.setting("method.name") if self.verb == "unlearn" else None

    @property
    def title(self) -> str:
        """The method with its variant, or the role of a run without a method."""
        return f"{self.method} {self.variant}".strip() if self.method else self.role


def digest(text: str, length: int = 8) -> str:
    """Return the first hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_name(title: str) -> str:
    """Return a title as the name of a file.

    >>> file_name("dlfd dynamic=False")
    'dlfd-dynamic=False'
    """
    return "".join(c if c.isalnum() or c in "=-._" else "-" for c in title)


def campaign_name(path: Path) -> str:
    """Return 8 hex digits of the directory: in job names, so that squeue tells campaigns apart."""
    return digest(str(path.absolute()))


@dataclass(frozen=True)
class Plan:
    """The runs that a command line asks for."""

    path: Path
    """The directory of the comparison, the audit or the campaign."""
    verb: str
    words: list[str]
    cluster: ClusterConfig
    runs: list[Run]
    finisher: str
    """The name of what makes the report of the finished runs (`results.campaign.WRITERS`)."""
    for_finisher: dict[str, Any] = field(default_factory=dict)
    """What jobs and the report need of the request, in plain values: no job reads the words."""
    left_out: list[str] = field(default_factory=list)
    """Variants that cannot be, each with the reason."""
    warning: str = ""
    """What the user is told before the runs, which go on all the same."""
    directories: dict[str, str] = field(default_factory=dict)
    """The directories of runs that have begun, by key, beyond those that the runs name."""

    @property
    def name(self) -> str:
        return campaign_name(self.path)

    @property
    def mode(self) -> str:
        """Mode of the directories that the runs make (run.mode)."""
        return self.runs[0].setting("run.mode") if self.runs else PRIVATE

    @property
    def stages(self) -> list[list[Run]]:
        """The runs by stage: what shares a stage waits for nothing in it.

        A trial may fail and end what comes after it on the same ranks: trials are last.
        """
        in_order = sorted(self.runs, key=lambda run: (run.stage, run.role == "trial"))
        return [list(stage) for _, stage in itertools.groupby(in_order, lambda run: run.stage)]

    @functools.cached_property
    def by_key(self) -> dict[str, Run]:
        return {run.key: run for run in self.runs}

    def finished(self) -> dict[str, Path]:
        """Return the directories of the runs that are finished, by key."""
        known = {run.key: run.directory for run in self.runs if run.directory} | self.directories
        paths = {run.key: Path(known[run.key]) for run in self.runs if run.key in known}
        return {key: path for key, path in paths.items() if RunDir(path).finished()}

    def text(self) -> str:
        """Return the plan file: everything that tasks, retry and report need."""
        values = {name: getattr(self, name) for name in IN_FILE}
        values |= {"cluster": to_dict(self.cluster), "runs": [to_dict(run) for run in self.runs]}
        return json.dumps(values, sort_keys=True) + "\n"

    @functools.cached_property
    def plan_name(self) -> str:
        """Name of the plan file, from its content: the same request again writes the same file."""
        return digest(self.text(), 12) + ".json"


IN_FILE = ("verb", "words", "cluster", "runs", "finisher", "for_finisher")


def read_plan(campaign: Path, name: str) -> Plan:
    """Return the plan of a campaign from its file; RunDirError for that of another version."""
    file = campaign / "plans" / name
    values = json.loads(file.read_text(encoding="utf-8"))
    try:
        runs = [_read_run(run) for run in values.pop("runs")]
        cluster = ClusterConfig(**values.pop("cluster"))
        return Plan(campaign, runs=runs, cluster=cluster, **values)
    except (KeyError, TypeError) as err:
        raise RunDirError(
            f"{file} was written by another version of dlfd: take that version for this campaign, "
            "or submit to another run.dir."
        ) from err


def _read_run(values: Mapping[str, Any]) -> Run:
    read: dict[str, Any] = {name: tuple(values[name]) for name in ("parents", "after")}
    read["spec"] = LaunchSpec(**values["spec"])
    return Run(**{**values, **read})


def choice_file(campaign: Path, run: Run) -> Path:
    """Return the file with the settings that the trials before a run chose."""
    return campaign / "tuning" / f"{file_name(run.title)}-{digest('-'.join(run.after))}.json"
