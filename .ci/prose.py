"""Check the prose of pages, docstrings and help against .ci/prose.yaml: python .ci/prose.py

Looked at: README and other pages of the repository, docs/, and every docstring of dlfd_dist and
launch with the texts below its fields. Code, addresses and tables' rules are left out.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "docs/**/*.md", "slurm/README.md", "benchmarks/README.md")
CODE = ("dlfd_dist/**/*.py", "launch/**/*.py")
HIDDEN = re.compile(r"^ *```.*?^ *```$|^ {4,}\S.*$|<!--.*?-->|`[^`\n]*`|\]\([^)]*\)", re.M | re.S)
SENTENCE = re.compile(r"[^.!?|:;]+(?:[.!?|:;](?!\s)[^.!?|:;]+)*")
PARAGRAPH = re.compile(r"[^\n]+(?:\n(?! *(?:[-*|]|\d+\.) )[^\n]+)*")
"""Lines up to an empty one, or to the next item of a list or row of a table."""


@dataclass(frozen=True)
class Passage:
    """A stretch of prose, and where it begins."""

    path: Path
    line: int
    text: str


def passages() -> Iterator[Passage]:
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            if path.name != "CHANGELOG.md":
                text = path.read_text(encoding="utf-8")
                yield Passage(path, 1, HIDDEN.sub(lambda match: _blank(match[0]), text))
    for pattern in CODE:
        for path in sorted(ROOT.glob(pattern)):
            yield from docstrings(path)


def docstrings(path: Path) -> Iterator[Passage]:
    """Yield every text of a module that stands by itself, as docstrings do."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield Passage(path, value.lineno, value.value)


def complaints(passage: Passage, style: dict) -> Iterator[str]:
    """Yield a line for each place of a passage that breaks a rule."""
    for rule in style["rules"]:
        for match in re.finditer(rule["not"].replace(" ", r"\s+"), passage.text, re.IGNORECASE):
            words = " ".join(match[0].split())
            yield f"{_place(passage, match.start())}: '{words}'; write {rule['write']}"
    relative = passage.path.relative_to(ROOT).as_posix()
    plain = any(relative.startswith(name) for name in style["plain"])
    longest = style["longest_plain_sentence" if plain else "longest_sentence"]
    for paragraph in PARAGRAPH.finditer(passage.text):
        for sentence in SENTENCE.finditer(paragraph[0]):
            words = re.findall(r"[A-Za-z]{2,}", sentence[0])
            if len(words) > longest:
                at = paragraph.start() + sentence.start()
                yield (
                    f"{_place(passage, at)}: a sentence of {len(words)} words, of at most "
                    f"{longest}: '{' '.join(sentence[0].split())[:60]} ...'; write two"
                )


def _place(passage: Passage, at: int) -> str:
    line = passage.line + passage.text.count("\n", 0, at)
    return f"{passage.path.relative_to(ROOT)}:{line}"


def _blank(text: str) -> str:
    """Return as many lines without words, so that the lines after keep their numbers."""
    return "\n" * text.count("\n") if "\n" in text else " x "


def main() -> int:
    style = yaml.safe_load((ROOT / ".ci" / "prose.yaml").read_text(encoding="utf-8"))
    found = [line for passage in passages() for line in complaints(passage, style)]
    print("\n".join(found) or "prose: no complaint")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
