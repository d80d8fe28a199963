"""torchrun in a batch job: its exit status is that of the ranks."""

from __future__ import annotations

import signal

import pytest

from launch.torchrun import node_status


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ({0: 75, 1: -signal.SIGTERM}, 75),  # torchrun ends the others when one has ended
        ({0: 1, 1: 2}, 2),
        ({0: 1}, 1),
        ({0: -signal.SIGUSR2, 1: 1}, 140),
        ({0: -signal.SIGKILL}, 1),
    ],
    ids=["stopped", "bad input", "failed", "USR2 too early", "killed"],
)
def test_the_status_is_that_of_the_rank_that_knows_the_cause(codes: dict[int, int], status: int):
    assert node_status(codes) == status


def test_a_rank_that_was_killed_is_named(capsys: pytest.CaptureFixture[str]):
    node_status({3: -signal.SIGKILL})
    assert "rank 3 of this node was ended by SIGKILL" in capsys.readouterr().err
    node_status({0: 75, 3: -signal.SIGTERM})
    assert capsys.readouterr().err == ""
