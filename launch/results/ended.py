"""A plan whose runs have ended: what its report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..plan.runs import Plan, Run


@dataclass(frozen=True)
class Ended:
    """A plan whose runs have ended, well or not."""

    plan: Plan
    """The plan; of a campaign that of its last submission."""
    runs: list[Run]
    """Every run that was ever asked for."""
    done: Mapping[str, Path]
    """The directories of the finished runs, by label."""
    failures: Mapping[str, str]
    """Why runs have no result, by label."""
    choices: Mapping[str, Any] = field(default_factory=dict)
    """What the trials of a method chose, by the title of its runs (`Race.record`)."""
    title: str = "Comparison"
    """What the page calls the runs."""

    @property
    def wanted(self) -> list[Run]:
        """The runs of the table; of two with one label the run that was asked for last."""
        return list({run.label: run for run in self.runs if run.in_table}.values())

    @property
    def missing(self) -> list[str]:
        """The runs of the table without a result."""
        return [run.label for run in self.wanted if run.label not in self.done]

    @property
    def contrasts(self) -> dict[str, Any]:
        """Pairs of rows and the margin of a tie, named before the runs."""
        return self.plan.for_finisher["contrasts"]

    @property
    def tuning(self) -> dict[str, Any] | None:
        """What was tried and chosen; None where nothing was tuned."""
        tuning = self.plan.for_finisher["tuning"]
        return None if tuning is None else {**tuning, "methods": dict(self.choices)}
