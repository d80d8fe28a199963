"""methods/dlfd.py: when synthesis rests, and that a resumed run knows of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from dlfd_dist.config import DLFDConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.jobs import run_job
from dlfd_dist.jobs import unlearn as unlearn_module
from dlfd_dist.jobs.context import prepare
from dlfd_dist.methods import Probe
from dlfd_dist.methods.dlfd import DLFD
from dlfd_dist.models import task_divergence, task_loss
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.method_lab import PLAIN, lab, original, weights


def probe(score: float) -> Probe:
    return Probe(1, 0.7, 0.7, score, 0.5, 0.8)


def made(**settings: Any):
    return lab("dlfd", dynamic=True, forget_threshold=0.1, **settings).method


def test_synthesis_rests_while_the_forgetting_score_is_at_most_the_threshold():
    method = made()
    assert method.synthesising
    for score, synthesises in ((0.2, True), (0.1, False), (0.05, False), (0.11, True)):
        assert method.observe(probe(score)) == {"synthesis": synthesises}
        assert method.synthesising is synthesises


def test_without_the_dynamic_strategy_synthesis_never_rests():
    method = made()
    method.cfg = replace(method.cfg, dynamic=False)
    assert [method.observe(probe(score))["synthesis"] for score in (0.2, 0.0)] == [True, True]


def test_a_step_synthesises_only_where_synthesis_does_not_rest():
    for score, told in ((0.2, True), (0.05, False)):
        found = lab("dlfd", dynamic=True, forget_threshold=0.1)
        found.method.observe(probe(score))
        _, numbers = next(found.walk())
        assert numbers["synthesised"] is told
        assert ("ot_cost" in numbers) is told


@pytest.mark.parametrize("score", [0.2, 0.05])
def test_a_resumed_run_knows_whether_synthesis_rests(score: float):
    before, after = made(), made()
    before.observe(probe(score))
    after.load_state_dict(before.state_dict())
    assert after.synthesising is before.synthesising


def test_the_first_step_synthesises_whatever_was_measured_before_it():
    method = made()
    assert method.observe(replace(probe(0.0), step=0)) == {"synthesis": True}
    assert method.observe(probe(0.0)) == {"synthesis": False}


def test_a_share_of_the_first_score_is_the_threshold_also_of_a_resumed_run():
    method, resumed = made(forget_share=0.5), made(forget_share=0.5)
    method.observe(replace(probe(0.3), step=0))
    resumed.load_state_dict(method.state_dict())
    for run in (method, resumed):
        assert [run.observe(probe(s))["synthesis"] for s in (0.16, 0.15)] == [True, False]


def test_whose_probes_stop_the_synthesis_are_no_part_of_whom_weights_are_chosen_on(
    tiny, trained, tmp_path, monkeypatch
):
    heard, told = [], []
    observe, look = DLFD.observe, unlearn_module.probe_apart

    def apart(model, batches, config, step, ids):
        heard.append(set(batches.data.manifest.identities[ids]))
        return replace(look(model, batches, config, step, ids), forgetting_score=0.25)

    def watched(self, found):
        told.append(found.forgetting_score)
        return observe(self, found)

    monkeypatch.setattr(unlearn_module, "probe_apart", apart)
    monkeypatch.setattr(DLFD, "observe", watched)
    config = tiny(
        "unlearn", "method=dlfd", f"checkpoint={trained('data.val_fraction=0.3')}",
        f"run.dir={tmp_path / 'run'}", "method.probe_fraction=0.5", "method.max_steps=2",
        "metrics.resurface_steps=0", "data.val_fraction=0.3",
    )  # fmt: skip
    data = prepare(config, 1).data
    result = run_job(config, Collectives(), StopFlag())
    chosen_on = set(data.manifest.identities[data.splits.val])
    assert chosen_on
    assert all(people and not people & chosen_on for people in heard)
    # The method goes by these people alone, and by the others synthesis would rest.
    assert told == [0.25] * 3
    events = read_events(RunDir(tmp_path / "run").metrics)
    assert [e["synthesised"] for e in events if e["event"] == "step"] == [True, True]
    probes = [e for e in events if e["event"] == "probe"]
    assert all(e["forgetting_score"] <= 0.05 < e["heard_forgetting_score"] for e in probes)
    assert result["probed_people"]["people"] == len(heard[0])
    assert result["num_images"]["val"] == len(data.splits.val)


def seen_by_update(monkeypatch: pytest.MonkeyPatch, found: Any, batch: Any) -> torch.Tensor:
    """Return which images of a batch an update was given as they are."""
    given: list[torch.Tensor] = []
    step = found.updater.step

    def watched(images: torch.Tensor, *rest: Any, **more: Any) -> dict[str, float]:
        given.append(images)
        return step(images, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(found.updater, "step", watched)
        found.method.step(batch, found.updater, stop=False)
    return (given[0] == batch.images).flatten(1).all(1)


@pytest.mark.parametrize(("share", "clean"), [(0.0, 0), (0.5, 2), (0.75, 3)])
def test_a_share_of_the_images_of_an_update_is_as_it_was(monkeypatch, share, clean):
    found = lab("dlfd", clean_share=share)
    turn = next(iter(found.course.turns(0)))
    assert int(seen_by_update(monkeypatch, found, found.batch(turn)).sum()) == clean


def test_other_images_stay_clean_in_another_step(monkeypatch):
    found = lab("dlfd", clean_share=0.5)
    batch = found.batch(next(iter(found.course.turns(0))))
    masks = [
        tuple(seen_by_update(monkeypatch, found, replace(batch, index=index)).tolist())
        for index in range(6)
    ]
    assert len(set(masks)) > 1


def test_distillation_holds_the_unperturbed_images_to_the_answers_of_original():
    found, start = lab("dlfd", kd_weight=2.0, **PLAIN), original().eval()
    found.method.observe(probe(0.0))  # synthesis rests: every image is unperturbed
    first, second = (found.batch(turn) for turn in list(found.course.turns(0))[:2])
    found.method.step(first, found.updater, stop=False)
    with torch.no_grad():
        logits = found.model.eval()(second.images).logits
        target = start(second.images).logits
        apart = task_divergence(logits, target, second.labels).mean()
        expected = float(task_loss(logits, second.labels) + 2 * apart)
    numbers = found.method.step(second, found.updater, stop=False)
    assert numbers["loss"] == pytest.approx(expected, rel=1e-9)
    assert numbers["retain_divergence"] > 0


@pytest.mark.parametrize(("rests", "share"), [("synthesis", 1.0), ("rate", 0.1), ("update", 0.0)])
def test_what_rests_is_the_synthesis_the_rate_or_the_update(rests, share):
    moved = {}
    for name in ("synthesis", rests):
        found = lab("dlfd", rests=name, **PLAIN)
        found.method.observe(probe(0.0))
        turn = next(iter(found.course.turns(0)))
        found.updater.set_epoch(turn.epoch, turn.phase.lr)
        before = weights(found.model)
        numbers = found.method.step(found.batch(turn), found.updater, stop=False)
        assert not numbers["synthesised"]
        after = weights(found.model)
        moved[name] = {k: after[k] - before[k] for k in after if after[k].is_floating_point()}
    for key, change in moved[rests].items():
        torch.testing.assert_close(change, share * moved["synthesis"][key], rtol=1e-6, atol=1e-12)
    assert max(float(change.abs().max()) for change in moved["synthesis"].values()) > 1e-4


@pytest.mark.parametrize(
    "setting",
    [
        {"forget_share": 0.5},
        {"rests": "rate"},
        {"clean_share": 0.5},
        {"kd_weight": 1.0},
        {"probe_fraction": 0.5},
    ],
)
def test_the_authors_loop_has_none_of_it(setting):
    with pytest.raises(ConfigError, match="with method=dlfd_official"):
        DLFDConfig(name="dlfd_official", **setting)
