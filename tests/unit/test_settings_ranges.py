"""Settings out of their range, and words that are no setting: the sentence that each gets.

tests/e2e/test_bad_input_settings.py shows that the command line says such a sentence and writes
nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from dlfd_dist.compose import compose_job, job_from_dict
from dlfd_dist.errors import ConfigError

UNLEARN: dict[str, Any] = {
    "verb": "unlearn",
    "checkpoint": "model.safetensors",
    "forget": {"fraction": 0.2},
}

RANGES: list[tuple[str, tuple[str, ...]]] = [
    ("seed=-1", ("seed=-1 is not allowed", ">= 0")),
    ("method=eu_k method.k=0", ("method.k=0 is not allowed", ">= 1")),
    ("method=cf_k method.k=0", ("method.k=0 is not allowed", ">= 1")),
    (
        "method=bad_teacher method.temperature=0.0",
        ("method.temperature=0.0 is not allowed", "above 0"),
    ),
    ("method=scrub method.temperature=-1.0", ("method.temperature=-1.0 is not allowed", "above 0")),
    (
        "method=scrub method.temperature=.inf",
        ("method.temperature=inf is not allowed", "a finite number"),
    ),
    (
        "method=unsir method.noise_penalty=.inf",
        ("method.noise_penalty=inf is not allowed", "a finite number"),
    ),
    (
        "method=neggrad_plus method.alpha=0.0",
        ("method.alpha=0.0 is not allowed", "above 0 and at most 1"),
    ),
    (
        "method=salun method.sparsity=1.0",
        ("method.sparsity=1.0 is not allowed", "at least 0 and below 1"),
    ),
    (
        "method=neggrad method.optimizer=sgdd",
        ("method.optimizer=sgdd is not allowed", "sgd, adam", "Did you mean 'sgd'?"),
    ),
    (
        "method=unsir method.retain_fraction=0.0",
        ("method.retain_fraction=0.0 is not allowed", "above 0 and at most 1"),
    ),
    (
        "method=bad_teacher method.retain_fraction=0.0",
        ("method.retain_fraction=0.0 is not allowed", "above 0 and at most 1"),
    ),
    (
        "method=unsir method.lr_scheduler=cosine",
        ("method.lr_scheduler=cosine is not allowed", "constant"),
    ),
    ("method=ssd method.selection=0.0", ("method.selection=0.0 is not allowed", "above 0")),
    ("method=l1_sparse method.l1_weight=-1.0", ("method.l1_weight=-1.0 is not allowed", ">= 0")),
    ("method=reset method.shrink=1.0", ("method.shrink=1.0 is not allowed", "below 1")),
    (
        "method=weight_distortion method.noise_std=0.0",
        ("method.noise_std=0.0 is not allowed", "above 0"),
    ),
    (
        "method=weight_dist_reg method.distance_weight=0.0",
        ("method.distance_weight=0.0 is not allowed", "above 0"),
    ),
    ("method=gli method.guide_steps=0", ("method.guide_steps=0 is not allowed", ">= 1")),
    ("method=gli method.guide_step_size=0.0", ("guide_step_size=0.0 is not allowed", "above 0")),
    ("method=fcs method.forget_lr=0.0", ("method.forget_lr=0.0 is not allowed", "above 0")),
    ("method=fcs method.lr_scheduler=cosine", ("lr_scheduler=cosine is not allowed", "constant")),
    ("method=msg method.reinit_share=1.0", ("reinit_share=1.0 is not allowed", "below 1")),
    ("method=msg method.kept_gradient=2.0", ("kept_gradient=2.0 is not allowed", "0 and 1")),
    ("method=amun method.attack_steps=0", ("method.attack_steps=0 is not allowed", ">= 1")),
    ("method=amun method.attack_radius=0.0", ("attack_radius=0.0 is not allowed", "above 0")),
    ("method=scrub method.forget_batch_size=0", ("forget_batch_size=0 is not allowed", ">= 1")),
    (
        "method=dlfd method.distancing=false method.classification=false",
        ("leave nothing to synthesise", "method=finetune"),
    ),
]
"""Values as YAML writes them: the rule is the section's, whoever read the value."""

