"""The setting that was meant is named, whatever other programs call it."""

from __future__ import annotations

import pytest

from dlfd_dist.compose.groups import known_settings
from dlfd_dist.config import METHOD_CONFIGS
from dlfd_dist.registry import OTHER_WORDS, near_setting


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("method.learning_rate", "method.lr"),
        ("train.batch_size", "train.global_batch_size"),
        ("data.img_size", "data.image_size"),
        ("image_size", "data.image_size"),
        ("method.clean", "method.clean_share"),
        ("method.image_size", "data.image_size"),
        ("methd.lr", "method.lr"),
        ("method.zzz", ""),
    ],
)
def test_the_setting_that_was_meant_is_one_of_its_own_section(name: str, meant: str):
    known = [
        "method.lr", "method.clean_share", "train.lr", "train.global_batch_size", "data.image_size",
    ]  # fmt: skip
    assert near_setting(name, known) == (f" Did you mean '{meant}'?" if meant else "")


def test_every_other_word_means_a_setting():
    names = {key.rpartition(".")[2] for key in known_settings(METHOD_CONFIGS["dlfd"])}
    assert set(OTHER_WORDS.values()) <= names
