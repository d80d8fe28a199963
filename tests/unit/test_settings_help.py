"""What `dlfd VERB --help` says is what a run would use; `dlfd methods` lists what there is."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dlfd_dist.compose import compose_job, with_sweep
from dlfd_dist.config import (
    METHOD_CONFIGS,
    AuditConfig,
    ClusterConfig,
    CompareConfig,
    JobConfig,
    SearchConfig,
    SyntheticFacesConfig,
    to_dict,
)
from dlfd_dist.data import datasets
from dlfd_dist.errors import ConfigError
from dlfd_dist.methods import methods
from dlfd_dist.models import backbones
from launch.cli import main
from launch.plan.compare import comparison_of
from launch.verbs.listing import ABBREVIATIONS, WHERE_TO_START, run_listing
from launch.verbs.settings import choices, sentences, verb_help

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^  ([a-z_.0-9]+)=(.*)$", re.MULTILINE)
SECTIONS = [
    type(getattr(JobConfig(), f.name))
    for f in dataclasses.fields(JobConfig)
    if dataclasses.is_dataclass(getattr(JobConfig(), f.name))
]
CLASSES = {
    JobConfig, AuditConfig, ClusterConfig, CompareConfig, SearchConfig, SyntheticFacesConfig,
    *SECTIONS, *METHOD_CONFIGS.values(),
}  # fmt: skip


def shown(verb: str, *words: str) -> dict[str, Any]:
    """Return the settings that help lists, by name."""
    return {n: yaml.safe_load(value) for n, value in LINE.findall(verb_help(verb, words))}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        if isinstance(value, dict) and name != "args":
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("unlearn", ["checkpoint=a.pth", "forget.fraction=0.2"]),
        ("unlearn", ["method=scrub", "data=orl", "checkpoint=a.pth", "forget.fraction=0.2"]),
        ("unlearn", ["method=dlfm", "experiment=table1_mufac_age", "checkpoint=a", "forget.seed=1",
                     "forget.fraction=0.5", "method.lr=0.25"]),
        ("train", ["data=synthetic", "train.epochs=7"]),
        ("evaluate", ["checkpoint=a.pth", "model=small"]),
        ("compare", ["checkpoint=a", "forget.fraction=0.2", "compare.tune=3"]),
    ],
    ids=["unlearn", "scrub", "dlfm with a task", "train", "evaluate", "compare"],
)  # fmt: skip
def test_the_values_are_those_that_would_run(verb: str, words: list[str]):
    job = verb if verb in ("train", "evaluate") else "unlearn"
    of_the_run = [word for word in words if not word.startswith("compare.")]
    expected = flat(to_dict(compose_job(job, of_the_run)))
    found = shown(verb, *words)
    for name, value in found.items():
        if name.startswith("compare."):
            continue
        assert value == expected[name], name
    read = {"train": "train.lr", "evaluate": "metrics.seed"}.get(verb, "method.lr")
    assert read in found
    assert ("train.lr" in found) == (verb in ("train", "compare"))
    if verb == "compare":
        assert found["compare.tune"] == 3


@pytest.mark.parametrize("method", sorted(METHOD_CONFIGS))
def test_help_of_a_method_lists_its_settings_and_no_others(method: str):
    found = shown("unlearn", f"method={method}")
    own = {n.removeprefix("method.") for n in found if n.startswith("method.")}
    assert own == {field.name for field in dataclasses.fields(METHOD_CONFIGS[method])}
    assert ("synthesis.steps" in found) == (method in ("dlfd", "dlfd_official", "dlfm"))
    assert "verb" not in found


def test_what_has_to_be_given_is_said():
    assert shown("unlearn")["checkpoint"] == "(needed)"
    assert shown("unlearn")["forget.request"] == "(needed)"
    assert shown("unlearn", "forget.fraction=0.1")["forget.request"] is None
    assert shown("train")["checkpoint"] is None


@pytest.mark.parametrize("cls", sorted(CLASSES, key=lambda c: c.__name__), ids=lambda c: c.__name__)
def test_every_setting_has_a_sentence_and_every_word_that_is_checked_is_told(cls: type):
    told = sentences(cls)
    default = cls()
    for field in dataclasses.fields(cls):
        if field.name != "verb" and not dataclasses.is_dataclass(getattr(default, field.name)):
            assert told.get(field.name, "").strip(), f"{cls.__name__}.{field.name} has no sentence"
    for name, words in choices(cls).items():
        assert words, name


def test_choices_that_no_sentence_names_are_listed():
    text = verb_help("unlearn", [])
    assert "Between two features. One of cosine, squared_euclidean." in text


def test_a_wrong_word_is_refused_as_the_verb_would_refuse_it():
    with pytest.raises(ConfigError, match="Did you mean 'scrub'"):
        verb_help("unlearn", ["method=scrubb"])


def test_the_list_of_methods_says_what_to_start_with_as_the_docs_do(capsys):
    assert main(["methods"]) == 0
    abbreviations, said = capsys.readouterr().err.strip().split("\n")
    assert (abbreviations, said) == (ABBREVIATIONS, WHERE_TO_START)
    page = (ROOT / "docs" / "methods.md").read_text("utf-8")
    assert said in " ".join(page.split())
    words = re.search(r"'dlfd compare (.*)'", said)
    assert words
    given = ["run.dir=nowhere"]
    made = comparison_of(with_sweep([*words[1].split(), *given]))
    assert (len(made.configs), made.compare.tune) == (3, 12)


def test_the_list_of_methods_explains_its_abbreviations(capsys):
    assert main(["methods"]) == 0
    used = set(re.findall(r"\b[A-Z]{2,}\b", capsys.readouterr().out)) - {"YAML"}
    assert used == set(re.findall(r"\b([A-Z]{2,}):", ABBREVIATIONS))


@pytest.mark.parametrize(
    ("verb", "names"),
    [("methods", methods.names), ("models", backbones.names), ("data", datasets.names)],
)
def test_a_listing_has_every_name_with_a_sentence(verb: str, names, capsys):
    assert main([verb]) == 0
    lines = capsys.readouterr().out.splitlines()
    libraries = ["timm", "torchvision", "huggingface"] if verb == "models" else []
    expected = [*(n for n in names() if n != "factory"), *libraries]
    assert [line.split()[0] for line in lines] == expected
    assert all(len(line.split()) > 2 for line in lines)
    assert run_listing(verb, [], as_json=True) == 0
    ours = [r for r in json.loads(capsys.readouterr().out) if r["package"] == "dlfd-dist"]
    assert len(ours) >= 5
    assert main([verb, "everything"]) == 2
    assert "give nothing, or plugins=" in capsys.readouterr().err
