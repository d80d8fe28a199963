"""Ranks that stay up over all tests, and runs of the methods that several tests read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from dlfd_dist.config import JobConfig, to_dict
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.distributed.methods import METHODS, UNEVEN, run_on_rank, training_words
from tests.fakes.ranks import StandingRanks


@pytest.fixture(scope="session")
def ranks(image_cache: Path) -> Iterator[Callable[..., list[Any]]]:
    """Return a runner of an importable function on n gloo ranks; it gives back their results."""
    groups: dict[int, StandingRanks] = {}

    def run(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        group = groups.setdefault(world_size, StandingRanks(world_size))
        return group.run(function, *args)

    yield run
    for group in groups.values():
        group.kill()


@pytest.fixture
def unlearning(tiny, trained) -> Callable[..., JobConfig]:
    """Return a maker of unlearning runs: the name in METHODS, the directory, further settings."""

    def make(name: str, run_dir: Path, *more: str) -> JobConfig:
        original = trained(*training_words(name))
        words = [*UNEVEN, *METHODS[name], *more, f"checkpoint={original}", f"run.dir={run_dir}"]
        return tiny("unlearn", *words)

    return make


@pytest.fixture
def finished(unlearning, ranks, shared_folder: Path) -> Callable[[str, int], RunDir]:
    """Return a maker of finished runs by method and number of ranks; they are for reading."""

    def make(name: str, world_size: int) -> RunDir:
        run = RunDir(shared_folder / f"{name}-on-{world_size}")
        with FileLock(run.path.with_suffix(".lock")):
            if not run.finished():
                config = unlearning(name, run.path)
                if world_size == 1:
                    run_job(config, Collectives(), StopFlag())
                else:
                    ranks(run_on_rank, world_size, to_dict(config))
        return run

    return make
