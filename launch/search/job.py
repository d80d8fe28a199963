"""What a job of `dlfd submit search` does on each of its ranks: the whole search, with Ray.

python -m launch.search.job SETTINGS...      begins a search or goes on with it, by hand
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from dlfd_dist.errors import STOPPED, DlfdError
from dlfd_dist.run_dir import RunDir

from ..execute.task import leave_when_asked
from .identity import claim
from .plan import SearchPlan, rows_of


def claim_search(plan: SearchPlan) -> RunDir:
    """Take or join the directory of a search that the plan of a campaign holds."""
    claim(plan, rows_of(plan, draw=True), resume=None)
    return RunDir(plan.out)


def carry_out(plan: SearchPlan) -> int:
    """Run the search in an allocation with Ray; return the exit status."""
    from .search import search

    return carried_out(lambda: search(plan, resume=None, as_json=False))


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
