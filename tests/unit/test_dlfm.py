"""method=dlfm: its terms by hand, whom it matches to, and when it rests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from dlfd_dist.config import DLFMConfig, JobConfig
from dlfd_dist.errors import ConfigError, DataError
from dlfd_dist.jobs import run_job
from dlfd_dist.jobs.context import Prepared, open_job, prepare
from dlfd_dist.jobs.course import even_size
from dlfd_dist.jobs.unlearn import unlearn
from dlfd_dist.methods import Probe
from dlfd_dist.methods import dlfm as dlfm_module
from dlfd_dist.metrics import auc, auc_standard_error, logit_scaled_confidence
from dlfd_dist.models import task_confidence
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from dlfd_dist.transport import cosine_cost, match_quantiles, solve_by_class, solve_global
from tests.fakes.method_lab import (
    FORGET,
    PLAIN,
    Lab,
    assert_step_is,
    equal,
    lab,
    labels_of,
    original,
    pictures,
    weights,
)
from tests.fakes.small_model import TWO_CONVS


def numbers(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class OneOf(Collectives):
    """One of several ranks, which knows what the others would send it."""

    def __init__(self, rank: int, world_size: int, whole: Tensor):
        super().__init__(rank, world_size)
        self.whole = whole

    def gather_rows(self, rows: Tensor, total: int) -> Tensor:
        assert torch.equal(rows, self.whole[self.shard(total)])
        return self.whole


# --- transport on a line, and class by class


@pytest.mark.parametrize("n", [1, 2, 9])
def test_pairing_quantiles_is_the_optimal_plan_on_a_line(n):
    values, reference = numbers(n), 3 * numbers(n, 1) + 1
    cost = F.smooth_l1_loss(values[:, None].expand(n, n), reference.expand(n, n), reduction="none")
    found = match_quantiles(values, reference, total=n, collectives=Collectives())
    even = np.full(n, 1 / n)
    assert float(found) == pytest.approx(float(ot.emd2(even, even, cost.numpy())), abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(7, 4), (4, 7)])
def test_the_gradient_of_the_quantiles_is_that_of_finite_differences(n, m):
    values, reference = numbers(n).requires_grad_(), numbers(m, 1)

    def cost(v: Tensor) -> Tensor:
        return match_quantiles(v, reference, total=n, collectives=Collectives())

    assert torch.autograd.gradcheck(cost, (values,))


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_parts_of_the_ranks_are_those_of_one(world_size):
    values, reference = numbers(7), numbers(5, 1)
    values[3] = values[5]  # equal values keep their order
    alone = values.clone().requires_grad_()
    one = match_quantiles(alone, reference, total=7, collectives=Collectives())
    one.backward()
    parts, gradients = [], []
    for rank in range(world_size):
        collectives = OneOf(rank, world_size, values)
        own = values[collectives.shard(7)].clone().requires_grad_()
        part = match_quantiles(own, reference, total=7, collectives=collectives)
        part.backward()
        parts.append(part.detach())
        gradients.append(own.grad)
    torch.testing.assert_close(torch.stack(parts).sum(), one.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.cat(gradients), alone.grad, rtol=1e-12, atol=1e-15)


def test_transport_by_class_moves_nothing_between_classes_and_skips_a_lacking_one():
    features, reference = numbers(40).view(8, 5), numbers(30, 1).view(6, 5)
    classes, others = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]), torch.tensor([1, 1, 0, 0, 0, 0])
    solved = solve_by_class(
        features, reference, classes, others, total=8, collectives=Collectives()
    )
    assert (solved.plan[classes[:, None] != others] == 0).all()
    expected = torch.where(classes == 2, 0.0, 1 / 8).double()
    torch.testing.assert_close(solved.plan.sum(1), expected, rtol=0, atol=1e-12)
    by_hand = 0.0
    for number in (0, 1):
        cost = cosine_cost(features[classes == number], reference[others == number]).numpy()
        by_hand += len(cost) / 8 * ot.emd2(ot.unif(len(cost)), ot.unif(cost.shape[1]), cost)
    assert float(solved.value) == pytest.approx(by_hand, abs=1e-12)


def test_transport_of_one_class_is_that_of_all_rows():
    features, reference = numbers(40).view(8, 5), numbers(30, 1).view(6, 5)
    one = solve_by_class(
        features, reference, torch.zeros(8, 2), torch.zeros(6, 2), total=8,
        collectives=Collectives(),
    )  # fmt: skip
    whole = solve_global(features, reference, total=8, collectives=Collectives())
    torch.testing.assert_close(one.plan, whole.plan)


@pytest.mark.parametrize("task", ["classes", "labels"])
def test_confidence_with_gradient_is_that_of_the_attack(task):
    logits, labels = 9 * numbers(54).view(18, 3), labels_of(task)
    found = task_confidence(logits, labels).numpy()
    np.testing.assert_allclose(found, logit_scaled_confidence(logits.numpy(), labels.numpy()))


# --- a step


def matching(task: str = "classes", **settings: Any) -> Lab:
    """Return a lab whose batches come with 5 images of strangers."""
    found = lab("dlfm", task=task, **settings)
    plain = found.batch

    def batch(turn):
        images, labels = pictures(5, seed=7), labels_of(task, 5)
        if unlabelled:
            labels = None
        return dataclasses.replace(
            plain(turn), reference_images=images, reference_labels=labels, reference_total=5
        )

    unlabelled = found.method.cfg.reference_seed == 99
    found.batch = batch
    return found


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("terms", [(True, True), (True, False), (False, True)])
def test_a_step_is_the_gradient_of_the_objective(terms, labelled):
    quantiles, features = terms
    found = matching(
        **PLAIN, quantiles=quantiles, features=features, match_weight=0.7, kd_weight=0.4,
        reference_seed=0 if labelled else 99,
    )  # fmt: skip
    with torch.no_grad():
        for p in found.model.parameters():
            p += 0.05 * torch.randn(
                p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(1)
            )
    batch = found.batch(next(found.course.turns(0)))
    strangers, teacher = batch.reference_images, original().eval()
    assert strangers is not None

    def loss(model) -> Tensor:
        retain, forget = model(batch.images).logits, model(batch.forget_images)
        with torch.no_grad():
            met = model(strangers)
            known = teacher(batch.images).logits
            guessed = teacher(strangers).logits.argmax(1)
        value = F.cross_entropy(retain, batch.labels)
        value = value + 0.4 * F.kl_div(
            retain.log_softmax(1), known.log_softmax(1), log_target=True, reduction="batchmean"
        )
        mine, theirs = batch.forget_labels, batch.reference_labels
        if theirs is None:
            mine, theirs = forget.logits.argmax(1), met.logits.argmax(1)
        if quantiles:
            value = value + 0.7 * match_quantiles(
                task_confidence(forget.logits, mine), task_confidence(met.logits, theirs),
                total=batch.forget_total, collectives=Collectives(),
            )  # fmt: skip
        if features:
            classes = guessed if batch.reference_labels is None else batch.reference_labels
            value = value + 0.7 * solve_by_class(
                forget.features, met.features, batch.forget_labels, classes,
                total=batch.forget_total, collectives=Collectives(),
            ).value  # fmt: skip
        return value

    assert_step_is(found, batch, loss)


@pytest.mark.parametrize("task", ["classes", "binary", "labels"])
def test_matching_brings_the_distributions_together(task):
    found = matching(task, epochs=8, match_weight=2.0, clip_norm=1.0)
    walked = found.run()
    assert np.mean([n["quantile_cost"] for n in walked[-3:]]) < np.mean(
        [n["quantile_cost"] for n in walked[:3]]
    )


def test_while_it_rests_the_forget_set_and_the_strangers_are_not_read():
    found = matching(**PLAIN)
    found.method.matching = False
    batch = found.batch(next(found.course.turns(0)))
    blank = dataclasses.replace(
        batch,
        forget_images=torch.full_like(batch.forget_images, torch.nan),
        reference_images=torch.full((5, 3, 8, 8), torch.nan, dtype=torch.float64),
    )
    start = weights(found.model)
    found.method.step(blank, found.updater, stop=False)
    assert not equal(start, weights(found.model))
    assert all(torch.isfinite(t).all() for t in weights(found.model).values())


# --- the dynamic strategy, on both sides


@pytest.mark.parametrize(
    ("auc", "score", "acts"),
    [(0.70, 0.02, True), (0.54, 0.02, False), (0.46, 0.02, False), (0.30, 0.02, True),
     (0.50, 0.10, True)],
)  # fmt: skip
def test_matching_acts_beyond_the_standard_error_of_the_confidence_or_of_the_strongest_attack(
    auc, score, acts
):
    method = lab("dlfm").method
    for before in (True, False):
        method.matching = before
        probe = Probe(1, 0.8, 0.9, score, auc, 0.8, auc_error=0.05, forgetting_score_se=0.03)
        told = method.observe(probe)
        assert method.matching is acts
        assert told["matching"] is acts


def test_without_the_dynamic_strategy_matching_never_rests():
    method = lab("dlfm", dynamic=False).method
    method.observe(Probe(1, 0.8, 0.9, 0.1, 0.5, 0.8, auc_error=0.05))
    assert method.matching


def test_the_standard_error_is_the_spread_of_the_auc_between_like_samples():
    rng = np.random.default_rng(0)
    found = [auc(rng.normal(size=30), rng.normal(size=12)) for _ in range(2000)]
    # 2000 draws tell a standard deviation to about 1.6 %.
    assert np.std(found) == pytest.approx(auc_standard_error(30, 12), rel=0.06)


@pytest.mark.parametrize(("count", "size"), [(150, 50), (64, 64), (65, 33), (3, 3), (1, 1)])
def test_batches_of_a_set_are_nearly_equal(count, size):
    assert even_size(count, 64) == size


# --- whom it matches to


@pytest.fixture
def job(tiny, trained, tmp_path):
    checkpoint = trained(TWO_CONVS, "data.val_fraction=0.34")

    def make(name: str, *words: str) -> JobConfig:
        return tiny(
            "unlearn", TWO_CONVS, "method=dlfm", "method.dynamic=false", f"checkpoint={checkpoint}",
            "method.epochs=1", "data.val_fraction=0.34", f"run.dir={tmp_path / name}", *words,
        )  # fmt: skip

    return make


def delivered(prepared: Prepared) -> dict[str, Tensor]:
    with open_job(prepared, Collectives()) as one:
        unlearn(one, StopFlag())
    return load_file(prepared.run_dir.model)


def poisoned(prepared: Prepared, ids: np.ndarray) -> Prepared:
    """Return the run with noise for some images, wherever it may read them."""
    images = np.array(prepared.data.images)
    images[ids] = np.random.default_rng(0).integers(0, 256, images[ids].shape)
    people = prepared.people
    assert people is not None
    return dataclasses.replace(
        prepared,
        data=dataclasses.replace(prepared.data, images=images),
        people=dataclasses.replace(people, data=dataclasses.replace(people.data, images=images)),
    )


def test_test_people_have_no_part_in_the_model_and_the_reference_people_have(job):
    whole = delivered(prepare(job("whole"), 1))
    without_test = prepare(job("no_test"), 1)
    without_test = poisoned(without_test, without_test.data.splits.test)
    assert equal(whole, delivered(without_test))
    others = prepare(job("others"), 1)
    assert others.people is not None
    assert not equal(whole, delivered(poisoned(others, others.people.ids)))


def test_val_people_are_matched_to_or_selected_on_and_never_both(job):
    prepared = prepare(job("run", "method.reference_fraction=0.5"), 1)
    people, splits = prepared.people, prepared.data.splits
    assert people is not None
    who = prepared.data.manifest.identities
    matched, selected = set(who[people.ids]), set(who[splits.val])
    assert (len(matched), len(selected)) == (2, 2)
    assert not matched & selected
    assert not (matched | selected) & set(who[splits.test])
    assert not (matched | selected) & set(who[splits.train])
    again = prepare(job("again", "method.reference_seed=1"), 1)
    assert again.people is not None
    assert set(who[again.people.ids]) != matched


def test_a_result_says_whom_it_was_matched_to(job, tmp_path):
    found = run_job(job("run"), Collectives(), StopFlag())
    assert found["reference_people"] == {
        "kind": "val_split", "labelled": True, "people": 2, "images": 8,
    }  # fmt: skip
    assert found["num_images"]["val"] == 8
    events = read_events(RunDir(tmp_path / "run").metrics)
    assert all(e["matching"] for e in events if e["event"] == "step")


def test_one_val_person_is_too_few(job):
    with pytest.raises(DataError, match="needs at least 2 validation people.*reference_manifest"):
        prepare(job("run", "data.val_fraction=0.05"), 1)


def test_synthesised_images_stand_in_where_there_is_nobody(job, monkeypatch):
    made = []

    def watched(context, batch, **weights):
        made.append(plain(context, batch, **weights))
        return made[-1]

    plain = dlfm_module.synthesise
    monkeypatch.setattr(dlfm_module, "synthesise", watched)
    found = run_job(job("run", "method.reference=synthesised"), Collectives(), StopFlag())
    assert found["reference_people"]["kind"] == "synthesised"
    assert found["num_images"]["val"] == 16
    assert len(made) == found["num_steps"]


def strangers(folder: Path, *, columns: str = "image_path,identity,label", **first: str) -> Path:
    folder.mkdir()
    rng, lines = np.random.default_rng(5), [columns]
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
            folder / f"{number}.png"
        )
        row = {"image_path": f"{number}.png", "identity": f"s{number // 2}", "label": "1"}
        row |= first if number == 0 else {}
        lines.append(",".join(row[name] for name in columns.split(",")))
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder / "list.csv"


@pytest.mark.parametrize(
    ("columns", "labelled", "people"),
    [("image_path,identity,label", True, 3), ("image_path", False, 6)],
)
def test_strangers_of_a_list_are_matched_to(columns, labelled, people, job, tmp_path):
    path = strangers(tmp_path / "strangers", columns=columns)
    words = ["method.reference=manifest", f"method.reference_manifest={path}"]
    found = run_job(job("run", *words), Collectives(), StopFlag())
    assert found["reference_people"] == {
        "kind": "manifest", "labelled": labelled, "people": people, "images": 6,
    }  # fmt: skip
    before = prepare(job("other", *words), 1).signature
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    assert prepare(job("third", *words), 1).signature != before


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ({"label": "9"}, "row 2: the label '9' is unknown; the data set has "),
        ({"image_path": "../0.png"}, "leads out of"),
        ({"identity": "KNOWN"}, "is one of the people of the data set"),
    ],
)
def test_a_list_that_is_no_list_of_strangers_is_refused(first, message, job, tmp_path):
    if first.get("identity"):
        first = {"identity": str(prepare(job("look"), 1).data.manifest.identities[0])}
    path = strangers(tmp_path / "strangers", **first)
    words = ["method.reference=manifest", f"method.reference_manifest={path}"]
    with pytest.raises(DataError, match=message):
        prepare(job("run", *words), 1)


def test_strangers_without_labels_are_no_measure_of_equivalence(job, tmp_path):
    path = strangers(tmp_path / "strangers", columns="image_path")
    words = ["method.reference=manifest", f"method.reference_manifest={path}"]
    with pytest.raises(DataError, match="list.csv has none: add the column label"):
        prepare(job("run", *words, "method.dynamic=true", "method.rests_by=equivalence"), 1)


def test_a_probe_says_how_far_equivalence_is(job, tmp_path):
    words = ["method.dynamic=true", "method.rests_by=equivalence"]
    run_job(job("run", *words), Collectives(), StopFlag())
    for event in read_events(RunDir(tmp_path / "run").metrics):
        if event["event"] == "probe":
            assert event["equivalence"]["holds"] is None  # of 2 people a side
            low, high = event["equivalence"]["interval"]
            assert -1 <= low <= high <= 1
        else:
            assert event["matching"]


def test_a_missing_list_is_one_sentence(job):
    words = ["method.reference=manifest", "method.reference_manifest=nowhere.csv"]
    with pytest.raises(DataError, match=r"method.reference_manifest=nowhere.csv is not a file\."):
        prepare(job("run", *words), 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train_mode=sync_bn"], "train_mode=sync_bn is not allowed with method=dlfm"),
        (["ot.scope=rank"], "ot.scope=rank is not allowed with method=dlfm"),
        (["ot.lag=1"], "ot.lag=1 is not allowed with method=dlfm"),
    ],
)
def test_settings_that_would_compare_unlike_things_are_refused(words, message, job):
    with pytest.raises(ConfigError, match=message):
        prepare(job("run", *words), 1)


def test_nothing_to_match_is_refused():
    with pytest.raises(ConfigError, match="leave nothing to match"):
        DLFMConfig(quantiles=False, features=False)
    with pytest.raises(ConfigError, match="go together"):
        DLFMConfig(reference="manifest")


def test_an_over_forgotten_probe_is_never_selected(job, tmp_path, monkeypatch):
    from dlfd_dist.jobs import unlearn as loop

    plain = loop.probe

    def flagged(*args):
        return dataclasses.replace(plain(*args), over_forgotten=True)

    monkeypatch.setattr(loop, "probe", flagged)
    found = run_job(job("run", "method.select=nomus"), Collectives(), StopFlag())
    assert found["selected_step"] == found["num_steps"]
    assert "a failure" in found["selection"]
    other = job("other", "method.select=nomus")
    monkeypatch.setattr(loop, "probe", plain)
    assert "best validation NoMUS" in run_job(other, Collectives(), StopFlag())["selection"]


def test_forget_images_are_as_many_as_asked(tmp_path):
    found = lab("dlfm", match_batch_size=5)
    sizes = [len(turn.forget) for turn in found.course.turns(0)]
    assert set(sizes) <= {3, 4}  # 7 forget images in nearly equal batches
    assert set(np.concatenate([t.forget for t in found.course.turns(0)])) == set(FORGET)
