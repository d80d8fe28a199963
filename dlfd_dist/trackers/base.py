"""The class that trackers derive from, what runs tell them, and the table of their names."""

from __future__ import annotations

import abc
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..registry import Registry


@dataclass(frozen=True)
class Tracked:
    """What trackers are told of a run: nothing of it names or finds anybody."""

    id: str
    """16 hex digits, drawn at random: a signature could be tried for every person"""
    name: str
    """verb or method, and the seed"""
    group: str | None
    """that of the comparison, audit, search or campaign; None: a run of its own"""
    settings: Mapping[str, bool | int | float | str]
    """hyperparameters"""
    folder: Path
    """inside the run directory, for the files of this tracker"""
    shared: Path
    """the folder of the group, or the parent of the run directory"""


class Tracker(abc.ABC):
    """Follows one start of a run, on its main rank alone.

    Whatever a method raises is one warning, and the run goes on without this tracker. The
    constructor takes nothing, and imports nothing that has to be installed.
    """

    packages: Mapping[str, str] = {}
    """By module that it imports, what pip installs it with."""

    @abc.abstractmethod
    def start(self, run: Tracked) -> Mapping[str, int]:
        """Open the run, or go on in it after an earlier start.

        Returns
        -------
        by name of a scalar, the last step that is held of it: it is not logged again. Whoever
        returns {} has kept nothing, and is told every step from the first on.
        """

    @abc.abstractmethod
    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take scalars of a step; steps never go back, and may come several times."""

    @abc.abstractmethod
    def end(self, step: int, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Take the figures of the finished run, its page (HTML) and its pictures (PNG)."""

    @abc.abstractmethod
    def close(self) -> None:
        """Keep what was logged; the run has ended, failed, or goes on at another start."""


trackers: Registry[type[Tracker]] = Registry("trackers")


def needs(tracker: type[Tracker]) -> list[str]:
    """Return what pip installs of the packages that a tracker needs and that are not there."""
    return [
        package
        for module, package in tracker.packages.items()
        if importlib.util.find_spec(module) is None
    ]


def check_trackers(names: Sequence[Any]) -> None:
    """Raise ConfigError for a tracker that is not known, listed twice, or not installed."""
    for name in names:
        missing = needs(trackers.get(name))
        if names.count(name) > 1:
            raise ConfigError(f"trackers=[{','.join(names)}] lists {name} twice: list it once.")
        if missing:
            raise ConfigError(
                f"trackers=[{name}] needs a package that is not installed. Install it with: "
                f"pip install {' '.join(missing)}"
            )
