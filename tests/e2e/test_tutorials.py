"""The tutorials run as they stand, and print what their pages show."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from docs.generate.tutorials import (
    FOLDER,
    TUTORIALS,
    fill,
    printed_of,
    source_of,
    started_in,
    stored,
    tutorial_pages,
)

pytestmark = [pytest.mark.xdist_group("tutorials"), pytest.mark.timeout(1800)]
NUMBER = re.compile(r"-?\d+(\.\d+)?")


def cells_of(notebook: dict) -> list[tuple[str, str]]:
    return [(cell["cell_type"], source_of(cell)) for cell in notebook["cells"]]


def shapes_of(notebook: dict) -> list[str]:
    """Return what the cells printed; figures differ between machines, words do not."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [NUMBER.sub("#", printed_of(cell)) for cell in cells]


def test_every_tutorial_of_the_folder_has_a_page():
    assert sorted(path.stem for path in FOLDER.glob("tutorial_*.py")) == sorted(TUTORIALS)
    assert len(TUTORIALS) == 3


@pytest.mark.parametrize("name", TUTORIALS)
def test_notebook_and_script_are_a_pair(name: str):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    script = jupytext.read(FOLDER / f"{name}.py")
    assert cells_of(notebook) == cells_of(script), f"run python -m docs.generate.tutorials {name}"
    assert notebook["metadata"]["jupytext"]["formats"] == "ipynb,py:percent"


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial_runs_and_prints_what_its_page_shows(name: str, tmp_path: Path):
    notebook = jupytext.read(FOLDER / f"{name}.py")
    with started_in(tmp_path):
        fill(notebook)
    assert any(shapes_of(notebook))
    assert shapes_of(notebook) == shapes_of(stored(name))


@pytest.mark.parametrize("name", TUTORIALS)
def test_page_has_every_cell_and_what_it_printed(name: str):
    page = tutorial_pages()[f"tutorials/{name.removeprefix('tutorial_')}.md"]
    for cell in stored(name)["cells"]:
        if cell["cell_type"] == "code":
            assert source_of(cell).strip() in page
            assert printed_of(cell).rstrip() in page
    assert f"]({name}.ipynb)" in page
