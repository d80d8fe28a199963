"""Fixtures of all tests: one thread, a shared cache, tiny settings, models trained once.

Nothing here loads torch before a test does: the process that hands tests to the workers of
`pytest -n` reads this file first, and they would wait 5 s for it.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from dlfd_dist.runtime.allocator import keep_freed_memory
from tests.fakes.tiny import TINY

if TYPE_CHECKING:
    from dlfd_dist.config import JobConfig
    from dlfd_dist.report.records import RunRecord

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

# Before torch is loaded, which then takes one thread; the memory is kept as a rank keeps it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
keep_freed_memory()


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


@pytest.fixture(autouse=True)
def same_signals() -> Iterator[None]:
    """Give the process its signals back: a rank ends deaf, and what it starts would be deaf too."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        if handler is not None:  # one that Python did not set
            signal.signal(number, handler)


@pytest.fixture
def tiny() -> Callable[..., JobConfig]:
    """Return a maker of small configurations: TINY and whatever a test changes."""
    from dlfd_dist.compose import compose_job

    def make(verb: str, *overrides: str) -> JobConfig:
        return compose_job(verb, [*TINY, *overrides])

    return make


@pytest.fixture(scope="session")
def trained(shared_folder: Path, image_cache: Path) -> Iterator[Callable[..., Path]]:
    """Return a maker of trained models: trained("model.head=mlp", on="retain").

    Every model is trained once for all tests of all workers, whatever words ask for it. Its run
    directory is for reading: a test that writes into it takes a copy, and a directory that has
    changed fails the test run.
    """
    from dlfd_dist.compose import compose_job
    from tests.fakes.command_line import tree

    runs: dict[tuple[str, ...], Path] = {}
    contents: dict[Path, Any] = {}

    def make(*overrides: str, on: str = "all", settings: Sequence[str] = TINY) -> Path:
        words = (*settings, *overrides, f"train.on={on}")
        if words not in runs:
            runs[words] = path = _trained_once(shared_folder, compose_job("train", words))
            contents.setdefault(path, tree(path))
        return runs[words]

    yield make
    for path, content in contents.items():
        assert tree(path) == content, f"a test has changed the shared run directory {path}"


def _trained_once(folder: Path, config: JobConfig) -> Path:
    from dlfd_dist.config import signature
    from dlfd_dist.jobs import run_job
    from dlfd_dist.run_dir import RunDir
    from dlfd_dist.runtime.collectives import Collectives
    from dlfd_dist.runtime.preemption import StopFlag

    inputs = {"data": str(config.data.root), "request": str(config.forget.request)}
    path = folder / f"{config.train.on}-{signature(config, inputs)}"
    with FileLock(path.with_suffix(".lock")):
        if not RunDir(path).finished():
            config = replace(config, run=replace(config.run, dir=str(path)))
            run_job(config, Collectives(), StopFlag())
    return path


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a comparison of three methods, written once, for the report."""
    from tests.fakes.reports import ALL_METHODS
    from tests.fakes.run_dirs import write_comparison

    return write_comparison(tmp_path_factory.mktemp("a b's") / "compare", methods=ALL_METHODS)


@pytest.fixture(scope="session")
def records(comparison: Path) -> list[RunRecord]:
    from dlfd_dist.report import load_comparison

    return load_comparison(comparison)


def pytest_collection_finish() -> None:
    """Leave what is loaded by now out of every later garbage collection.

    The objects of torch and the modules around it stay until the end. Looking through them at every
    collection took 10 % of the CPU time of the unit tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest chain of tests first: the searches, which share one Ray and so one worker."""
    items.sort(key=lambda item: all(m.args != ("ray",) for m in item.iter_markers("xdist_group")))
