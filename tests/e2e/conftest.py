"""The command line in this process, a small data set on disk, and models trained on it once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launch.cli import main
from tests.fakes.bad_input import Lab
from tests.fakes.command_line import Ended, Faces, write_faces


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
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    """A folder with a space in its name, as people have them."""
    folder = tmp_path_factory.mktemp("e2e")
    root = write_faces(folder / "small faces")
    request = folder / "people who left.txt"
    request.write_text("Person-01\nPerson-05\n", encoding="utf-8")
    return Faces(root, request)


@pytest.fixture(scope="session")
def original(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory: Original, trained on everybody."""
    return _trained(faces, tmp_path_factory, "all")


@pytest.fixture(scope="session")
def retrained(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory: Retrained, which never saw the people of the request."""
    return _trained(faces, tmp_path_factory, "retain")


def _trained(faces: Faces, tmp_path_factory: pytest.TempPathFactory, on: str) -> Path:
    path = tmp_path_factory.mktemp("trained") / on
    assert main(["train", f"train.on={on}", *faces.forget, f"run.dir={path}"]) == 0
    return path


@pytest.fixture
def lab(tmp_path: Path, faces: Faces, original: Path) -> Lab:
    return Lab(tmp_path, faces, original)
