"""What brings a job back when the moment is bad: a signal before the ranks meet, a controller that
is away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

EARLY = """
import os, signal, sys
from dlfd_dist.runtime.preemption import stop_flag
from launch.campaign.task import _mind_early_signals
_mind_early_signals()
os.kill(os.getpid(), int(sys.argv[1]))
with stop_flag() as flag:
    print("asked to stop" if flag.requested else "not asked")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.parametrize(("ranks", "status", "said"), [("1", 75, ""), ("2", 0, "asked to stop\n")])
def test_a_signal_before_the_loop_ends_a_rank_alone_and_is_kept_by_one_of_several(
    number: signal.Signals, ranks: str, status: int, said: str
):
    """A rank that left by itself would leave the others waiting for it where ranks meet."""
    done = subprocess.run(
        [sys.executable, "-c", EARLY, str(int(number))], capture_output=True, text=True,
        cwd=REPOSITORY, env={**os.environ, "SLURM_NTASKS": ranks},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, said), done.stderr


SCONTROL = """#!/bin/bash
# Refuses as often as `refusals` says; `ping` tells whether the controller is there.
cd "$(dirname "$0")" || exit
if [ "$1" = ping ]; then [ -e answers ]; exit; fi
echo "$*" >> calls
[ "$(wc -l < calls)" -gt "$(cat refusals)" ]
"""


def requeue(
    folder: Path, refusals: int, *, answers: bool
) -> tuple[subprocess.CompletedProcess, int]:
    """End a batch script with 75; return how it ended, and how often it asked scontrol."""
    (folder / "refusals").write_text(str(refusals))
    if answers:
        (folder / "answers").touch()
    for name, text in (("scontrol", SCONTROL), ("sleep", "#!/bin/bash\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", ". slurm/lib/requeue.sh; requeue_or_exit 75"], capture_output=True,
        text=True, cwd=REPOSITORY, timeout=60,
        env={"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7",
             "SLURM_ARRAY_TASK_ID": "1"},
    )  # fmt: skip
    calls = (folder / "calls").read_text().splitlines()
    assert set(calls) == {"requeue 7_1"}
    return done, len(calls)


def test_a_controller_that_is_away_for_a_while_does_not_cost_the_run(tmp_path: Path):
    done, calls = requeue(tmp_path, refusals=6, answers=False)
    assert (done.returncode, calls, done.stderr) == (75, 7, "")


def test_a_controller_that_refuses_is_believed_after_three_times(tmp_path: Path):
    done, calls = requeue(tmp_path, refusals=100, answers=True)
    assert (done.returncode, calls) == (75, 3)
    assert "did not requeue 7_1" in done.stderr
