"""Two tables: scalars.csv (step, name, value) and hyperparameters.csv (name, value)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from .base import Tracked, Tracker, trackers


@trackers.register("csv")
class CSVTracker(Tracker):
    """Writes its tables anew at every start."""

    _file: IO[str]

    def start(self, run: Tracked) -> Mapping[str, int]:
        run.folder.mkdir(parents=True, exist_ok=True)
        with (run.folder / "hyperparameters.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["name", "value"])
            rows.writerows(
                [("run", run.id), ("group", run.group or ""), *sorted(run.settings.items())]
            )
        self._file = (run.folder / "scalars.csv").open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(["step", "name", "value"])
        self._file.flush()
        return {}

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._rows.writerows((step, name, repr(value)) for name, value in scalars.items())
        self._file.flush()

    def end(self, step: int, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        self.log(step, figures)

    def close(self) -> None:
        self._file.close()
