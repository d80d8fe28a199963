"""The table of verbs, and what is said of options that a verb does not have."""

from __future__ import annotations

import importlib
import inspect

import pytest

from dlfd_dist.errors import ConfigError
from launch.cli import LEAKS, VERBS, dispatch, parse


@pytest.mark.parametrize("verb", [*VERBS.values(), LEAKS], ids=[*VERBS, "leaks"])
def test_the_function_of_a_verb_takes_the_options_of_the_verb(verb):
    name = next((name for name, other in VERBS.items() if other is verb), "audit")
    _, _, options = parse(name, [])
    module, _, function = verb.function.rpartition(".")
    found = getattr(importlib.import_module(f"launch.{module}"), function)
    words = [name, []] if verb.by_name else [[]]
    inspect.signature(found).bind(*words, **options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "--wach"], "--wach is not known. Did you mean '--watch'"),
        (["train", "--watch"], "--watch is an option of 'dlfd status' alone."),
        (["train", "--out", "x"], "alone; runs go to run.dir=DIR"),
        (["report", "--out"], "--out needs a path: --out PAGE.html"),
        (["logs", "x", "--rank", "-1"], "--rank -1 is not allowed"),
        (["logs", "x", "--rank", "y"], "--rank y is not allowed"),
        (["verify", "x", "--dry-run"], "--dry-run is not an option of 'dlfd verify'"),
        (["search", "--resum"], "Did you mean '--resume'"),
        (["trian"], "'trian' is not a verb. .* Did you mean 'train'"),
        (["--json"], "There is no verb"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_sentence(words: list[str], said: str):
    with pytest.raises(ConfigError, match=said):
        dispatch(words)


def test_options_may_stand_before_among_and_behind_the_words():
    for words in (["--key", "k", "a", "b"], ["a", "--key", "k", "b"], ["a", "b", "--key", "k"]):
        _, given, options = parse("certify", words)
        assert (given, options["key"], options["names"]) == (["a", "b"], "k", False)
