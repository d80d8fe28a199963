"""The trials of a method, and how the best of them is chosen.

A plan file holds a `Race`, so that no job works out anew what a command line asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from dlfd_dist.objectives import OBJECTIVES, Objective, on_val
from dlfd_dist.run_dir import RunDir

if TYPE_CHECKING:
    from .runs import Run


class Against(NamedTuple):
    """A run of a trial and the models that it is held against, by label."""

    run: str
    original: str
    """Original, measured on the people whom the trial forgets."""
    retrained: str


@dataclass(frozen=True)
class Trial:
    """One trial of a method, with its value on val once it has run."""

    name: str
    """Of the method or its variant."""
    settings: dict[str, Any]
    """The values of the settings that are searched."""
    against: tuple[Against, ...]
    """One per pair of seeds that it is judged on."""
    runs: tuple[Run, ...] = ()
    value: float | None = None
    """The mean over the runs; None: a run did not finish."""
    left_as_is: bool = False
    """Whether a run of the trial left its model as it is; such a trial is never chosen."""
    untouched: float | None = None
    """The value of Original on the same people."""

    def judged(self, objective: Objective, done: Mapping[str, Path]) -> Trial:
        """Return the trial with the value that its runs reached on val.

        Parameters
        ----------
        done : run directories by label, of the trials and of the models they are held against
        """
        originals = [pair.original for pair in self.against]
        untouched = self._mean(objective, originals, done)
        value = self._mean(objective, [pair.run for pair in self.against], done)
        if untouched is None or value is None:
            return replace(self, value=None, untouched=untouched)
        still = any(_left_as_is(done[pair.run]) for pair in self.against)
        return replace(self, value=value, left_as_is=still, untouched=untouched)

    def _mean(
        self, objective: Objective, labels: Sequence[str], done: Mapping[str, Path]
    ) -> float | None:
        """Return the mean value of models on val; None where a model has no result."""
        if not all(label in done for label in labels):
            return None
        values = []
        for label, pair in zip(labels, self.against, strict=True):
            retrained = _figures(done, pair.retrained) if objective.needs_retrained else None
            values.append(objective.value(_figures(done, label), retrained))
        return fmean(values)


def _figures(done: Mapping[str, Path], label: str) -> dict[str, float]:
    return on_val(RunDir(done[label]).read_result())


def _left_as_is(path: Path) -> bool:
    """Return whether a run left its model as it is; results of older versions do not say."""
    return bool((RunDir(path).read_result().get("against_original") or {}).get("left_as_is"))


def best_trial(trials: Sequence[Trial], objective: Objective) -> Trial | None:
    """Return the best trial that moved its model, the first of equals; None if there is none."""
    moved = [t for t in trials if t.value is not None and not t.left_as_is]
    return min(moved, key=lambda trial: objective.sign * (trial.value or 0.0), default=None)


def chosen_trial(trials: Sequence[Trial], objective: Objective) -> Trial | None:
    """Return the best trial where it did better than leaving the model as it is, else None."""
    best = best_trial(trials, objective)
    if best is None or best.value is None or best.untouched is None:
        return None
    return best if objective.is_better(best.value, best.untouched) else None


@dataclass(frozen=True)
class Race:
    """The trials of one method."""

    objective: str
    """Name of what is judged."""
    searched: dict[str, str]
    """The ranges of the settings that are drawn."""
    given: dict[str, Any]
    """The settings that the user gave, so that they are not drawn."""
    trials: list[Trial]

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Race:
        """Return the race that a plan file holds."""
        trials = [
            Trial(t["name"], t["settings"], tuple(Against(*pair) for pair in t["against"]))
            for t in values["trials"]
        ]
        return cls(values["objective"], values["searched"], values["given"], trials)

    def values(self) -> dict[str, Any]:
        """Return what a plan file holds."""
        return asdict(replace(self, trials=[replace(trial, runs=()) for trial in self.trials]))

    @property
    def runs(self) -> list[Run]:
        return [run for trial in self.trials for run in trial.runs]

    def judged(self, done: Mapping[str, Path]) -> Race:
        objective = OBJECTIVES[self.objective]
        return replace(self, trials=[trial.judged(objective, done) for trial in self.trials])

    def record(self) -> dict[str, Any]:
        """Return what was tried for the method, and what was chosen.

        `settings` is None where nothing was: `no_gain` says that trials finished and none did
        better than leaving the model as it is. `value` is that of the best trial which moved its
        model.
        """
        trials, objective = self.trials, OBJECTIVES[self.objective]
        best, chosen = best_trial(trials, objective), chosen_trial(trials, objective)
        finished = [trial for trial in trials if trial.value is not None]
        return {
            "settings": chosen.settings if chosen else None,
            "no_gain": bool(finished) and chosen is None,
            "value": best.value if best else None,
            "default_value": trials[0].value,
            "untouched_value": trials[0].untouched,
            "searched": self.searched,
            "given": self.given,
            "failed": len(trials) - len(finished),
            "left_as_is": sum(trial.left_as_is for trial in trials),
            "trials": [
                {"settings": t.settings, "value": t.value, "left_as_is": t.left_as_is}
                for t in trials
            ],
        }
