"""The files of the repository that are pages of the site too, and the links between them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "operations/reporting.md",
    "slurm/README.md": "operations/site.md",
    "benchmarks/README.md": "results.md",
    "NOTICE": "notice.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "examples/plain_pytorch/README.md": "tutorials/index.md",
    "examples/plugin/README.md": "howto/write-a-method.md",
}
"""File of the repository outside docs/: the page of the site that shows it."""
NOTEBOOKS = {
    f"examples/plain_pytorch/tutorial_{name}.ipynb": f"tutorials/{name}.md"
    for name in ("1_own_model", "2_comparison", "3_audit")
}
"""Notebook: the page of the site that shows its cells and what they printed."""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r"(!\[[^\]]*\]\(|\b(?:src|srcset)=\")([^)\"\s]+)")


def relink(text: str, source: str, page: str) -> str:
    """Return a file's text with its links as they must be on the site.

    A link to a file that the site does not show becomes its words. One to a file that is not there
    stays, and a strict build names it.

    source : path of the file in the repository
    page : path of the page on the site
    """

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match.groups()
        file = _file(target, source)
        place = _place(file)
        if ":" in target or (place is None and not (ROOT / file).exists()):
            return match[0]
        return words if place is None else f"[{words}]({_from(page, place)}{anchor or ''})"

    def picture(match: re.Match[str]) -> str:
        place = None if ":" in match[2] else _place(_file(match[2], source))
        return match[0] if place is None else match[1] + _from(page, place)

    return PICTURE.sub(picture, LINK.sub(link, text))


def _file(target: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _place(file: str) -> str | None:
    """Return the page or picture of the site that a file of the repository is."""
    shown = (PAGES | NOTEBOOKS).get(file)
    return shown or (file.removeprefix("docs/") if file.startswith("docs/") else None)


def _from(page: str, place: str) -> str:
    return posixpath.relpath(place, posixpath.dirname(page) or ".")