WORDS: list[tuple[str, tuple[str, ...]]] = [
    ("method=dlfdd", ("method=dlfdd is not known", "finetune", "mean 'dlfd'?")),
    ("method=bad_techer", ("method=bad_techer is not known", "scrub", "mean 'bad_teacher'?")),
    (
        "method=scrub method.alpha=0.5",
        ("method=scrub has no setting 'method.alpha'", "which belongs to method=neggrad_plus:"),
    ),
    (
        "method=scrub method.temperature=inf",
        ("method.temperature=inf is not allowed", "a finite number"),
    ),
    (
        "method=unsir method.noise_penalty=1e400",
        ("method.noise_penalty=inf is not allowed", "a finite number"),
    ),
    (
        "method=bad_teacher method.temperature=0",
        ("method.temperature=0.0 is not allowed", "above 0"),
    ),
    ("model=resnet81", ("model=resnet81 is not known", "Did you mean 'resnet18'?")),
    ("data=orll", ("data=orll is not known", "Did you mean 'orl'?")),
    ("train.epoch=2", ("'train.epoch' is not known", "Did you mean 'train.epochs'?")),
    ("train.epochs", ("'train.epochs' is not understood", "key=value")),
    ("train.epochs=many", ("train.epochs", "many")),
    ("forget.request=people.txt", ("forget.request and forget.fraction are both set",)),
]
"""What is wrong about the words themselves, as they are typed."""


def _id(value: object) -> str:
    return value if isinstance(value, str) else ""


def values_of(words: str) -> dict[str, Any]:
    """Return the nested dictionary of `section.setting=value` words."""
    values: dict[str, Any] = copy.deepcopy(UNLEARN)
    for word in words.split():
        key, text = word.split("=", 1)
        *sections, name = f"{key}.name".split(".") if key == "method" else key.split(".")
        into = values
        for section in sections:
            into = into.setdefault(section, {})
        into[name] = yaml.safe_load(text)
    return values


def assert_says(error: pytest.ExceptionInfo[ConfigError], phrases: Sequence[str]) -> None:
    sentence = str(error.value)
    for phrase in phrases:
        assert phrase in sentence
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence


@pytest.mark.parametrize(("words", "phrases"), RANGES, ids=_id)
def test_a_value_out_of_range_is_named_with_its_range(words: str, phrases: tuple[str, ...]):
    with pytest.raises(ConfigError) as error:
        job_from_dict(values_of(words))
    assert_says(error, phrases)


@pytest.mark.parametrize("method", sorted({words.split()[0] for words, _ in RANGES[1:]}))
def test_without_the_wrong_value_the_method_is_taken(method: str):
    assert job_from_dict(values_of(method)).verb == "unlearn"


@pytest.mark.parametrize(("words", "phrases"), WORDS, ids=_id)
def test_a_word_that_is_no_setting_is_named_with_what_was_meant(
    words: str, phrases: tuple[str, ...]
):
    given = ["checkpoint=model.safetensors", "forget.fraction=0.2"]
    with pytest.raises(ConfigError) as error:
        compose_job("unlearn", [*given, *words.split()])
    assert_says(error, phrases)


def test_a_list_for_one_run_is_sent_to_compare():
    with pytest.raises(ConfigError) as error:
        compose_job("train", ["seed=0,1"])
    assert_says(error, ("seed=0,1 lists several values", "dlfd compare"))


@pytest.mark.parametrize(
    ("words", "world_size", "phrases"),
    [
        (
            "method=dlfd_official method.probe_every=1 synthesis.layer=logits",
            2,
            ("dlfd_official runs on one rank only, not 2", "runtime.world_size=1"),
        ),
        (
            "method=dlfd_official method.probe_every=1 synthesis.layer=features",
            1,
            ("synthesis.layer=features", "set synthesis.layer=logits"),
        ),
        (
            "method=finetune method.global_batch_size=3",
            4,
            ("runtime.world_size=4", "method.global_batch_size=3", "Use fewer ranks"),
        ),
        (
            "verb=train train.global_batch_size=3",
            4,
            ("runtime.world_size=4", "train.global_batch_size=3", "Use fewer ranks"),
        ),
    ],
    ids=_id,
)
def test_settings_that_do_not_fit_together_are_both_named(
    words: str, world_size: int, phrases: tuple[str, ...]
):
    with pytest.raises(ConfigError) as error:
        job_from_dict(values_of(words)).validate(world_size)
    assert_says(error, phrases)
