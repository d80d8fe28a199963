"""Accuracy by group: the figures, and data.groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlfd_dist.compose import compose_job
from dlfd_dist.data.loaders import resolve_rows
from dlfd_dist.errors import DataError
from dlfd_dist.metrics.groups import accuracy_by_group, interval_over_people, worst_group
from tests.fakes.groups import words, write_groups


def one_image_each(*groups: tuple[str, int, float, float]) -> tuple[np.ndarray, ...]:
    """Return values, people, after and before of (name, people, share right before, after)."""
    values = np.repeat([g[0] for g in groups], [g[1] for g in groups])
    before, after = (
        np.concatenate([np.arange(g[1]) < round(g[k] * g[1]) for g in groups]).astype(float)
        for k in (2, 3)
    )
    return values, np.arange(len(values)), after, before


def test_the_worst_group_is_the_one_that_lost_most_beside_the_mean():
    found = accuracy_by_group(*one_image_each(("a", 20, 0.9, 0.9), ("b", 20, 0.9, 0.5)))
    assert (found["a"]["change"], found["b"]["change"]) == pytest.approx((0, -0.4))
    worst = worst_group(found)
    assert worst is not None
    assert worst["group"] == "b"
    assert (worst["change"], worst["mean_change"]) == pytest.approx((-0.4, -0.2))
    low, high = worst["change_interval"]
    assert low < -0.4 < high < -0.1


def test_a_group_of_few_people_is_too_small_however_many_images_it_has():
    values = np.repeat(["a", "b"], [90, 90])
    people = np.concatenate([np.repeat(np.arange(30), 3), np.repeat(np.arange(100, 115), 6)])
    after, before = np.ones(180), np.ones(180)
    after[90:] = 0
    found = accuracy_by_group(values, people, after, before)
    assert [found[g]["too_small"] for g in "ab"] == [False, True]
    worst = worst_group(found)
    assert worst is not None
    assert (worst["group"], worst["change"], worst["mean_change"]) == ("a", 0.0, -0.5)
    assert worst_group({"b": found["b"]}) is None


def test_without_a_model_before_there_is_no_change():
    values, people, after, _ = one_image_each(("a", 12, 0, 0.5))
    found = accuracy_by_group(values, people, after)
    assert (found["a"]["accuracy"], found["a"]["change"]) == (0.5, None)
    assert worst_group(found) is None


def test_an_interval_treats_people_as_independent_and_not_their_images():
    """Of 20 people with 8 alike images each, it covers the mean as often as it says."""
    rng, covered, naive = np.random.default_rng(0), 0, 0
    people = np.repeat(np.arange(20), 8)
    for _ in range(400):
        values = rng.normal(size=20)[people] + 0.1 * rng.normal(size=160)
        low, high = interval_over_people(values, people) or (0, 0)
        covered += low <= 0 <= high
        low, high = interval_over_people(values, np.arange(160)) or (0, 0)
        naive += low <= 0 <= high
    assert 0.92 < covered / 400 < 0.98
    assert naive / 400 < 0.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_groups(tmp_path_factory.mktemp("set"))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("[gendre]", r"data.groups=gendre is no column of .* Did you mean 'gender'"),
        ("[note]", r"data.groups=note has 72 values: name a column of at most 50"),
    ],
)
def test_a_column_that_is_no_group_is_refused_in_a_sentence(folder, groups, message):
    config = compose_job("train", words(folder, f"data.groups={groups}"))
    with pytest.raises(DataError, match=message):
        resolve_rows(config.data, config.drawn_forget)


@pytest.mark.parametrize("given", ["gender,note", "[gender,note]"])
def test_several_columns_may_be_given_with_and_without_brackets(folder, given):
    assert compose_job("train", words(folder, f"data.groups={given}")).data.groups == [
        "gender", "note",
    ]  # fmt: skip


def test_groups_of_a_set_without_columns_are_refused():
    config = compose_job("train", ["data=orl", "data.groups=gender", "forget.fraction=0.2"])
    with pytest.raises(DataError, match="data.groups=gender is not known with data=orl"):
        resolve_rows(config.data, config.drawn_forget)
