"""The command line in this process, a small data set on disk, and models trained on it once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from launch.cli import main
from tests.fakes.bad_input import Lab
from tests.fakes.command_line import Ended, Faces, ended, write_faces
from tests.fakes.tiny import LEARNED


@pytest.fixture
def dlfd(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return a runner of `dlfd ...` inside this process: its status and what it wrote."""

    def run(*arguments: object) -> Ended:
        capfd.readouterr()
        status = main([str(a) for a in arguments])
        said = capfd.readouterr()
        return Ended(status, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def forked_dlfd(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ended]:
    """Return a runner of `dlfd ...` that starts workers or ranks: all of them are forks."""
    folder = tmp_path_factory.mktemp("forked")
    return lambda *arguments: ended(arguments, folder)


@pytest.fixture(scope="session")
def faces(shared_folder: Path) -> Faces:
    """A folder with a space in its name, as people have them; one for all workers."""
    folder = shared_folder / "e2e"
    root, request = folder / "small faces", folder / "people who left.txt"
    with FileLock(shared_folder / "e2e.lock"):
        if not request.exists():
            write_faces(root)
            request.write_text("Person-01\nPerson-05\n", encoding="utf-8")
    return Faces(root, request)


@pytest.fixture(scope="session")
def original(faces: Faces, trained: Callable[..., Path]) -> Path:
    """A run directory: Original, trained on everybody until it knows its people by heart."""
    return trained(*LEARNED, on="all", settings=faces.forget)


@pytest.fixture(scope="session")
def retrained(faces: Faces, trained: Callable[..., Path]) -> Path:
    """A run directory: Retrained, which never saw the people of the request."""
    return trained(*LEARNED, on="retain", settings=faces.forget)


@pytest.fixture(scope="session")
def words_of_ranks(faces: Faces, original: Path, retrained: Path) -> list[str]:
    """The words of a run whose figures do not depend on the number of ranks: in float64 the order
    of sums over ranks shows in none."""
    return [
        "unlearn", "method=dlfd", "runtime.dtype=float64", *faces.forget,
        f"checkpoint={original}", f"reference={retrained}", "run.name=Person-01",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def two_ranks(
    words_of_ranks: list[str], forked_dlfd: Callable[..., Ended],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """A run on two ranks of `dlfd` itself, named after somebody of the request."""
    path = tmp_path_factory.mktemp("two ranks") / "run of Person-01"
    ended = forked_dlfd(*words_of_ranks, f"run.dir='{path}'", "runtime.world_size=2")
    assert ended.status == 0, ended.err
    return path


@pytest.fixture
def lab(tmp_path: Path, faces: Faces, original: Path) -> Lab:
    return Lab(tmp_path, faces, original)
