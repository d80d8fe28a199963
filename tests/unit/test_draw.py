"""data/draw.py: whom forget.fraction draws, and what labels they have."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from dlfd_dist.config import ForgetConfig, JobConfig
from dlfd_dist.data.draw import draw_people
from dlfd_dist.data.forget_request import draw_request
from dlfd_dist.data.label_shares import ALIKE, forget_labels, label_shares
from dlfd_dist.data.manifest import Manifest
from dlfd_dist.data.splits import make_splits


def faces(num_people: int, num_classes: int, seed: int, images: int = 6) -> tuple:
    """Return labels and people of a set in which most images of a person share a label."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(num_people), rng.integers(1, images, num_people))
    usual = rng.integers(0, num_classes, num_people)[people]
    return np.where(rng.random(len(people)) < 0.8, usual, rng.integers(0, num_classes)), people


def difference(labels: np.ndarray, people: np.ndarray, chosen: np.ndarray, wanted: np.ndarray):
    return np.abs(label_shares(labels[np.isin(people, chosen)], len(wanted)) - wanted).max()


@pytest.mark.parametrize("seed", range(20))
def test_the_difference_is_within_the_tolerance_or_the_smallest_of_all_subsets(seed):
    labels, people = faces(11, 3, seed)
    wanted = np.random.default_rng(seed).dirichlet(np.ones(3))
    chosen = draw_people(labels, people, wanted, num=4, seed=seed)
    subsets = itertools.combinations(range(11), 4)
    smallest = min(difference(labels, people, np.array(s), wanted) for s in subsets)
    assert len(set(chosen.tolist())) == 4
    assert difference(labels, people, chosen, wanted) <= max(smallest, ALIKE) + 1e-9


@pytest.mark.parametrize(("num_people", "num"), [(10_000, 12), (10_000, 2000), (300, 60)])
def test_large_sets_meet_other_shares_than_their_own(num_people, num):
    labels, people = faces(num_people, 8, 0)
    wanted = np.random.default_rng(1).dirichlet(np.full(8, 3.0))
    own = label_shares(labels, 8)
    assert np.abs(own - wanted).max() > 2 * ALIKE
    chosen = draw_people(labels, people, wanted, num=num, seed=0)
    assert len(chosen) == num
    assert difference(labels, people, chosen, wanted) <= ALIKE + 1e-9


def test_every_label_of_a_multi_label_task_has_its_share():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 3)
    labels = (rng.random((120, 5)) < rng.uniform(0.3, 0.7, 5)).astype(np.int64)
    wanted = np.clip(labels.mean(axis=0) + [0.15, -0.15, 0.1, 0, 0], 0, 1)
    chosen = draw_people(labels, people, wanted, num=10, seed=3)
    assert difference(labels, people, chosen, wanted) <= ALIKE + 1e-9


def manifest_of(labels: np.ndarray, identities: np.ndarray, splits: np.ndarray) -> Manifest:
    return Manifest(
        root=Path(), image_paths=[f"{i}.png" for i in range(len(labels))], identities=identities,
        labels=labels, splits=splits, label_names=["no", "yes"], title="drawn",
    )  # fmt: skip


def one_label_a_person(train: list[int], test: list[int]) -> Manifest:
    labels = np.repeat([*train, *test], 2)
    people = np.char.add("p", np.repeat(np.arange(len(labels) // 2), 2).astype(str))
    splits = np.array(["train"] * (2 * len(train)) + ["test"] * (2 * len(test)))
    return manifest_of(labels, people, splits)


def test_a_draw_has_the_labels_of_test_where_uniform_draws_have_not():
    """As on ORL: few people, each with one label, so that a plain draw is often of one class."""
    manifest = one_label_a_person([0] * 20 + [1] * 8, [0, 0, 1])
    found = []
    for seed in range(30):
        request = draw_request(0.2, seed, manifest, manifest.splits)
        labels = forget_labels(manifest, make_splits(manifest.splits, request.rows))
        assert labels is not None
        assert labels.alike
        found.append(tuple(request.rows))
    assert len(set(found)) == 30
    assert draw_request(0.2, 4, manifest, manifest.splits).rows.tolist() == list(found[4])


def test_labels_that_no_draw_can_have_are_recorded_as_different():
    manifest = one_label_a_person([0] * 8, [0, 1])
    request = draw_request(0.25, 0, manifest, manifest.splits)
    labels = forget_labels(manifest, make_splits(manifest.splits, request.rows))
    assert labels is not None
    assert labels.to_dict() == {
        "forget": {"no": 1.0, "yes": 0.0}, "unseen": {"no": 0.5, "yes": 0.5},
        "largest_difference": 0.5, "alike": False,
    }  # fmt: skip
    assert "The label no has a share of 1.00 in the forget set and of 0.50" in labels.sentence


def test_where_nobody_is_forgotten_there_are_no_labels():
    manifest = one_label_a_person([0, 1, 1], [0, 1])
    assert forget_labels(manifest, make_splits(manifest.splits, np.array([], dtype=int))) is None


def test_rounds_forget_everybody_equally_often_whatever_their_labels():
    manifest = one_label_a_person([0] * 7 + [1], [0, 1])
    drawn = [draw_request(0.25, s, manifest, manifest.splits, rounds=True).rows for s in range(4)]
    assert sorted(np.concatenate(drawn).tolist()) == list(range(16))


@pytest.mark.parametrize(("given", "expected"), [(None, 3), (0, 0), (7, 7)])
def test_the_draw_follows_the_seed_of_the_run_unless_it_has_its_own(given, expected):
    config = JobConfig(seed=3, forget=ForgetConfig(fraction=0.2, seed=given))
    assert config.drawn_forget == ForgetConfig(fraction=0.2, seed=expected)
