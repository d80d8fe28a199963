"""What a job of `dlfd submit search` does: the whole search, one trial of it, or its end.

    python -m launch.search.job SETTINGS...      the whole search, begun or gone on with

A trial of an array tells a file what a trial of Ray tells Tune.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlfd_dist.errors import DlfdError
from dlfd_dist.run_dir import RunDir, write_json

from ..campaign.ledger import Ledger
from ..campaign.plan import CampaignRun, read_plan
from ..campaign.states import planned_runs
from .plan import SearchPlan, claim, make_plan, rows_of
from .progress import Ended
from .results import Row, all_judged, candidates, write_all, write_end
from .results import rows_of as result_rows
from .submit import told_file
from .trial import (
    Point,
    Shared,
    identity_of,
    reference_of,
    resolved,
    run_rank,
    untouched_value,
)

STOPPED = 75


@dataclass(frozen=True)
class Whole:
    """The whole search, in an allocation with Ray."""

    plan: SearchPlan
    words: list[str]

    def claim(self) -> RunDir:
        claim(self.plan, rows_of(self.plan, draw=True), resume=None)
        return RunDir(self.plan.out)

    def __call__(self) -> int:
        return whole(self.words)


@dataclass(frozen=True)
class Part:
    """One trial or replicate, as the task of an array."""

    plan: SearchPlan
    run: CampaignRun

    def point(self) -> Point:
        number = int(self.run.variant)
        if self.run.role == "trial":
            return Point(self.plan.points()[number])
        chosen = candidates(told_rows(self.plan, "trial"), self.plan.search)
        if number >= len(chosen):
            raise DlfdError(
                f"There is no {self.run.label}: of the trials only {len(chosen)} are worth one."
            )
        return Point(chosen[number]["settings"], self.run.train_seed)

    def claim(self) -> RunDir:
        from dlfd_dist.compose import config_text

        point = self.point()
        shared = Shared(self.plan.config, self.plan.search)
        inputs = resolved(self.plan.config)[1]
        config, known, sign, run_dir = identity_of(shared, point, inputs)
        claim(self.plan, rows_of(self.plan, draw=False), resume=None)
        run_dir.claim(sign, known, config_text(config))
        return run_dir

    def __call__(self) -> int:
        try:
            return self._run()
        except DlfdError as err:
            print(f"dlfd: {self.run.label}: {err}", file=sys.stderr)
            return err.exit_status

    def _run(self) -> int:
        point, last = self.point(), {}

        def report(figures: dict[str, Any], _folder: Path | None = None) -> None:
            last.update(figures)
            self._tell(point, dict(figures), None)

        shared = Shared(self.plan.config, self.plan.search, reference_of(self.plan))
        try:
            run_rank(point, shared, report)
        except Exception as err:
            if not isinstance(err, DlfdError):
                self._tell(point, {}, f"{type(err).__name__}: {err}")
            raise
        if last.get("failed"):
            print(f"dlfd: {self.run.label}: {last['failed']}", file=sys.stderr)
            return 1
        return 0

    def _tell(self, point: Point, figures: dict[str, Any], error: str | None) -> None:
        file = told_file(self.plan.out, self.run.label)
        file.parent.mkdir(parents=True, exist_ok=True)
        told = {"settings": point.settings, "seed": point.seed, "figures": figures, "error": error}
        write_json(file, told)


def part_of(campaign: Path, run: CampaignRun) -> Whole | Part:
    """Return what a run of the campaign is; its settings are those that were submitted."""
    words = _words(campaign)
    plan = make_plan(words)
    return Whole(plan, words) if run.role == "search" else Part(plan, run)


def _words(campaign: Path) -> list[str]:
    last = [e["plan"] for e in Ledger(campaign).events() if e["event"] == "planned"][-1]
    return list(read_plan(campaign / "plans" / last)[0]["words"])


def told_rows(plan: SearchPlan, role: str) -> list[Row]:
    """Return what the trials or replicates of an array have told, in order."""
    found = []
    for run in planned_runs(plan.out, Ledger(plan.out)):
        if run.role != role:
            continue
        file = told_file(plan.out, run.label)
        told = json.loads(file.read_text("utf-8")) if file.is_file() else None
        found.append(_ended(plan, run, told))
    return result_rows([one for one in found if one is not None], plan.out)


def _ended(plan: SearchPlan, run: CampaignRun, told: dict[str, Any] | None) -> Ended | None:
    if told is None and run.role != "trial":
        return None
    if told is None:
        point = Point(plan.points()[int(run.variant)])
        return Ended(run.label, "ERROR", point, {"failed": "it has not run."}, None)
    figures = told["figures"] | ({"failed": told["error"]} if told["error"] else {})
    is_done = figures.get("finished") or figures.get("failed")
    point = Point(told["settings"], told["seed"])
    return Ended(run.label, "TERMINATED" if is_done else "PENDING", point, figures, None)


def write_search(campaign: Path) -> int:
    """Write what a search found, from whatever trials ended; exit status 1 without any."""
    from .search import show

    plan = make_plan(_words(campaign))
    if plan.search.backend == "ray":
        if RunDir(campaign).finished():
            return 0
        print("dlfd: the search has not finished: 'dlfd status' says why.", file=sys.stderr)
        return 1
    rows, replicates = told_rows(plan, "trial"), told_rows(plan, "replicate")
    chosen = candidates(rows, plan.search)
    kept = [r for r in replicates if any(c["settings"] == r["settings"] for c in chosen)]
    found, judgements = all_judged(plan, chosen, kept)
    seconds = sum(row["seconds"] or 0.0 for row in [*rows, *found])
    untouched = untouched_value(plan, reference_of(plan))
    content = write_all(plan, rows, found, judgements, untouched, seconds)
    write_end(plan, content, 0)
    show(plan, content, as_json=False)
    return 0 if content["winner"] is not None else 1


def whole(words: list[str]) -> int:
    """Run a search, or go on with it; return the exit status."""
    from .search import run_search

    try:
        return run_search(words, resume=None, dry_run=False, as_json=False)
    except DlfdError as err:
        print(f"dlfd: {err}", file=sys.stderr)
        return err.exit_status
    except KeyboardInterrupt:
        return STOPPED  # outside of Tune there is nothing to save
    except RuntimeError as err:
        # So Tune tells of a worker that somebody killed (Ray 2.60); its state is on disk.
        if not str(err).startswith("Caught unexpected exception"):
            raise
        print(f"dlfd: {str(err).splitlines()[0]}", file=sys.stderr)
        return STOPPED


def main(words: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: sys.exit(STOPPED))
    return whole(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
