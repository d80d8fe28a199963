"""Two starts of one command at once: one works, the other says so, and nothing is lost."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from dlfd_dist.run_dir import RunDir, read_events
from launch.execute.journal import Ledger
from tests.fakes.campaigns import GIVEN
from tests.fakes.command_line import Child
from tests.fakes.slurm import FakeSlurm
from tests.fakes.tiny import TINY

LONG = (*TINY, "train.epochs=30", "run.checkpoint_every=50")


def without_locks() -> None:
    """Let this process find file systems that have no locks."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    fcntl.lockf = fcntl.flock = refuse  # type: ignore[assignment]


def two_starts(words: list[str], folder: Path, *, without: bool, **environ: str) -> list[Child]:
    before = without_locks if without else None
    folder.mkdir()
    logs = [folder / f"{number}.log" for number in range(2)]
    starts = [Child(words, log, before=before, environ=environ) for log in logs]
    for start in starts:
        start.wait(timeout_s=180)
        assert "Traceback" not in start.text
    return starts


@pytest.mark.parametrize("without", [False, True], ids=["locks", "no locks"])
def test_of_two_starts_of_a_run_one_works_and_the_other_says_so(tmp_path: Path, without: bool):
    run = tmp_path / "runs" / "run"
    words = ["train", *LONG, f"run.dir={run}"]
    starts = two_starts(words, tmp_path / "logs", without=without)
    statuses = [start.exit_status() for start in starts]
    assert sorted(map(str, statuses)) == ["0", "2"], [start.text for start in starts]
    refused = starts[statuses.index(2)]
    assert f"run.dir={run} is being written by another start of this run (process" in refused.text
    epochs = [e["epoch"] for e in read_events(RunDir(run).metrics) if e["event"] == "epoch"]
    assert epochs == list(range(30))
    assert RunDir(run).finished()
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("without", [False, True], ids=["locks", "no locks"])
def test_of_two_submits_of_a_campaign_one_submits_and_the_other_finds_it_done(
    tmp_path: Path, without: bool
):
    slurm = FakeSlurm.install(tmp_path / "bin")
    path = f"{slurm.folder}:/usr/bin:/bin"
    campaign = tmp_path / "campaign"
    words = ["submit", "compare", *GIVEN, "method=finetune,ssd",
             f"run.dir={campaign}"]  # fmt: skip
    starts = two_starts(words, tmp_path / "logs", without=without, PATH=path)
    assert [start.exit_status() for start in starts] == [0, 0], [start.text for start in starts]
    events = Ledger(campaign).events()
    submitted = [event for event in events if event["event"] == "submitted"]
    runs = [key for event in submitted for unit in event["units"] for key in unit]
    assert len(runs) == len(set(runs)) == 4  # Original, Retrained, and two methods
    asked = [call for call in slurm.calls("sbatch") if "--test-only" not in call]
    assert len(asked) == len(submitted) == len({event["job_id"] for event in submitted})
    assert sum("queued already: " in start.text for start in starts) == 1
    assert not list(campaign.rglob("*.lock*"))
