"""What Ray Tune tells of its trials. Only functions import this module.

Tune saves a callback with the search and restores it in another process: what is known of the
trials stands in the class, which each process has of its own.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from ray.tune import Callback

from .point import Point
from .progress import Ended, Table


class Follow(Callback):
    """Keeps the table of the current phase, and the trials as the phase left them."""

    table: ClassVar[Table]
    ended: ClassVar[list[Ended]] = []

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        settings = Point.of(trial.config).settings
        self.table.started(trial.trial_id, number_of(trial), settings)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        self.table.reported(trial.trial_id, result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.table.ended(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.table.ended(trial.trial_id, error=True)

    def on_experiment_end(self, trials: Any, **info: Any) -> None:
        Follow.ended = [
            Ended(
                trial.status, Point.of(trial.config), dict(trial.last_result or {}),
                trial.error_file,
            )
            for trial in sorted(trials, key=number_of)
        ]  # fmt: skip


def number_of(trial: Any) -> int:
    """Return the place of a trial in the order of their making, which a restored search keeps."""
    return int(re.split(r"[_@]", trial.experiment_tag)[0])
