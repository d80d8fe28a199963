"""The prose check finds the riddles that it was made for, and passes plain sentences."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

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


@pytest.fixture(scope="module")
def prose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prose", ROOT / ".ci" / "prose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prose"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def style() -> dict:
    return yaml.safe_load((ROOT / ".ci" / "prose.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("sentence", RIDDLES)
def test_riddle_is_found(sentence: str, prose: ModuleType, style: dict):
    passage = prose.Passage(ROOT / "docs/page.md", 7, f"A first line.\n{sentence}\n")
    complaints = list(prose.complaints(passage, style))
    assert complaints, sentence
    assert all(line.startswith("docs/page.md:8: ") for line in complaints)


@pytest.mark.parametrize("sentence", PLAIN)
def test_plain_sentence_passes(sentence: str, prose: ModuleType, style: dict):
    assert list(prose.complaints(prose.Passage(ROOT / "README.md", 1, sentence), style)) == []


def test_pages_for_a_stranger_have_shorter_sentences(prose: ModuleType, style: dict):
    sentence = " ".join(["word"] * 35) + "."
    for path, number in ((ROOT / "README.md", 1), (ROOT / "docs/slurm.md", 0)):
        assert len(list(prose.complaints(prose.Passage(path, 1, sentence), style))) == number


def test_code_and_addresses_are_not_prose(prose: ModuleType, tmp_path: Path):
    page = "Words.\n\n```bash\nthe one that\n```\n\n`the one that`, [a](the-one-that.md)\n"
    assert "the one that" not in prose.HIDDEN.sub("", page)


def test_texts_below_fields_are_read(prose: ModuleType, tmp_path: Path):
    path = tmp_path / "module.py"
    path.write_text('"""A."""\nclass B:\n    c: int = 0\n    """The c."""\n', encoding="utf-8")
    assert [(p.line, p.text) for p in prose.docstrings(path)] == [(1, "A."), (4, "The c.")]
