"""What an audit hands on: people by pseudonym, in no order of theirs, their images in bands."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import numpy as np

from dlfd_dist.evidence.pseudonyms import new_salt
from launch.results.audit import _csv, _world

PEOPLE = [f"person {letter}" for letter in "abcdefgh"]


def judged() -> SimpleNamespace:
    """Eight people with three to ten images, told by 4 models."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(8), np.arange(3, 11))
    return SimpleNamespace(
        scores=(rng.normal(1, 1, (4, len(person))), rng.normal(0, 1, (4, len(person)))),
        person_of_image=person, klom_forget=rng.random(len(person)),
        role="method", num_models=4, figures={}, roc=[],
    )  # fmt: skip


def test_neither_the_order_nor_a_number_of_images_tells_who_is_who():
    salt, one = new_salt(), judged()
    paths = [f"{number}.png" for number in range(len(one.person_of_image))]
    rows = list(csv.DictReader(io.StringIO(_csv({"dlfd": one}, PEOPLE, paths, salt))))  # type: ignore[dict-item]
    of_people = [row for row in rows if row["unit"] == "person"]
    assert {row["num_images"] for row in of_people} == {"3 to 4", "5 to 8", "9 to 16"}
    for unit in ("person", "image"):
        names = [row["pseudonym"] for row in rows if row["unit"] == unit]
        assert names == sorted(names)
    assert {row["pseudonym"] for row in of_people} == {salt.pseudonym(name) for name in PEOPLE}
    exposed = _world(one, 8, PEOPLE, salt)["most_exposed"]  # type: ignore[arg-type]
    assert {person["num_images"] for person in exposed} == {"3 to 4", "5 to 8", "9 to 16"}
