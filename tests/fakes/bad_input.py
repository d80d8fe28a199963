"""A place to spoil things in, and cases of bad input: what is spoiled and what is said of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.command_line import Ended, Faces, read_csv, tree, write_csv

Dlfd = Callable[..., Ended]


@dataclass(frozen=True)
class Lab:
    """A place to spoil things in: a copy of the data, and the run directory to be spared."""

    folder: Path
    faces: Faces
    original: Path

    @property
    def data(self) -> Path:
        """The copy of the data set, made when it is first asked for."""
        copy = self.folder / "data"
        if not copy.exists():
            shutil.copytree(self.faces.root, copy)
        return copy

    @property
    def manifest(self) -> Path:
        return self.data / "metadata.csv"

    @property
    def target(self) -> Path:
        return self.folder / "run"

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def edit(self, line: int, column: str, value: str) -> None:
        """Change one cell of the copy's manifest; the header is line 1."""
        rows = read_csv(self.manifest)
        rows[line - 1][rows[0].index(column)] = value
        write_csv(self.manifest, rows)

    def train(self, *more: str) -> list[str]:
        """Return the words of a training run on the copy of the data."""
        return ["train", *self.faces.small, f"data.root={self.data}", *self.into, *more]

    def unlearn(self, *more: str) -> list[str]:
        """Return the words of an unlearning run on the good data."""
        words = ["unlearn", *self.faces.small, f"checkpoint={self.original}", *self.into, *more]
        asks = any(word.startswith(("forget.request=", "forget.fraction=")) for word in more)
        return words if asks else [*words, *self.faces.forget[-1:]]

    def request(self, text: str) -> list[str]:
        return self.unlearn(f"forget.request={self.file('request.txt', text)}")

    @property
    def into(self) -> list[str]:
        return [f"run.dir={self.target}"]

    def check(self, name: str, cases: Cases, dlfd: Dlfd) -> None:
        """Run a case: one sentence that says what it must, status 2, and no file touched."""
        words, phrases = cases[name](self)
        before = tree(self.folder, self.original)
        ended = dlfd(*words)
        assert ended.status == 2, ended
        for phrase in phrases:
            assert phrase in ended.sentence, f"{phrase!r} is not in: {ended.sentence}"
        assert not ended.out
        assert tree(self.folder, self.original) == before


Case = Callable[[Lab], tuple[list[str], list[str]]]
"""Spoils something; returns the command and what its sentence must say."""


class Cases(dict[str, Case]):
    """The cases of one file by name."""

    def add(self, case: Case) -> Case:
        self[case.__name__] = case
        return case
