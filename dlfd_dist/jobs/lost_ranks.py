"""Why a rank lost the others: one of them failed and says so, or a node went away without a word.

SLURM misses a node after SlurmdTimeout, five minutes at most sites; the ranks beside it know within
a second. A job that ended then as failed would not come back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator

from ..errors import CollectiveError, RanksLostError
from ..run_dir import RunDir
from ..runtime.collectives import Collectives, collective_error, tells_of_loss
from ..runtime.env import job_info
from ..runtime.preemption import StoppedEarly

WORD_S = 15.0
"""How long the word of another rank may take over a network file system."""
SKEW_S = 30.0
"""How far the clocks of nodes may lie apart."""


@contextlib.contextmanager
def explained(
    run_dir: RunDir, collectives: Collectives, rank_log: logging.Handler
) -> Iterator[None]:
    """Write down why this rank fails; a rank that lost the others finds out whether one did.

    Raises CollectiveError in place of what torch raises, and RanksLostError where ranks are on
    several nodes of a job and none of the others wrote a reason.
    """
    since = time.time() - SKEW_S
    try:
        yield
    except StoppedEarly:
        raise
    except Exception as err:
        if not isinstance(err, CollectiveError) and not tells_of_loss(err, collectives):
            record = {"msg": f"{type(err).__name__}: {err}", "levelno": 40, "levelname": "ERROR"}
            # On a full disk the error itself must be told, and not that it could not be noted.
            with contextlib.suppress(OSError):
                rank_log.emit(logging.makeLogRecord(record))
            raise
        if job_info().num_nodes > 1 and not _somebody_said_why(run_dir, collectives, since):
            raise RanksLostError(
                f"Rank {collectives.rank} lost the other ranks, and none of them wrote down why "
                f"within {WORD_S:.0f} s: a node or the network went away. The job comes back and "
                "goes on from its last checkpoint."
            ) from err
        if isinstance(err, CollectiveError):
            raise
        raise collective_error(collectives.rank, err) from err


def _somebody_said_why(run_dir: RunDir, collectives: Collectives, since: float) -> bool:
    others = [rank for rank in range(collectives.world_size) if rank != collectives.rank]
    end = time.monotonic() + WORD_S
    while True:
        if any(_said_why(run_dir, rank, since) for rank in others):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.5)


def _said_why(run_dir: RunDir, rank: int, since: float) -> bool:
    try:
        lines = run_dir.rank_log(rank).read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            event = json.loads(line)
            if event["level"] == "error" and event["time"] >= since:
                return True
    return False
