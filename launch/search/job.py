"""What a job of `dlfd submit search` does on each of its ranks: the whole search, with Ray.

python -m launch.search.job SETTINGS...      begins a search or goes on with it, by hand
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlfd_dist.errors import STOPPED, DlfdError
from dlfd_dist.run_dir import RunDir

from ..execute.task import leave_when_asked
from .identity import claim
from .plan import SearchPlan, read_search, rows_of


@dataclass(frozen=True)
class SearchJob:
    """A search in an allocation with Ray."""

    plan: SearchPlan

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> SearchJob:
        """Return the search that the plan of a campaign holds."""
        return cls(read_search(values))

    def claim(self) -> RunDir:
        claim(self.plan, rows_of(self.plan, draw=True), resume=None)
        return RunDir(self.plan.out)

    def __call__(self) -> int:
        from .search import search

        return carried_out(lambda: search(self.plan, resume=None, as_json=False))


def report_search(campaign: Path) -> int:
    """Return the exit status of a campaign whose search writes its own files."""
    if RunDir(campaign).finished():
        return 0
    print("dlfd: the search has not finished: 'dlfd status' says why.", file=sys.stderr)
    return 1


def carried_out(search: Callable[[], int]) -> int:
    """Run a search, or go on with it; return the exit status."""
    try:
        return search()
    except DlfdError as err:
        print(f"dlfd: {err}", file=sys.stderr)
        return err.exit_status
    except KeyboardInterrupt:
        return STOPPED  # outside of Tune there is nothing to save
    except RuntimeError as err:
        # Tune's message for a worker that was killed (Ray 2.60); the search's state is on disk.
        if not str(err).startswith("Caught unexpected exception"):
            raise
        print(f"dlfd: {str(err).splitlines()[0]}", file=sys.stderr)
        return STOPPED


def main(words: list[str]) -> int:
    from .search import run_search

    leave_when_asked()
    return carried_out(lambda: run_search(words, resume=None, dry_run=False, as_json=False))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
