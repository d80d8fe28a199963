"""What a search shows while it runs: a table with ETA on a terminal, else a line per trial."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from dlfd_dist.config import SearchConfig
from dlfd_dist.objectives import OBJECTIVES
from dlfd_dist.plain import steer
from dlfd_dist.progress import Bar, duration
from dlfd_dist.terminal import is_live, table_text

logger = logging.getLogger("dlfd_dist.search")

REDRAW_S = 0.5
SHOWN = 12
COLUMNS = ("trial", "state", "step", "objective", "val", "forgetting", "time", "settings")


@dataclass
class _Row:
    number: int
    settings: dict[str, Any]
    state: str = "waiting"
    last: dict[str, Any] = field(default_factory=dict)


class Table:
    """The trials of one phase, from every report and every end."""

    def __init__(self, search: SearchConfig, total: int, title: str):
        self.search, self.title = search, title
        self.rows: dict[str, _Row] = {}
        # The table itself is what is drawn.
        self.ended_ones = Bar(title, total, unit="trial", shown=False)
        self.on_terminal = is_live(sys.stderr)
        self._lines = 0
        self._drawn = 0.0

    def started(self, trial_id: str, number: int, settings: dict[str, Any]) -> None:
        # Tune counts the trials of a searcher from 1, those of a grid from 0.
        number -= self.title == "trial" and self.search.sampler != "random"
        row = self.rows.setdefault(trial_id, _Row(number, settings))
        row.settings, row.state = settings, "running"
        self._draw()

    def reported(self, trial_id: str, figures: dict[str, Any]) -> None:
        self.rows.setdefault(trial_id, _Row(len(self.rows), {})).last = figures
        self._draw()

    def ended(self, trial_id: str, *, error: bool = False) -> None:
        row = self.rows.setdefault(trial_id, _Row(len(self.rows), {}))
        row.state = "failed" if error or row.last.get("failed") else (
            "finished" if row.last.get("finished") else "stopped"
        )  # fmt: skip
        self.ended_ones.move_to(self.ended_ones.num_done + 1)
        if self.on_terminal:
            self._draw(now=True)
            return
        logger.info(
            "%d/%d eta=%s %s %d: %s", self.ended_ones.num_done, self.ended_ones.total,
            self.ended_ones.eta, self.title, row.number, self._what(row),
        )  # fmt: skip

    def _what(self, row: _Row) -> str:
        if row.state == "failed":
            return f"failed: {row.last.get('failed') or 'see its log'}"
        if not row.last:
            return row.state
        return (
            f"{row.state} at step {row.last['step']}, {self.search.objective} "
            f"{row.last['objective']:.3f}, val {row.last['accuracy']:.3f}, forgetting "
            f"{row.last['forgetting_score']:.3f}, {duration(row.last['seconds'])}"
        )

    def _draw(self, *, now: bool = False) -> None:
        if not self.on_terminal or (not now and time.monotonic() - self._drawn < REDRAW_S):
            return
        self._drawn = time.monotonic()
        text = self.text()
        up = f"\x1b[{self._lines}F\x1b[J" if self._lines else ""
        steer(up + text, sys.stderr)
        sys.stderr.flush()
        self._lines = text.count("\n")

    def text(self) -> str:
        """Return the table: running trials, then the best of those that have ended."""
        sign = OBJECTIVES[self.search.objective].sign
        running = [row for row in self.rows.values() if row.state == "running"]
        others = [row for row in self.rows.values() if row.state != "running" and row.last]
        others.sort(key=lambda row: sign * row.last["objective"])
        shown = [_cells(row) for row in [*running, *others][:SHOWN]]
        ended = self.ended_ones
        title = f"{self.title}s: {ended.num_done}/{ended.total} ended, eta {ended.eta}"
        return table_text(shown, COLUMNS, sys.stderr, title=title)

    def close(self) -> None:
        self._draw(now=True)


def _cells(row: _Row) -> tuple[str, ...]:
    last = row.last
    settings = " ".join(f"{k.split('.')[1]}={short(v)}" for k, v in row.settings.items())
    if not last:
        return (str(row.number), row.state, "", "", "", "", "", settings)
    return (
        str(row.number), row.state, f"{last['step']}/{last['num_steps']}",
        f"{last['objective']:.3f}", f"{last['accuracy']:.3f}",
        f"{last['forgetting_score']:.3f}+-{last['forgetting_score_se']:.3f}",
        duration(last["seconds"]), settings,
    )  # fmt: skip


def short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "null" if value is None else str(value)


@dataclass
class Ended:
    """A trial as Tune left it."""

    status: str
    point: Any
    figures: dict[str, Any]
    error_file: str | None
