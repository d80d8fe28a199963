"""jobs/course.py: which samples every step of a run sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from dlfd_dist.config import METHOD_CONFIGS, MethodConfig
from dlfd_dist.data.splits import Splits
from dlfd_dist.jobs.course import Course, Turn, fitted
from dlfd_dist.methods import Phase, methods
from dlfd_dist.runtime.sampler import EpochSampler

TRAIN = np.arange(100, 140)
FORGET = TRAIN[3::4]
RETAIN = np.setdiff1d(TRAIN, FORGET)
SPLITS = Splits(TRAIN, RETAIN, FORGET, np.arange(5), np.arange(5, 9))
"""30 retain and 10 forget images: in batches of 8 that is 4 and 2 steps, 5 of both together."""

EVERY_KIND = [
    Phase("look", over="forget"),
    Phase("mix", over="mixed", epochs=2, retain_fraction=0.5),
    Phase("learn", epochs=2, first_epoch=1),
    Phase("again", over="forget", epochs=2, first_epoch=3),
    Phase("both", over="forget", retain_rides=True),
]
"""2 + 2 * 4 + 2 * 4 + 2 * 2 + 2 steps."""


def course(phases: Sequence[Phase], *, seed: int = 0, max_steps: int | None = None, **values):
    cfg = MethodConfig(global_batch_size=8, max_steps=max_steps)
    return Course(phases, SPLITS, cfg, seed, **values)


def turns(phases: Sequence[Phase], first: int = 0, **values) -> list[Turn]:
    return list(course(phases, **values).turns(first))


def ids_of(found: Sequence[Turn], part: str = "retain") -> list[int]:
    return [int(i) for turn in found for i in getattr(turn, part)]


def plain(turn: Turn) -> tuple:
    """Return a turn as something that can be compared."""
    ids = turn.retain.tolist(), turn.forget.tolist()
    return turn.index, turn.epoch, turn.phase, *ids, turn.ends_phase


@pytest.mark.parametrize("shuffle", [True, False])
def test_one_phase_over_retain_has_the_orders_of_plain_samplers(shuffle):
    """As before there were phases: a run of dlfd or finetune keeps its numbers."""
    found = turns([Phase("unlearn", epochs=3)], seed=5, shuffle=shuffle)
    settings = {"batch_size": 8, "seed": 5, "shuffle": shuffle}
    retain = EpochSampler(RETAIN, purpose="retain order", **settings)
    forget = EpochSampler(FORGET, purpose="forget order", **settings)
    assert len(found) == 12
    for index, turn in enumerate(found):
        assert turn.retain.tolist() == retain.step(index).ids.tolist()
        assert turn.forget.tolist() == forget.step(index).ids.tolist()
        assert (turn.index, turn.epoch) == (index, index // 4)


def test_phases_follow_each_other_and_number_their_epochs():
    found = turns(EVERY_KIND)
    assert [t.index for t in found] == list(range(24)) == list(range(course(EVERY_KIND).num_steps))
    assert [t.phase.name for t in found] == [
        *["look"] * 2, *["mix"] * 8, *["learn"] * 8, *["again"] * 4, *["both"] * 2,
    ]  # fmt: skip
    assert [t.epoch for t in found] == [
        *[0] * 2, *[0] * 4, *[1] * 4, *[1] * 4, *[2] * 4, *[3] * 2, *[4] * 2, *[0] * 2,
    ]  # fmt: skip
    assert [t.index + 1 for t in found if t.ends_phase] == [2, 10, 18, 22, 24]


@pytest.mark.parametrize("over", ["retain", "forget", "mixed"])
def test_an_epoch_covers_its_set_once(over):
    covered = {"retain": (RETAIN, 4), "forget": (FORGET, 2), "mixed": (TRAIN, 5)}
    expected, steps = covered[over]
    found = turns([Phase("p", over=over, epochs=3)])
    orders = []
    for epoch in range(3):
        own = [t for t in found if t.epoch == epoch]
        ids = ids_of(own) if over == "retain" else ids_of(own) + ids_of(own, "forget")
        assert len(own) == steps
        assert sorted(ids) == expected.tolist()
        orders.append(tuple(ids))
    assert len(set(orders)) == 3


def test_a_phase_over_forget_has_no_retain_images():
    found = turns([Phase("p", over="forget")])
    assert ids_of(found) == []
    assert [len(t.forget) for t in found] == [8, 2]


@pytest.mark.parametrize(("fraction", "count"), [(1.0, 30), (0.5, 15), (0.3, 9), (0.001, 1)])
@pytest.mark.parametrize("over", ["retain", "mixed"])
def test_a_share_of_the_retain_set_is_drawn_once(over, fraction, count):
    phases = [Phase(f"p{n}", over=over, epochs=2, retain_fraction=fraction) for n in range(2)]
    found = turns(phases, seed=4)
    drawn = sorted(set(ids_of(found)))
    assert len(drawn) == count
    assert set(drawn) <= set(RETAIN.tolist())
    for phase in phases:
        for epoch in range(2):
            own = [t for t in found if t.phase is phase and t.epoch == epoch]
            assert sorted(ids_of(own)) == drawn
            if over == "mixed":
                assert sorted(ids_of(own, "forget")) == FORGET.tolist()
    if 1 < count < 30:
        assert sorted(set(ids_of(turns(phases, seed=5)))) != drawn


def test_a_mixed_batch_holds_what_was_drawn_of_either_set():
    found = turns([Phase("p", over="mixed", epochs=20)])
    assert {len(t.retain) + len(t.forget) for t in found} == {8}
    assert set(ids_of(found)) == set(RETAIN.tolist())
    assert set(ids_of(found, "forget")) == set(FORGET.tolist())
    assert len({len(t.forget) for t in found}) > 2
    assert any(len(t.forget) == 0 for t in found), "a batch may have nobody to forget"


@pytest.mark.parametrize("max_steps", [None, 13])
def test_every_step_can_be_resumed_from(max_steps):
    whole = [plain(t) for t in turns(EVERY_KIND, max_steps=max_steps)]
    for first in range(len(whole) + 1):
        assert [plain(t) for t in turns(EVERY_KIND, first, max_steps=max_steps)] == whole[first:]


@pytest.mark.parametrize(("max_steps", "ends"), [(1, []), (2, [2]), (13, [2, 10]), (99, None)])
def test_max_steps_cuts_the_course(max_steps, ends):
    whole = [plain(t) for t in turns(EVERY_KIND)]
    found = turns(EVERY_KIND, max_steps=max_steps)
    assert [plain(t) for t in found] == whole[:max_steps]
    assert course(EVERY_KIND, max_steps=max_steps).num_steps == len(found)
    if ends is not None:
        assert [t.index + 1 for t in found if t.ends_phase] == ends


def test_steps_of_unequal_batches_are_passed_over_and_keep_their_numbers():
    phases = [Phase("unlearn", epochs=3)]
    whole = turns(phases)
    kept = [plain(t) for t in whole if len(t.retain) == len(t.forget)]
    assert 0 < len(kept) < len(whole)
    assert [plain(t) for t in turns(phases, equal_batches=True)] == kept
    assert [plain(t) for t in turns(phases, 5, equal_batches=True)] == [
        turn for turn in kept if turn[0] >= 5
    ]


def test_every_phase_has_an_order_of_its_own():
    found = turns([Phase("one"), Phase("two"), Phase("three", over="forget"), Phase("four")])
    orders = [tuple(ids_of([t for t in found if t.phase.name == n])) for n in ("one", "two")]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    orders = [
        tuple(ids_of([t for t in found if t.phase.name == n], "forget")[:10])
        for n in ("one", "two", "three", "four")
    ]
    assert len(set(orders)) == 4


def test_the_seed_gives_the_order():
    one, again, other = ([plain(t) for t in turns(EVERY_KIND, seed=s)] for s in (1, 1, 2))
    assert one == again != other


def test_retain_batches_ride_along_with_a_pass_over_forget_and_go_on_where_they_were():
    found = turns([Phase("both", over="forget", epochs=2, retain_rides=True)])
    assert [sorted(ids_of(found[n : n + 2], "forget")) for n in (0, 2)] == [FORGET.tolist()] * 2
    assert sorted(ids_of(found)) == RETAIN.tolist()
    assert [len(turn.retain) for turn in found] == [8, 8, 8, 6]
    assert [turn.ends_phase for turn in found] == [False] * 3 + [True]


def test_a_forget_batch_may_be_smaller_than_a_retain_batch():
    found = turns([Phase("leave", over="forget", forget_batch=4)])
    assert [len(turn.forget) for turn in found] == [4, 4, 2]
    assert not ids_of(found)


def test_as_many_retain_images_as_forget_images_are_drawn():
    found = turns([Phase("mix", over="mixed", epochs=2, retain_fraction=None)])
    for half in (found[:3], found[3:]):
        assert sorted(ids_of(half, "forget")) == FORGET.tolist()
        assert sorted(ids_of(half)) == sorted(ids_of(found[:3]))
        assert len(set(ids_of(half)) & set(RETAIN.tolist())) == len(FORGET)


def test_off_shuffling_every_epoch_keeps_the_order_of_the_ids():
    found = turns([Phase("p", epochs=2), Phase("m", over="mixed")], shuffle=False)
    assert ids_of(found[:4]) == ids_of(found[4:8]) == RETAIN.tolist()
    assert ids_of(found[8:]) == RETAIN.tolist()


@pytest.mark.parametrize("name", sorted(METHOD_CONFIGS))
def test_every_method_declares_phases_that_make_a_course(name):
    cfg = METHOD_CONFIGS[name](name=name, epochs=2, global_batch_size=8)
    build = methods.get(name)
    found = Course(build.phases(cfg), SPLITS, cfg, 0, equal_batches=build.equal_batches)
    assert found.num_steps >= 2
    for turn in found.turns(0):
        assert len(turn.retain) + len(turn.forget) > 0
        assert 0 <= turn.epoch < max(2, cfg.epochs)


# --- method.steps

ITERATIVE = [name for name, cls in METHOD_CONFIGS.items() if cls.takes_steps]


def with_steps(name: str, steps: int, **values) -> tuple[MethodConfig, Course]:
    cfg = METHOD_CONFIGS[name](name=name, steps=steps, global_batch_size=8, **values)
    cfg = fitted(cfg, methods.get(name), SPLITS)
    return cfg, Course(methods.get(name).phases(cfg), SPLITS, cfg, 0)


@pytest.mark.parametrize("steps", [1, 3, 50])
@pytest.mark.parametrize("name", ITERATIVE)
def test_every_method_takes_so_many_optimiser_steps_over_all_its_phases(name: str, steps: int):
    cfg, found = with_steps(name, steps, epochs=2)
    taken = list(found.turns(0))
    assert len(taken) == found.num_steps
    assert sum(turn.phase.updates for turn in taken) == steps
    # Schedules over the epochs end with the last of them, and none is left out.
    if name != "unsir":
        assert max(turn.epoch for turn in taken) == cfg.epochs - 1


def test_a_method_takes_steps_where_a_phase_of_it_does():
    for name, cls in METHOD_CONFIGS.items():
        phases = methods.get(name).phases(cls(name=name))
        assert any(phase.updates for phase in phases) == cls.takes_steps
    cfg, found = with_steps("ssd", 3)
    assert (cfg.epochs, found.num_steps) == (1, 5)


@pytest.mark.parametrize(("repair_epochs", "shares"), [(1, [5, 5]), (3, [3, 7])])
def test_unsir_shares_its_steps_out_as_its_epochs_are(repair_epochs: int, shares: list[int]):
    _, found = with_steps("unsir", 10, repair_epochs=repair_epochs)
    names = [turn.phase.name for turn in found.turns(0)]
    assert [names.count("impair"), names.count("repair")] == shares


@pytest.mark.parametrize(
    ("name", "values", "ends_in"),
    [("fcs", {}, "repair"), ("scrub", {"max_epochs": 9, "forget_batch_size": 2}, "min")],
)
def test_a_method_of_rounds_ends_its_steps_on_weights_to_keep(name, values, ends_in):
    for steps in range(6, 30):
        _, found = with_steps(name, steps, **values)
        taken = list(found.turns(0))
        assert (len(taken), taken[-1].phase.name) == (steps, ends_in)
        for first in range(steps):
            assert [turn.index for turn in found.turns(first)] == list(range(first, steps))


def test_steps_may_be_resumed_from_and_end_a_phase_where_they_end():
    _, found = with_steps("unsir", 10)
    whole = list(found.turns(0))
    assert [turn.index for turn in whole if turn.ends_phase] == [4, 9]
    for first in range(len(whole)):
        assert list(map(plain, found.turns(first))) == list(map(plain, whole[first:]))
