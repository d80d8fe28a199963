"""Fixtures of all tests: one thread, a shared cache, tiny settings, models trained once, ranks."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hashlib  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from filelock import FileLock  # noqa: E402

from dlfd_dist.compose import compose_job  # noqa: E402
from dlfd_dist.config import JobConfig  # noqa: E402
from tests.fakes.ranks import run_on_ranks  # noqa: E402
from tests.fakes.tiny import TINY  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all workers of a parallel test run (`pytest -n`) have in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def image_cache(shared_folder: Path) -> Path:
    """Decoded images of all tests, away from the user's cache."""
    folder = shared_folder / "cache"
    folder.mkdir(exist_ok=True)
    os.environ["DLFD_CACHE"] = str(folder)
    return folder


@pytest.fixture
def tiny() -> Callable[..., JobConfig]:
    """Return a maker of small configurations: TINY and whatever a test changes."""

    def make(verb: str, *overrides: str) -> JobConfig:
        return compose_job(verb, [*TINY, *overrides])

    return make


@pytest.fixture(scope="session")
def trained(shared_folder: Path, image_cache: Path) -> Iterator[Callable[..., Path]]:
    """Return a maker of trained models: trained("model.head=mlp", on="retain").

    Every model is trained once for all tests of all workers. Its run directory is for reading: a
    test that writes into it takes a copy, and a directory that has changed fails the test run.
    """
    from tests.fakes.command_line import tree

    runs: dict[tuple[str, ...], Path] = {}
    contents: dict[Path, Any] = {}

    def make(*overrides: str, on: str = "all", settings: Sequence[str] = TINY) -> Path:
        words = (*settings, *overrides, f"train.on={on}")
        if words not in runs:
            digest = hashlib.sha256(repr(words).encode()).hexdigest()[:12]
            path = shared_folder / f"{on}-{digest}"
            _train_once(path, list(words))
            runs[words], contents[path] = path, tree(path)
        return runs[words]

    yield make
    for path, content in contents.items():
        assert tree(path) == content, f"a test has changed the shared run directory {path}"


def _train_once(path: Path, words: list[str]) -> None:
    from dlfd_dist.jobs import run_job
    from dlfd_dist.run_dir import RunDir
    from dlfd_dist.runtime.collectives import Collectives
    from dlfd_dist.runtime.preemption import StopFlag

    with FileLock(path.with_suffix(".lock")):
        if not RunDir(path).finished():
            config = compose_job("train", words)
            config = replace(config, run=replace(config.run, dir=str(path)))
            run_job(config, Collectives(), StopFlag())


@pytest.fixture
def ranks(tmp_path: Path) -> Callable[..., list[Any]]:
    """Return a runner of an importable function on n gloo ranks; it gives back their results."""

    def run(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        return run_on_ranks(function, world_size, tmp_path, *args)

    return run
