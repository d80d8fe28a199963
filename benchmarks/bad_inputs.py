"""Bad inputs in a table: the command, how it ended, and the sentence that it said.

    python -m benchmarks.bad_inputs [--only GROUP] [--write]

benchmarks/bad_inputs.yaml holds the inputs, in groups that share a command. Every command runs in
this process on a small set of drawn faces. An input that is not refused with exit status 2 and one
sentence, or that leaves a file behind, is a violation, and the exit status 1. A reader judges the
sentences. --write stores the table in benchmarks/results.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results import write_result
from launch.cli import main as dlfd
from tests.fakes.command_line import tree, write_faces

INPUTS = Path(__file__).with_suffix(".yaml")
SMALL = (
    "data.image_size=32 data.leaks=false model=small train.max_steps=1 method.max_steps=1 "
    "train.global_batch_size=8 method.global_batch_size=8 metrics.num_bootstrap=20 "
    "runtime.threads_per_rank=1"
)


@dataclass(frozen=True)
class BadInput:
    """One row: words of a command, and the file that they lead to, where it is what is bad."""

    group: str
    words: str
    shown: str
    """the command, or the content of the file, as the table tells it"""
    file: str | None = None
    content: bytes = b""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int | str
    """exit status, or the name of the exception that got out"""
    sentences: list[str]
    left: list[str]
    """files that came, went or changed"""

    @property
    def violation(self) -> str:
        if isinstance(self.status, str):
            return "traceback"
        if self.left:
            return f"left behind: {', '.join(self.left[:3])}"
        if self.status != 2:
            return "not refused"
        is_one = len(self.sentences) == 1 and self.sentences[0].endswith((".", "?"))
        return "" if is_one else "not one sentence"


def read_inputs(path: Path = INPUTS) -> Iterator[BadInput]:
    """Yield the rows of the YAML file, group by group."""
    for group in yaml.safe_load(path.read_text(encoding="utf-8")):
        for given in group["inputs"]:
            yield _row(group, given)


def _row(group: dict[str, Any], given: Any) -> BadInput:
    command = group["command"]
    if "file" not in group:
        return BadInput(group["group"], f"{command} {given}".strip(), str(given))
    content = given.encode("latin-1") if group.get("bytes") else str(given).encode()
    return BadInput(group["group"], command, repr(str(given))[:120], group["file"], content)


def make_lab(folder: Path) -> dict[str, str]:
    """Write faces and train a model; return what stands for the braces of a command."""
    faces, model = write_faces(folder / "faces"), folder / "model"
    names = {
        "folder": str(folder), "small": SMALL, "run": str(folder / "run"), "model": str(model),
        "faces": f"data=manifest data.root={faces} {SMALL}",
        "here": f"data=manifest data.root={folder / 'data'} {SMALL}",
    }  # fmt: skip
    words = f"train {names['faces']} forget.fraction=0.25 run.dir={model}"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert dlfd(shlex.split(words)) == 0
    shutil.copytree(faces, folder / "data")
    return names


def outcome(row: BadInput, folder: Path, names: dict[str, str]) -> Outcome:
    """Run a row in this process and look at what it left."""
    with spoiled(row, folder):
        before = tree(folder)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = _status(row, names)
        after = tree(folder)
    cache = str(folder / "cache")
    left = [
        str(Path(name).relative_to(folder))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not name.startswith(cache)
    ]
    said = [line for line in err.getvalue().splitlines() if line.startswith("dlfd: ")]
    sentences = [line.removeprefix("dlfd: ").replace(f"{folder}/", "") for line in said]
    return Outcome(status, sentences, left)


def _status(row: BadInput, names: dict[str, str]) -> int | str:
    words = row.words
    for name, value in names.items():
        words = words.replace(f"{{{name}}}", value)
    try:
        return dlfd(shlex.split(words))
    except SystemExit as err:
        return f"SystemExit {err.code}"
    except Exception as err:
        traceback.print_exc()
        return type(err).__name__


@contextlib.contextmanager
def spoiled(row: BadInput, folder: Path) -> Iterator[None]:
    """Write the bad file of a row; afterwards everything is as before."""
    path = folder / row.file if row.file else None
    before = path.read_bytes() if path is not None and path.is_file() else None
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row.content)
    try:
        yield
    finally:
        if path is not None and before is not None:
            path.write_bytes(before)
        elif path is not None:
            path.unlink(missing_ok=True)
        shutil.rmtree(folder / "run", ignore_errors=True)


def table(results: list[tuple[BadInput, Outcome]]) -> str:
    """Return the outcomes in Markdown, group by group."""
    lines, group = [], ""
    for row, found in results:
        if row.group != group:
            group = row.group
            lines += [
                f"\n## {group}\n", f"`dlfd {row.words.removesuffix(row.shown).strip()}`"
                + (f" with {row.file}" if row.file else "") + "\n",
                "| input | status | sentence |", "| --- | ---: | --- |",
            ]  # fmt: skip
        cells = row.shown, found.status, " ".join(found.sentences)
        lines.append("| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a part of the group's name")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    rows = [row for row in read_inputs() if args.only in row.group]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DLFD_CACHE"] = str(folder / "cache")
        names = make_lab(folder)
        results = [(row, outcome(row, folder, names)) for row in rows]
    wrong = [(row, found) for row, found in results if found.violation]
    for row, found in wrong:
        print(f"{row.group}: {row.shown}: {found.violation}, {found.status}: {found.sentences}")
    tracebacks = sum(found.violation == "traceback" for _, found in results)
    left = sum(bool(found.left) for _, found in results)
    summary = (
        f"{len(results)} bad inputs: {len(results) - len(wrong)} are refused with exit status 2 "
        f"and one sentence, {tracebacks} end in a traceback, {left} leave something behind."
    )
    print(summary)
    if args.write:
        text = f"{summary}\n{table(results)}"
        write_result("bad_inputs", "Bad inputs and what is said of them", text, len(wrong),
                     named="violations")  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
