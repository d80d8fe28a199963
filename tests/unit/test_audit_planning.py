"""launch/plan/audit.py: who is forgotten by which shadow model, and what is refused."""

from __future__ import annotations

from collections import Counter

import pytest

from dlfd_dist.data.loaders import resolve_rows
from dlfd_dist.errors import ConfigError
from launch.execute.batches import make_batches
from launch.plan.audit import CONTROL_SEED, audit_of, trainings, unlearnings
from launch.plan.campaign import plan_campaign

GIVEN = ["ulira", "data=synthetic", "run.dir=out"]


def people_of(config) -> frozenset[str]:
    rows = resolve_rows(config.data, config.forget, draw=False)
    return frozenset(line.entry for line in rows.request.lines)


def forgotten(*words: str) -> list[frozenset[str]]:
    return [people_of(o.config) for o in trainings(audit_of([*GIVEN, *words])) if
            o.role == "retrained"]  # fmt: skip


def test_every_shadow_has_original_retrained_control_and_the_methods():
    plan = audit_of([*GIVEN, "audit.models=2", "method=dlfd,finetune"])
    assert [one.label for one in trainings(plan)] == [
        "retrained seed 0", "control seed 0", "original seed 0",
        "retrained seed 1", "control seed 1", "original seed 1",
    ]  # fmt: skip
    assert [one.label for one in unlearnings(plan)] == [
        "dlfd seed 0", "finetune seed 0", "dlfd seed 1", "finetune seed 1",
    ]  # fmt: skip
    assert {one.title for one in unlearnings(plan)} == {"dlfd", "finetune"}


def test_all_models_of_a_shadow_forget_the_same_people_and_the_control_has_another_seed():
    plan = audit_of([*GIVEN, "audit.models=2"])
    runs = [*trainings(plan), *unlearnings(plan)]
    for seed in (0, 1):
        mine = [one for one in runs if one.train_seed == seed]
        assert len({people_of(one.config) for one in mine}) == 1
        seeds = {one.role: one.config.seed for one in mine}
        assert seeds == {
            "original": seed, "retrained": seed, "method": seed, "control": seed + CONTROL_SEED,
        }  # fmt: skip


@pytest.mark.parametrize(("fraction", "shadows"), [("0.5", 8), ("0.25", 12), ("0.3", 9)])
def test_forget_sets_have_equal_size_and_cover_everybody_equally_often(fraction, shadows):
    sets = forgotten(f"forget.fraction={fraction}", f"audit.models={shadows}")
    assert len(set(map(len, sets))) == 1
    assert len(set(sets)) == shadows
    counts = Counter(person for people in sets for person in people)
    assert max(counts.values()) - min(counts.values()) <= (0 if fraction != "0.3" else shadows / 3)


def test_more_models_begin_with_the_same_ones():
    few, many = (audit_of([*GIVEN, f"audit.models={n}"]) for n in (2, 4))
    for runs in (trainings, unlearnings):
        ours, theirs = runs(few), runs(many)
        assert [o.config for o in ours] == [t.config for t in theirs][: len(ours)]


def test_a_request_is_forgotten_by_all_shadows(tmp_path):
    request = tmp_path / "request.txt"
    request.write_text("0003\n")
    plan = audit_of([*GIVEN, f"forget.request={request}", "audit.models=3"])
    assert not plan.draws
    assert len({repr(one.config.forget) for one in [*trainings(plan), *unlearnings(plan)]}) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"'dlfd audit ' is not known: it takes leaks, ulira or klom"),
        (["lira"], r"'dlfd audit lira' is not known"),
        (["ulira", "audit.models=1"], r"audit.models=1 is not allowed: it must be >= 2"),
        (["ulira", "audit.model=4"], r"'audit.model' is not known. Did you mean 'audit.models'"),
        (["ulira", "audit.variance=all"], r"audit.variance=all is not"),
        (["ulira", "seed=0,1"], r"seed=0,1 is not allowed: an audit takes one seed"),
        (["klom", "compare.tune=2"], r"compare.tune is a setting of 'dlfd compare'"),
        (["klom", "forget.seed=2"], r"forget.seed is not a setting of 'dlfd audit'"),
        (["klom", "metrics.seed=0,1"], r"metrics.seed lists several values"),
        (["klom", "train.lr=0.1,0.2"], r"train.lr lists several values"),
    ],
)
def test_bad_input_is_one_sentence(words, message):
    with pytest.raises(ConfigError, match=message):
        audit_of([*words, "data=synthetic"] if words else words)


# --- as a campaign


def test_a_campaign_chains_every_shadow_to_its_own_models():
    campaign = plan_campaign("audit", [*GIVEN, "audit.models=3", "method=dlfd,finetune"])
    by_key = campaign.by_key
    assert len(by_key) == 3 * (3 + 2)
    for run in campaign.runs:
        parents = {by_key[key].label for key in run.parents}
        own = {f"original seed {run.train_seed}", f"retrained seed {run.train_seed}"}
        assert parents == (own if run.role == "method" else set())
    stages = make_batches(campaign.runs, campaign.cluster, 1)
    chained = [batch for batch in stages if batch.parents]
    # One array over the shadows, each task of which waits for the task of its own number.
    (array,) = chained
    assert array.by_task
    for number, unit in enumerate(array.units):
        trained = {key for batch in stages if not batch.parents for key in batch.units[number]}
        assert trained.issuperset(parent for key in unit for parent in by_key[key].parents)
    assert sorted(key for batch in stages for unit in batch.units for key in unit) == sorted(by_key)
