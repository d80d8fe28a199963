"""Paths on the command line are literal; ~ and variables are expanded (hydra#1647)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlfd_dist.compose import compose_job, expand_grid
from dlfd_dist.errors import ConfigError

HOME = str(Path.home())


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/faces", f"{HOME}/faces"),
        ('"~/faces"', f"{HOME}/faces"),
        ("$FACES/all", "/data/faces/all"),
        ("${FACES}/all", "/data/faces/all"),
        ("/data/a folder (copy)", "/data/a folder (copy)"),
        ("/data/x=1:2@{3}[4]", "/data/x=1:2@{3}[4]"),
        ("/data/it's", "/data/it's"),
        ('"/data/a, b"', "/data/a, b"),
        ("/data/größe", "/data/größe"),
        ("'$FACES/$x'", "$FACES/$x"),
        ("ends in \\", "ends in \\"),
        ("back\\slash", "back\\slash"),
        ("100", "100"),
        ("true", "true"),
    ],
)
def test_a_path_is_taken_literally(written, meant, monkeypatch):
    monkeypatch.setenv("FACES", "/data/faces")
    config = compose_job("train", [f"data.root={written}", f"run.dir={written}"])
    assert (config.data.root, config.run.dir) == (meant, meant)


def test_null_stays_null():
    assert compose_job("train", ["data.root=null"]).data.root is None


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ConfigError, match=r"data.root=\$NOWHERE/x names .* NOWHERE, which is not"):
        compose_job("train", ["data.root=$NOWHERE/x"])


def test_commas_part_the_values_of_a_grid():
    points = expand_grid(["forget.request=~/a.txt,'b, c.txt'", "seed=0"])
    roots = [compose_job("train", point).forget.request for point in points]
    assert roots == [f"{HOME}/a.txt", "b, c.txt"]
