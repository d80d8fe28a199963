"""Completion in real shells, from what the parser, help and the configuration know."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dlfd_dist.config import METHOD_CONFIGS
from launch import completion
from launch.cli import VERBS, main

BASH = r"""
source "$1"
COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
complete -p dlfd
while IFS= read -r COMP_LINE; do
  COMP_POINT=${#COMP_LINE}
  _dlfd
  printf '%s\n' "$COMP_LINE -> ${COMPREPLY[*]}"
done
"""
LINES = {
    "dlfd unl": "unlearn",
    "dlfd --json comp": "compare completion",
    "dlfd unlearn method=sc": "scrub",
    "dlfd compare method=dlfd,sc": "dlfd,scrub",
    "dlfd unlearn model.he": "model.head=",
    "dlfd unlearn model.head=": "linear mlp",
    "dlfd unlearn data.clean=f": "false",
    "dlfd train method.lr": "",
    "dlfd search search.sched": "search.scheduler=",
    "dlfd search search.scheduler=": "none asha pbt",
    "dlfd submit cluster=sl": "slurm_generic slurm_lab",
    "dlfd audit u": "ulira",
    "dlfd export runs/one --to ": "state-dict torch-export onnx huggingface",
    "dlfd models t": "timm torchvision",
    "dlfd report --o": "--out",
    "dlfd export runs/": "runs/more/ runs/one",
    "dlfd unlearn checkpoint=runs/o": "runs/one",
    "dlfd certify runs/one --key own": "owner.pem",
}
"""By what is on the line, what may stand in its last place (after `=`, as readline replaces it)."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a run, a folder that is none, and a key."""
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.json").write_text("{}")
    (tmp_path / "runs" / "more").mkdir()
    (tmp_path / "owner.pem").write_text("")
    return tmp_path


def script(shell: str, place: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", shell]) == 0
    file = place / f"dlfd.{shell}"
    file.write_text(capsys.readouterr().out)
    return file


def shell(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"the shell {name} is not installed")
    return path


def test_bash_completes_verbs_settings_choices_and_runs(place: Path, capsys):
    file = script("bash", place, capsys)
    done = subprocess.run(
        [shell("bash"), "-c", BASH, "bash", file], cwd=place, input="\n".join(LINES) + "\n",
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    registered, *said = done.stdout.splitlines()
    assert registered == "complete -F _dlfd dlfd"
    assert dict(line.split(" -> ") for line in said) == LINES
    assert done.stderr == ""


def test_compgen_offers_the_verbs(place: Path, capsys):
    file = script("bash", place, capsys)
    words = 'source "$1"; compgen -W "$(_dlfd_verbs)" -- ""'
    done = subprocess.run(
        [shell("bash"), "-c", words, "bash", file], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(VERBS)


def test_zsh_completes(place: Path, capsys):
    zsh = shell("zsh")
    file = script("zsh", place, capsys)
    # compadd works in a completion alone; what it is given is what is offered.
    words = (
        'functions[compadd]=\'print -r -- "${@[-1]}"\'; source "$1"; words=(dlfd compare '
        "method=dlfd,sc); CURRENT=3; _dlfd"
    )
    done = subprocess.run([zsh, "-fc", words, "zsh", file], capture_output=True, text=True)
    assert "method=dlfd,scrub" in done.stdout.split()
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dlfd compare method=dlfd,sc", ["method=dlfd,scrub"]),
        ("dlfd unlearn method=sc", ["method=scrub"]),
        ("dlfd export runs/", ["runs/more/", "runs/one"]),
        ("dlfd unl", ["unlearn"]),
    ],
)
def test_fish_completes(place: Path, capsys, line: str, offered: list[str]):
    fish = shell("fish")
    file = script("fish", place, capsys)
    words = f"source {file}; complete -C '{line}'"
    done = subprocess.run(
        [fish, "--no-config", "-c", words], capture_output=True, text=True, cwd=place
    )
    assert done.stdout.split() == offered


def test_every_verb_setting_and_choice_is_there():
    words = completion.verb_words()
    assert list(words) == list(VERBS)
    assert {"method=", "method.lr=", "synthesis.layer=", "checkpoint="} <= set(words["unlearn"])
    assert "train.lr=" in words["train"]
    assert "--dry-run" not in words["status"]
    chosen = completion.setting_choices()
    assert set(METHOD_CONFIGS) <= set(chosen["method"])
    assert {"constant", "cosine"} <= set(chosen["method.lr_scheduler"])


@pytest.mark.parametrize(
    ("words", "match"),
    [([], "was given nothing: give one of bash, zsh, fish"), (["bsh"], "Did you mean 'bash'")],
)
def test_other_shells_are_one_sentence(capsys, words: list[str], match: str):
    assert main(["completion", *words]) == 2
    assert match in capsys.readouterr().err
