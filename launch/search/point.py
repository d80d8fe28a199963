"""The configuration of a trial: what all trials of a search share, and the point of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlfd_dist.config import JobConfig, SearchConfig

from ..plan.comparison import with_settings


@dataclass(frozen=True)
class Shared:
    """What all trials of a search have in common."""

    config: JobConfig
    """With the method's own settings."""
    search: SearchConfig
    reference: dict[str, float] | None = None
    """The figures of the Retrained model, where trials are held against it."""
    save_every: int | None = None
    """Steps between checkpoints that other trials may go on from (pbt)."""


@dataclass(frozen=True)
class Point:
    """The settings and the seed of one trial."""

    settings: dict[str, Any]
    seed: int | None = None
    """Seed of a replicate; None: the seed of the search."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Point:
        values = config.get("point", config)
        return cls(dict(values["settings"]), values.get("seed"))


def trial_config(shared: Shared, point: Point) -> JobConfig:
    """Return the configuration of the run that a trial is."""
    config = with_settings(shared.config, point.settings)
    config = replace(config, reference=None)
    if shared.save_every is not None:
        run = replace(config.run, checkpoint_every=shared.save_every)
        every = config.method.probe_every or shared.save_every
        method = replace(config.method, probe_every=every)
        config = replace(config, run=run, method=method)
    if point.seed is not None:
        root = str(Path(config.run.root).parent / "replicates")
        config = replace(config, seed=point.seed, run=replace(config.run, root=root))
    return config
