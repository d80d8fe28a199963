"""The lab (slurm/lab), brought up for these tests where it is not up, and jobs on it.

Nothing here is collected unless the command line names this folder: pytest tests/slurm. A test
waits for SLURM, or for a single rank, half of the time, so that two workers on two cores pay (-n 2
--dist loadgroup). Each has its own lab, whose nodes and controller its tests may crash. As in
tests/conftest.py, nothing here loads torch before a test does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlfd_dist.run_dir import RunDir
from launch.cli import main
from tests.fakes.tiny import TINY
from tests.slurm.cluster import LAB, PATIENCE, REPOSITORY, Lab

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out of a plain `pytest`: it installs and starts a cluster."""
    named = [Path(config.invocation_params.dir, a.split("::")[0]).resolve() for a in config.args]
    asked = any(path == HERE or HERE in path.parents for path in named)
    return None if asked or HERE not in collection_path.parents else True


FIRST = (
    "test_faults.py",
    "test_search.py",
    "test_campaign.py",
    "test_audit.py",
    "test_submitit.py",
    "test_templates.py",
)
"""The files that take longest; what is begun last should be short."""
TIMEOUT_S = 600
"""As in pyproject.toml."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(FIRST)))
    for item in items:
        limit = next((mark.args[0] for mark in item.iter_markers("timeout")), TIMEOUT_S)
        item.add_marker(pytest.mark.timeout(limit * PATIENCE), append=False)


def pytest_configure(config: pytest.Config) -> None:
    """Let every worker of xdist have the lab of its number."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        os.environ["SLURM_LAB_NUMBER"] = worker.removeprefix("gw")
        os.environ.pop("SLURM_LAB_DIR", None)


def _missing() -> str:
    """Return what this machine lacks for the lab, or an empty string."""
    if os.geteuid() != 0:
        return "the SLURM lab needs root"
    if not Path("/etc/debian_version").is_file():
        return "the SLURM lab needs Debian's packages"
    return ""


@pytest.fixture(scope="session")
def lab(image_cache: Path) -> Iterator[Lab]:
    """The running lab; one that was up before is left up."""
    missing = _missing()
    if missing:
        pytest.skip(missing)
    lab = Lab()
    was_up = lab.is_up()
    up = subprocess.run(["bash", str(LAB / "up.sh")], capture_output=True, text=True)
    try:
        assert up.returncode == 0, up.stderr
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(lab.folder / "slurm.conf"))
            patch.setenv("PYTHONPATH", str(REPOSITORY))
            patch.setenv("DLFD_PYTHON", sys.executable)
            patch.setenv("DLFD_SLURM", str(REPOSITORY / "slurm"))
            yield lab
    finally:
        if not was_up:
            subprocess.run(["bash", str(LAB / "down.sh")], capture_output=True, check=True)


@pytest.fixture(autouse=True)
def nothing_left(lab: Lab) -> Iterator[None]:
    """Cancel what a test leaves: a report that no test reads takes a core for 10 s."""
    yield
    lab.cancel_all()


SETTINGS = (*TINY, "runtime.dtype=float64", "runtime.device=cpu")


@pytest.fixture(scope="session")
def original(trained: Callable[..., Path]) -> Path:
    return trained("train.max_steps=2", settings=SETTINGS)


@pytest.fixture(scope="session")
def words(original: Path) -> Callable[..., list[str]]:
    """Return a maker of the words of one unlearning run; only its directory differs."""

    def make(run: Path, *more: str) -> list[str]:
        return [
            "unlearn", *SETTINGS, "method=dlfd", "method.epochs=100", "method.max_steps=16",
            "method.dynamic=false", "method.probe_every=1000", f"checkpoint={original}",
            "run.checkpoint_every=1", f"run.dir={run}", *more,
        ]  # fmt: skip

    return make


@pytest.fixture(scope="session")
def local(words: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The same run on one rank, in this process, left in peace."""
    from dlfd_dist.compose import compose_job
    from dlfd_dist.jobs import run_job
    from dlfd_dist.runtime.collectives import Collectives
    from dlfd_dist.runtime.preemption import StopFlag

    run = tmp_path_factory.mktemp("slurm") / "local"
    verb, *overrides = words(run)
    run_job(compose_job(verb, overrides), Collectives(), StopFlag())
    return RunDir(run)


@pytest.fixture
def dlfd(capfd: pytest.CaptureFixture[str], lab: Lab) -> Callable[..., tuple[int, str]]:
    """Return a runner of `dlfd ...`: its exit status and what it wrote to standard output."""

    def run(*words: object) -> tuple[int, str]:
        capfd.readouterr()
        status = main([str(word) for word in words])
        return status, capfd.readouterr().out

    return run
