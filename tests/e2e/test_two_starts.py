"""Two starts of one command at once: one works, the other says so, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dlfd_dist.run_dir import RunDir, read_events
from launch.campaign.ledger import Ledger
from tests.fakes.campaigns import GIVEN
from tests.fakes.command_line import Ended, environment
from tests.fakes.slurm import FakeSlurm
from tests.fakes.tiny import TINY

WITHOUT_LOCKS = """
import errno, fcntl, sys
def refuse(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.lockf = fcntl.flock = refuse
from launch.cli import main
sys.exit(main(sys.argv[1:]))
"""
LONG = (*TINY, "train.epochs=30", "run.checkpoint_every=50")


def start(words: list[str], *, without: bool, **more: str) -> subprocess.Popen[str]:
    run = ["-c", WITHOUT_LOCKS] if without else ["-m", "launch.cli"]
    return subprocess.Popen(
        [sys.executable, *run, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more),
    )  # fmt: skip


def ends(starts: list[subprocess.Popen[str]]) -> list[Ended]:
    outputs = [process.communicate(timeout=180) for process in starts]
    ended = [Ended(p.returncode, *texts) for p, texts in zip(starts, outputs, strict=True)]
    assert "Traceback" not in "".join(end.err for end in ended)
    return ended


@pytest.mark.parametrize("without", [False, True], ids=["locks", "no locks"])
def test_of_two_starts_of_a_run_one_works_and_the_other_says_so(tmp_path: Path, without: bool):
    run = tmp_path / "run"
    words = ["train", *LONG, f"run.dir={run}"]
    ended = ends([start(words, without=without) for _ in range(2)])
    assert sorted(end.status for end in ended) == [0, 2], [end.err for end in ended]
    refused = next(end for end in ended if end.status == 2)
    assert f"run.dir={run} is being written by another start of this run (process" in refused.err
    epochs = [e["epoch"] for e in read_events(RunDir(run).metrics) if e["event"] == "epoch"]
    assert epochs == list(range(30))
    assert RunDir(run).finished()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("without", [False, True], ids=["locks", "no locks"])
def test_of_two_submits_of_a_campaign_one_submits_and_the_other_finds_it_done(
    tmp_path: Path, without: bool
):
    slurm = FakeSlurm.install(tmp_path / "bin")
    path = f"{slurm.folder}:/usr/bin:/bin"
    campaign = tmp_path / "campaign"
    words = ["submit", "compare", *GIVEN, "method=finetune,ssd",
             f"run.dir={campaign}"]  # fmt: skip
    ended = ends([start(words, without=without, PATH=path) for _ in range(2)])
    assert [end.status for end in ended] == [0, 0], [end.err for end in ended]
    events = Ledger(campaign).events()
    submitted = [event for event in events if event["event"] == "submitted"]
    runs = [key for event in submitted for unit in event["units"] for key in unit]
    assert len(runs) == len(set(runs)) == 4  # Original, Retrained, and two methods
    asked = [call for call in slurm.calls("sbatch") if "--test-only" not in call]
    assert len(asked) == len(submitted) == len({event["job_id"] for event in submitted})
    assert sum("queued already: " in end.out for end in ended) == 1
    assert not list(campaign.rglob("*.lock*"))
