"""Run the tutorials and make pages of them: python -m docs.generate.tutorials [NAME...]

A tutorial is a pair of examples/plain_pytorch: tutorial_*.py is written by hand, and this script
writes tutorial_*.ipynb, the same cells with what they printed. Cells are run in this process,
without Jupyter, so they may hold nothing but Python.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .links import NOTEBOOKS, relink

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "plain_pytorch"
TUTORIALS = tuple(Path(notebook).stem for notebook in NOTEBOOKS)
MODULES = ("project.py", "forget.py")
"""What the tutorials import, from the folder that they are started in."""

Notebook = dict[str, Any]


def main() -> None:
    import jupytext
    import nbformat

    for name in sys.argv[1:] or TUTORIALS:
        notebook = jupytext.read(FOLDER / f"{name}.py")
        with tempfile.TemporaryDirectory() as folder, started_in(Path(folder)):
            fill(notebook)
        nbformat.write(notebook, FOLDER / f"{name}.ipynb")


@contextlib.contextmanager
def started_in(folder: Path) -> Iterator[None]:
    """Make a folder with the project the working directory, as Jupyter has it; undo that after."""
    for module in MODULES:
        shutil.copy(FOLDER / module, folder)
    before = {"path": list(sys.path), "environ": dict(os.environ), "cwd": os.getcwd()}
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before["cwd"])
        sys.path[:] = before["path"]
        os.environ.clear()
        os.environ.update(before["environ"])
        for module in MODULES:
            sys.modules.pop(module.removesuffix(".py"), None)


def fill(notebook: Notebook) -> None:
    """Run the cells of a notebook in their order, and put what they print below them."""
    names: dict[str, Any] = {"__name__": "__main__"}
    number = 0
    for place, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{place}"
        if cell["cell_type"] == "code":
            number += 1
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(source_of(cell), cell["id"], "exec"), names)  # noqa: S102 - our own
            cell["execution_count"], cell["outputs"] = number, _outputs(printed.getvalue())


def _outputs(printed: str) -> list[Any]:
    import nbformat.v4

    return [nbformat.v4.new_output("stream", name="stdout", text=printed)] if printed else []


def source_of(cell: dict[str, Any]) -> str:
    """Return the text of a cell, which a file may hold as a list of lines."""
    return "".join(cell["source"])


def printed_of(cell: dict[str, Any]) -> str:
    """Return what a cell of code has printed."""
    return "".join("".join(output["text"]) for output in cell.get("outputs", ()))


def stored(name: str) -> Notebook:
    """Return a tutorial with what its cells printed."""
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def tutorial_pages() -> dict[str, str]:
    """Return path and text of every tutorial's page, and of the files to take away."""
    files = [f"{name}{kind}" for name in TUTORIALS for kind in (".ipynb", ".py")]
    pages = {
        f"tutorials/{file}": (FOLDER / file).read_text(encoding="utf-8")
        for file in (*files, *MODULES)
    }
    return pages | {page: _page(notebook, page) for notebook, page in NOTEBOOKS.items()}


def _page(notebook: str, page: str) -> str:
    """Return a tutorial in Markdown; links lead where they lead from its folder."""
    name, parts = Path(notebook).stem, []
    for cell in stored(name)["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append(source_of(cell))
            continue
        parts.append(f"```python\n{source_of(cell).strip()}\n```")
        if printed := printed_of(cell).rstrip():
            parts.append(f"It prints:\n\n```text\n{printed}\n```")
    files = (f"{name}.ipynb", f"{name}.py", *MODULES)
    links = ", ".join(f"[{file}]({file})" for file in files)
    text = relink("\n\n".join(parts), notebook, page)
    return f"{text}\n\n## Files of this tutorial\n\n{links}\n"


if __name__ == "__main__":
    main()
