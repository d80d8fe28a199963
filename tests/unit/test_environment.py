"""What the user's environment may not decide: locale, matplotlib, a missing user name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from dlfd_dist.report.style import styled
from launch.execute import slurm
from launch.execute.slurm import SchedulerError

ROOT = Path(__file__).parents[2]


def test_a_terminal_that_takes_ascii_only_gets_replacements():
    text = "'gr\\xf6\\xdfe \\xb1\\n'"
    code = f"from launch import cli; cli.HELP = {text}; raise SystemExit(cli.main(['--help']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
             "PYTHONIOENCODING": "ascii:strict", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, encoding="ascii",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "gr??e ?\n")


def test_a_backend_of_a_notebook_that_is_not_installed_does_not_matter():
    code = "from launch.cli import main; main(['--version']); import matplotlib.figure"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "MPLBACKEND": "module://matplotlib_inline_x.y", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_figures_do_not_follow_the_users_matplotlibrc():
    @styled
    def draw() -> Figure:
        figure = Figure()
        figure.subplots().set_title("a")
        return figure

    with matplotlib.rc_context({"figure.figsize": (1, 1), "axes.facecolor": "black"}):
        figure = draw()
    assert tuple(figure.get_size_inches()) == (6.4, 4.8)
    assert figure.axes[0].get_facecolor() == (1, 1, 1, 1)


def test_a_user_without_a_name_is_asked_for_by_number(monkeypatch):
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    calls = []
    monkeypatch.setattr(slurm.getpass, "getuser", nameless)
    monkeypatch.setattr(slurm, "call", lambda words, *_: calls.append(words) or "")
    slurm.squeue()
    assert calls[0][calls[0].index("-u") + 1] == str(os.getuid())


@pytest.mark.parametrize(
    "answer",
    [
        "123\n",
        "123;cluster\n",
        "Welcome to the cluster!\nQuota: 12 of 100\n123\n",
        "123\n*** bye\n",
    ],
)
def test_the_job_id_is_found_beside_a_banner(answer):
    assert slurm.one_job_id(answer) == "123"


@pytest.mark.parametrize("answer", ["", "Welcome\n", "12\n13\n"])
def test_an_answer_without_one_job_id_is_quoted(answer):
    with pytest.raises(SchedulerError, match=r"told no job id .* it said: .*squeue --me"):
        slurm.one_job_id(answer)
