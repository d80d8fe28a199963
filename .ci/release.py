"""Refuses a release whose files do not fit each other: `make release` runs it on what it built.

    .venv/bin/python .ci/release.py dist

The version stands once in the changelog with its day; wheel and source distribution carry it, name
the Pythons that they are for, and every file of theirs is written in the syntax of the oldest. On
each Python the wheel, with all that it needs, can be installed at the versions of constraints.txt;
uv resolves that over the network, without having the Python. pyrefly, in `make lint`, looks for
names of Python's own library that the oldest lacks.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.metadata import ExceptionGroup, Metadata
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = ("search", "demo", "docs", "dev")
CARRIED = (
    "launch/cli.py",
    "dlfd_dist/_resources/configs/config.yaml",
    "dlfd_dist/report/report.html.j2",
)
ENTRY = r"^## \[{}\] - \d{{4}}-\d\d-\d\d$"


def faults(dist: Path, root: Path = ROOT) -> Iterator[str]:
    """Yield one sentence for everything that a release may not have."""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    version = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)[0]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(ENTRY.format(re.escape(version)), changelog, re.MULTILINE)
    if len(entries) != 1:
        yield f"CHANGELOG.md has {len(entries)} entries '## [{version}] - YYYY-MM-DD', not one."
    for name in ("CITATION.cff", "dlfd_dist/__init__.py"):
        if version not in (root / name).read_text(encoding="utf-8"):
            yield f"{name} does not say {version}."
    wheels, sources = sorted(dist.glob("*.whl")), sorted(dist.glob("*.tar.gz"))
    if [len(wheels), len(sources)] != [1, 1]:
        yield f"{dist} holds {len(wheels)} wheels and {len(sources)} source distributions, not one."
        return
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = wheel.namelist()
        info = next(name for name in names if name.endswith(".dist-info/METADATA"))
        yield from of_metadata(wheel.read(info), version)
        yield from (f"The wheel lacks {name}." for name in CARRIED if name not in names)
        for name in names:
            if name.endswith(".py"):
                yield from of_code(name, wheel.read(name))
    with tarfile.open(sources[0]) as source:
        info = next(n for n in source.getnames() if n.count("/") == 1 and n.endswith("/PKG-INFO"))
        file = source.extractfile(info)
        yield from of_metadata(file.read() if file else b"", version)


def of_metadata(content: bytes, version: str) -> Iterator[str]:
    """Yield what is wrong with the metadata of a distribution."""
    try:
        metadata = Metadata.from_email(content)
    except ExceptionGroup as group:
        yield from (f"Metadata: {err}." for err in group.exceptions)
        return
    if str(metadata.version) != version:
        yield f"Metadata: the version is {metadata.version}, not {version}."
    allowed = metadata.requires_python or SpecifierSet()
    yield from (f"Metadata: Python {one} is shut out." for one in PYTHONS if one not in allowed)
    if "3.9" in allowed:
        yield "Metadata: Python 3.9 is let in."
    named = [f"Programming Language :: Python :: {one}" for one in PYTHONS]
    lacking = sorted({*named} - {*(metadata.classifiers or [])})
    yield from (f"Metadata: no classifier '{one}'." for one in lacking)
    if not metadata.description or metadata.description_content_type != "text/markdown":
        yield "Metadata: the README is not its description."


def of_code(name: str, content: bytes) -> Iterator[str]:
    """Yield what the oldest Python cannot read in a file; make lint looks closer (ruff, py310)."""
    major, minor = PYTHONS[0].split(".")
    try:
        ast.parse(content, name, feature_version=(int(major), int(minor)))
    except SyntaxError as err:
        yield f"{name}:{err.lineno} is not Python {PYTHONS[0]}: {err.msg}."


def unresolved(dist: Path, *words: str, root: Path = ROOT) -> Iterator[str]:
    """Yield a sentence for each Python on which the wheel and the pins do not fit together.

    words : more for uv, such as the place of an index
    """
    for wheel in dist.glob("*.whl"):
        wanted = f"dlfd-dist[{','.join(EXTRAS)}] @ {wheel.resolve().as_uri()}"
        for version in PYTHONS:
            uv = str(Path(sys.executable).with_name("uv"))
            ended = subprocess.run(
                [
                    uv, "pip", "compile", "--quiet", "--no-header", "--python", sys.executable,
                    "--python-version", version, "--constraints", str(root / "constraints.txt"),
                    "--output-file", os.devnull, *words, "-",
                ],
                input=wanted, capture_output=True, text=True,
            )  # fmt: skip
            if ended.returncode:
                yield f"Python {version}: {' '.join(ended.stderr.split())}"


if __name__ == "__main__":
    problems = [*faults(Path(sys.argv[1])), *unresolved(Path(sys.argv[1]))]
    print("\n".join(problems) or f"{sys.argv[1]} can be released")
    sys.exit(bool(problems))
