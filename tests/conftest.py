"""Fixtures of all tests: one thread, a cache of their own, a tiny configuration, gloo ranks."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

from dlfd_dist.compose import compose_job  # noqa: E402
from dlfd_dist.config import JobConfig  # noqa: E402
from tests.fakes.ranks import run_on_ranks  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def image_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded images of all tests, away from the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["DLFD_CACHE"] = str(folder)
    return folder


@pytest.fixture
def tiny() -> Callable[..., JobConfig]:
    """Return a maker of small configurations: synthetic faces of 32 px, ResNet18."""

    def make(verb: str, *overrides: str) -> JobConfig:
        base = [
            "data=synthetic",
            "data.image_size=32",
            "data.synthetic.num_identities=12",
            "data.synthetic.images_per_identity=4",
            "forget.fraction=0.25",
            "train.epochs=2",
            "train.global_batch_size=8",
            "method.global_batch_size=8",
            "metrics.num_bootstrap=20",
            "synthesis.steps=3",
            "runtime.threads_per_rank=1",
        ]
        return compose_job(verb, [*base, *overrides])

    return make


@pytest.fixture
def ranks(tmp_path: Path) -> Callable[..., list[Any]]:
    """Return a runner of an importable function on n gloo ranks; it gives back their results."""

    def run(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        return run_on_ranks(function, world_size, tmp_path, *args)

    return run
