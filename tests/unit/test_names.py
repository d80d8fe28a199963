"""Names say what a thing is: no variable or argument is called by a word for anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EMPTY = {"one", "found", "told", "held", "ran"}


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of every variable and argument; fields of records are none."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    fields = {id(s.target) for c in classes for s in c.body if isinstance(s, ast.AnnAssign)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Store)
            and id(node) not in fields
        ):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def empty_names(source: str) -> list[str]:
    return [f"{line}: {name}" for line, name in names(ast.parse(source)) if name in EMPTY]


@pytest.mark.parametrize("package", ["dlfd_dist", "launch"])
def test_every_name_says_what_the_thing_is(package: str):
    wrong = {
        str(path.relative_to(ROOT)): empty
        for path in sorted((ROOT / package).rglob("*.py"))
        if (empty := empty_names(path.read_text(encoding="utf-8")))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    "source",
    [
        "found = 1", "held: int = 1", "for one in (): pass", "[held for held in ()]",
        "def f(told): pass", "with f() as ran: pass", "if (found := 1): pass", "lambda one: one",
    ],
)  # fmt: skip
def test_an_empty_name_is_seen_wherever_it_is_made(source: str):
    assert len(empty_names(source)) == 1
