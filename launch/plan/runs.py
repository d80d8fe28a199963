"""The records of plans: runs before and after they have a key, a place and a shape.

torch and Hydra are not loaded: status and logs read plans too.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlfd_dist.access import PRIVATE
from dlfd_dist.config import ClusterConfig, CompareConfig, JobConfig, to_dict
from dlfd_dist.run_dir import RunDir

from .shape import LaunchSpec

TRAINED = ("original", "retrained", "control")
"""The roles of the models that a comparison or an audit trains, and measures."""


@dataclass(frozen=True)
class Planned:
    """A run of the comparison."""

    label: str
    """What it is called, such as `dlfd seed 1`; no two runs share one."""
    role: str
    """original, retrained, trial or method"""
    train_seed: int
    config: JobConfig
    variant: str = ""
    """What sets it apart from other runs of its method, such as `dynamic=False`."""
    draw: int | None = None
    """The seed of the people drawn, where they are others than those that the seed draws: of a
    trained model that is held against them, and of a trial."""
    tuning: bool = False
    """Whether trials alone are held against this model, so that it is in no row of the table."""

    @property
    def seed(self) -> int:
        """The seed in its row of the table."""
        return self.config.seed if self.draw is None else self.draw

    @property
    def method(self) -> str | None:
        return self.config.method.name if self.config.verb == "unlearn" else None


@dataclass(frozen=True)
class Plan:
    """A comparison, before any of its runs has a model to start from."""

    compare: CompareConfig
    configs: list[JobConfig]
    """One per method or variant of it, which run.name says, with the first seed; the checkpoint is
    filled in when it is there."""
    pairs: list[tuple[int, int]]
    """(train seed, seed), in the order of the runs."""
    given: frozenset[str]
    """The settings on the command line or in the sweep of the experiment."""
    left_out: list[str]
    """Variants that cannot be, each with the reason."""
    metrics_seeds: tuple[int, ...] = (0,)
    """Evaluation seeds; trials have the first."""

    @property
    def out(self) -> Path:
        return Path(self.configs[0].run.dir or "runs/compare")

    @property
    def train_seeds(self) -> list[int]:
        return list(dict.fromkeys(train_seed for train_seed, _ in self.pairs))


@dataclass(frozen=True)
class CampaignRun:
    """A run of the campaign, as its plan file holds it."""

    key: str
    """8 hex digits: the signature or, before its models exist, that of settings and parents."""
    label: str
    role: str
    """original, retrained, control, trial, method, train or evaluate"""
    config: dict[str, Any]
    spec: LaunchSpec
    train_seed: int | None = None
    variant: str = ""
    parents: tuple[str, ...] = ()
    """Keys of the runs whose models it starts from."""
    directory: str | None = None
    """Where it lies, when that is known before it has run."""
    rank_seconds: float = 0.0
    """The estimate on one rank."""
    after: tuple[str, ...] = ()
    """Keys of the runs that must have ended before it, well or not."""
    draw: int | None = None
    tuning: bool = False
    """Both as in the planned run."""


def campaign_name(path: Path) -> str:
    """Return 8 hex digits of the directory: in job names, so that squeue tells campaigns apart."""
    return hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Campaign:
    """What a submission asks for."""

    path: Path
    verb: str
    words: list[str]
    cluster: ClusterConfig
    runs: list[CampaignRun]
    left_out: list[str] = field(default_factory=list)
    directories: dict[str, str] = field(default_factory=dict)
    """Where runs lie that have begun, beyond what the plan knows."""
    later: dict[str, Any] = field(default_factory=dict)
    """What jobs and the report need of the request, in plain values: no job reads the words."""

    @property
    def name(self) -> str:
        return campaign_name(self.path)

    @property
    def mode(self) -> str:
        """Mode of the directories that the runs make (run.mode)."""
        return self.runs[0].config["run"]["mode"] if self.runs else PRIVATE

    @functools.cached_property
    def by_key(self) -> dict[str, CampaignRun]:
        return {run.key: run for run in self.runs}

    def finished(self) -> dict[str, Path]:
        """Return the directories of the runs that are finished, by key."""
        known = {run.key: run.directory for run in self.runs if run.directory} | self.directories
        paths = {run.key: Path(known[run.key]) for run in self.runs if run.key in known}
        return {key: path for key, path in paths.items() if RunDir(path).finished()}

    def text(self) -> str:
        """Return the plan file: everything that tasks, retry and report need."""
        values = {
            "verb": self.verb,
            "words": self.words,
            "cluster": to_dict(self.cluster),
            "later": self.later,
            "runs": [asdict(run) for run in self.runs],
        }
        return json.dumps(values, sort_keys=True) + "\n"

    @property
    def plan_name(self) -> str:
        """Name of the plan file, from its content: the same request again writes the same file."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:12] + ".json"


def read_plan(file: Path) -> tuple[dict[str, Any], list[CampaignRun]]:
    """Return what a plan file holds: verb, words and cluster, and the runs."""
    values = json.loads(file.read_text(encoding="utf-8"))
    runs = [
        CampaignRun(
            **{
                **run,
                "spec": LaunchSpec(**run["spec"]),
                "parents": tuple(run["parents"]),
                "after": tuple(run.get("after", ())),
            }
        )
        for run in values.pop("runs")
    ]
    return values, runs


def title_of(run: CampaignRun) -> str:
    """Return the method of a run with its variant, as a comparison calls it."""
    return f"{run.config['method']['name']} {run.variant}".strip()


def choice_file(campaign: Path, run: CampaignRun) -> Path:
    """Where the settings stand that the trials before a run chose."""
    digest = hashlib.sha256("-".join(run.after).encode()).hexdigest()[:8]
    name = "".join(c if c.isalnum() or c in "=-._" else "-" for c in title_of(run))
    return campaign / "tuning" / f"{name}-{digest}.json"
