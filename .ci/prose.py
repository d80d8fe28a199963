"""Check the prose of pages and docstrings: python .ci/prose.py

proselint reads README and other pages of the repository, docs/, and every docstring of dlfd_dist
and launch with the texts below its fields. .ci/prose.yaml says which of its checks count, and adds
our own. Code, addresses and tables' rules are left out.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from proselint.checks import __register__ as checks_of_proselint
from proselint.config import Config
from proselint.registry import CheckRegistry
from proselint.registry.checks import Check, CheckFlags, CheckResult
from proselint.registry.checks.types import ExistenceSimple
from proselint.tools import LintFile

ROOT = Path(__file__).parents[1]
STYLE = yaml.safe_load((ROOT / ".ci" / "prose.yaml").read_text(encoding="utf-8"))
PAGES = ("*.md", "docs/**/*.md", "slurm/README.md", "benchmarks/README.md")
CODE = ("dlfd_dist/**/*.py", "launch/**/*.py")
HIDDEN = re.compile(r"^ *```.*?^ *```$|^ {4,}\S.*$|<!--.*?-->|`[^`\n]*`|\]\([^)]*\)", re.M | re.S)
CODE_SPAN = re.compile(r"``?[^`\n]+``?|https?://\S+")
SENTENCE = re.compile(r"[^.!?|:;]+(?:[.!?|:;](?!\s)[^.!?|:;]+)*")
PARAGRAPH = re.compile(r"[^\n]+(?:\n(?! *(?:[-*|]|\d+\.) )[^\n]+)*")
"""Lines up to an empty one, or to the next item of a list or row of a table."""
QUOTED = CheckFlags(allow_quotes=True)
"""A check that counts between quotation marks too."""


def texts() -> Iterator[tuple[str, str]]:
    """Yield the path of every file with prose and that prose, each line at its number."""
    for pattern, prose in [*((p, page) for p in PAGES), *((p, docstrings) for p in CODE)]:
        for path in sorted(ROOT.glob(pattern)):
            if path.name != "CHANGELOG.md":
                yield path.relative_to(ROOT).as_posix(), prose(path.read_text(encoding="utf-8"))


def page(text: str) -> str:
    """Return the text of a page without its code and addresses."""
    return HIDDEN.sub(_blank, text)


def docstrings(source: str) -> str:
    """Return every text of a module that stands by itself, as docstrings do.

    Each ends with a stop, so that no sentence goes on in the next.
    """
    lines = [""] * (source.count("\n") + 2)
    for node in ast.walk(ast.parse(source)):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            text = [CODE_SPAN.sub(_blank, line) for line in f"{value.value}.".split("\n")]
            lines[value.lineno - 1 : value.lineno - 1 + len(text)] = text
    return "\n".join(lines)


def too_long(longest: int, text: str, check: Check) -> Iterator[CheckResult]:
    """Yield the sentences of more words than `longest`."""
    for paragraph in PARAGRAPH.finditer(text):
        for sentence in SENTENCE.finditer(paragraph[0]):
            words = len(re.findall(r"[A-Za-z]{2,}", sentence[0]))
            if words > longest:
                at = paragraph.start() + sentence.start()
                begins = " ".join(sentence[0].split())[:60]
                message = f"a sentence of {words} words, of at most {longest}: '{begins} ...'"
                yield CheckResult(check.path, f"{message}; write two", (at, at + 1), None)


def register(style: dict[str, Any]) -> None:
    """Put proselint's checks and our own into the one registry that it has."""
    registry = CheckRegistry()
    registry.checks.clear()
    registry.register_many(checks_of_proselint)
    for rule in style["rules"]:
        write = f"'{{}}'; write {rule['write']}"
        pattern = ExistenceSimple(rule["not"].replace(" ", r"\s+"))
        registry.register(Check(pattern, path="ours.rules", message=write, flags=QUOTED))
    for name in ("longest", "longest_plain"):
        length = partial(too_long, style[f"{name}_sentence"])
        registry.register(Check(length, path=f"ours.{name}", flags=QUOTED))


def complaints(name: str, text: str, style: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each place of a text that a check complains of.

    Parameters
    ----------
    name : path of the file, relative to the repository
    """
    plain = any(name.startswith(start) for start in style["plain"])
    ours = {"ours.rules": True, "ours.longest_plain": plain, "ours.longest": not plain}
    config = Config(max_errors=1000, checks=style["proselint"] | ours)
    for complaint in LintFile(name, text).lint(config) if text.strip() else ():
        message = " ".join(complaint.check_result.message.split())
        yield f"{name}:{complaint.pos[0]}: {message}"


def _blank(hidden: re.Match[str]) -> str:
    """Return as many lines without words, so that the lines after keep their numbers."""
    return "\n" * hidden[0].count("\n") or f" x{hidden.start()} "


def main() -> int:
    register(STYLE)
    lines = [line for name, text in texts() for line in complaints(name, text, STYLE)]
    print("\n".join(lines) or "prose: no complaint")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
