"""`dlfd VERB --help` of every verb: what it does, what it takes, an example, its exit statuses."""

from __future__ import annotations

import re
import shlex

import pytest

from docs.generate.command_line import command_line_page
from launch.cli import HELP, NEEDS, VERBS, dispatch, parse


def help_of(verb: str, capsys) -> str:
    assert dispatch([verb, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_of_that_verb(verb: str, capsys):
    text = help_of(verb, capsys)
    assert text.startswith(f"usage: dlfd {verb}")
    assert " ".join(text.split()).count(VERBS[verb].what) == 1
    assert re.search(r"^exit status:\n  0 +done$", text, re.MULTILINE)
    assert re.search(r"^  2 +bad input", text, re.MULTILINE)
    assert HELP not in text
    assert max(map(len, text.split("exit status:")[0].splitlines())) <= 160


def test_help_names_the_value_of_every_option_that_has_one():
    described = {option for verb in VERBS.values() for option in verb.own_options}
    assert {option.split()[0] for option in described if " " in option} == set(NEEDS)


@pytest.mark.parametrize("verb", VERBS)
def test_common_options_are_those_that_the_verb_heeds(verb: str, capsys):
    head = help_of(verb, capsys).split("exit status:")[0]
    assert ("\n  --dry-run" in head) is ("dry_run" in VERBS[verb].takes)
    assert ("\n  --json" in head) is ("as_json" in VERBS[verb].takes)


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_a_verb_is_understood(verb: str):
    command = re.search(r"dlfd [^)]*", VERBS[verb].example)
    assert command
    words = shlex.split(command.group())
    assert words[1] == verb
    _, rest, _ = parse(verb, words[2:])
    assert not [word for word in rest if word.startswith("-")]


def test_the_general_help_names_every_verb():
    named = re.findall(r"^  ([a-z]+) {2,}", HELP, re.MULTILINE)
    assert named == list(VERBS)
    assert max(map(len, HELP.splitlines())) <= 96


def test_settings_stand_below_the_help_of_verbs_that_have_some(capsys):
    for verb in ("train", "demo", "bench", "submit"):
        text = help_of(verb, capsys)
        assert "runtime.world_size=" in text.partition("exit status:")[2]
        assert ("forget_threshold" in text) is (verb != "train")


def test_the_reference_has_the_help_of_every_verb(capsys):
    page = command_line_page()
    for verb in VERBS:
        assert f"## dlfd {verb}\n" in page
        assert help_of(verb, capsys).rstrip() in page
