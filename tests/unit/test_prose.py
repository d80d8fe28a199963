"""The prose check finds the riddles that it was made for, and passes plain sentences."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
RIDDLES = (
    "auto: runs that are short, or that more ranks do not help, are, where no ranks are given.",
    "Return whether something is there that is neither ours nor a campaign.",
    "A job goes on though somebody committed in the meantime: it is told and recorded.",
    "An array may leave numbers out, and they have none.",
    "An image goes when another is near; near to near is not near.",
    "What was put there before is nowhere.",
    "Belong to the first node's Ray until that ends; how it ended, the first node says.",
    "In the gap none leaves the line of doing nothing.",
    "Unsigned certificates are intact; nor are the times of files.",
    "Give the checkpoint, not the one that was trained before.",
)
PLAIN = (
    "The planner packs short runs unless ranks or nodes are given.",
    "A table ranks methods only where the gate is open.",
    "The first node says how Ray ended.",
)


COMMON = (
    "It is a very unique result.",
    "The run was a chip off the old block.",
    "The collaborate together on the plan.",
)
"""What proselint's own checks complain of."""


@pytest.fixture(scope="module")
def prose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prose", ROOT / ".ci" / "prose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register(module.STYLE)
    return module


def complaints(prose: ModuleType, name: str, text: str) -> list[str]:
    return list(prose.complaints(name, text, prose.STYLE))


@pytest.mark.parametrize("sentence", [*RIDDLES, *COMMON])
def test_riddle_is_found(sentence: str, prose: ModuleType):
    complained = complaints(prose, "docs/page.md", f"A first line.\n{sentence}\n")
    assert complained, sentence
    assert all(line.startswith("docs/page.md:2: ") for line in complained)


@pytest.mark.parametrize("sentence", PLAIN)
def test_plain_sentence_passes(sentence: str, prose: ModuleType):
    assert complaints(prose, "README.md", sentence) == []


def test_pages_for_a_stranger_have_shorter_sentences(prose: ModuleType):
    sentence = " ".join(["word"] * 35) + "."
    for name, number in (("README.md", 1), ("docs/slurm.md", 0)):
        assert len(complaints(prose, name, sentence)) == number


def test_a_rule_holds_between_quotation_marks(prose: ModuleType):
    assert complaints(prose, "README.md", 'It says "take the one that fits" here.')


def test_code_and_addresses_are_not_prose(prose: ModuleType):
    page = "Words.\n\n```bash\nthe one that\n```\n\n`the one that`, [a](the-one-that.md)\n"
    shown = prose.page(page)
    assert "the one that" not in shown
    assert shown.count("\n") == page.count("\n")


def test_texts_below_fields_are_read(prose: ModuleType):
    module = '"""A."""\nclass B:\n    c: int = 0\n    """The c."""\n'
    assert prose.docstrings(module).split("\n")[:4] == ["A..", "", "", "The c.."]
