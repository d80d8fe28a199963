"""What is told of the delivered model beside the attack on test, and what a probe looks at."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from dlfd_dist.config import JobConfig, MethodConfig, MetricsConfig, signature
from dlfd_dist.jobs import evaluation
from dlfd_dist.jobs.evaluation import Evaluation, Outputs, further_figures, probe
from dlfd_dist.metrics import (
    accuracy,
    class_separation,
    membership_attack,
    mia_paper,
    nomus,
    over_forgetting,
    quick_attack,
)

SIZES = {"retain": 60, "forget": 24, "val": 30, "test": 36}
IDS = {name: np.arange(100 * i, 100 * i + size) for i, (name, size) in enumerate(SIZES.items())}


def outputs(name: str, num_classes: int = 3) -> Outputs:
    rng = np.random.default_rng(len(name))
    labels = rng.integers(0, num_classes, len(IDS[name]))
    features = np.eye(num_classes, 6)[labels] + rng.normal(0, 0.5, (len(labels), 6))
    people = np.array([f"{name}{i // 3}" for i in range(len(labels))])
    return Outputs(IDS[name], people, labels, 3 * features[:, :num_classes], features)


@pytest.fixture
def parts() -> dict[str, Outputs]:
    return {name: outputs(name) for name in SIZES}


def measured(parts) -> Evaluation:
    mia = membership_attack(parts["forget"].samples, parts["test"].samples, num_permutations=20)
    return Evaluation(parts, {"mia": mia.to_dict()})


def test_validation_is_the_attack_of_forget_against_val(parts):
    # The probe's attack is another here, so that a figure of it would be seen.
    config = JobConfig(method=MethodConfig(probe_attack="mia_paper"))
    found = further_figures(measured(parts), config)["validation"]
    forget, val = parts["forget"], parts["val"]
    attack = quick_attack(forget.samples, val.samples, seed=0)
    val_accuracy, score = accuracy(val.logits, val.labels), abs(attack.accuracy - 0.5)
    assert val_accuracy is not None
    assert found == pytest.approx(
        {
            "accuracy": val_accuracy,
            "forgetting_score": score,
            "forgetting_score_se": attack.accuracy_error,
            "mia_auc": attack.auc,
            "auc_error": attack.auc_error,
            "nomus": nomus(val_accuracy, score),
            "nomus_se": found["nomus_se"],
        }
    )
    assert found["nomus_se"] > found["forgetting_score_se"] > 0


def test_over_forgetting_and_separation_look_at_the_test_part(parts):
    evaluated = measured(parts)
    found = further_figures(evaluated, JobConfig())
    test, interval = parts["test"], evaluated.figures["mia"]["auc_interval"]
    wanted = over_forgetting(parts["forget"].samples, test.samples, auc_interval=interval)
    assert found["over_forgetting"] == wanted.to_dict()
    assert (
        found["separation"] == class_separation(test.features, test.labels, test.people).to_dict()
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_without_a_forget_set_only_the_separation_is_told(parts):
    parts["forget"] = Outputs(
        np.arange(0), np.arange(0), np.arange(0), np.empty((0, 3)), np.empty((0, 1))
    )
    found = further_figures(Evaluation(parts, {"mia": None}), JobConfig())
    assert (found["over_forgetting"], found["validation"]) == (None, None)
    assert found["separation"]["silhouette"] > 0


def probed(monkeypatch, parts, config: JobConfig):
    by_ids = {part.ids[0]: part for part in parts.values()}
    monkeypatch.setattr(
        evaluation, "run_together", lambda model, batches, sets, size: [by_ids[s[0]] for s in sets]
    )
    splits = SimpleNamespace(forget=IDS["forget"], val=IDS["val"])
    batches = SimpleNamespace(data=SimpleNamespace(splits=splits))
    return probe(None, batches, config, 7)  # type: ignore[arg-type]


def test_probe_agrees_with_the_validation_of_the_result(monkeypatch, parts):
    found = probed(monkeypatch, parts, JobConfig())
    wanted = further_figures(measured(parts), JobConfig())["validation"]
    assert (found.step, found.val_accuracy, found.nomus) == (
        7, wanted["accuracy"], wanted["nomus"],
    )  # fmt: skip
    assert (found.forgetting_score, found.mia_auc) == (
        wanted["forgetting_score"], wanted["mia_auc"],
    )  # fmt: skip
    assert found.forget_accuracy == accuracy(parts["forget"].logits, parts["forget"].labels)
    assert found.separation is None


def test_probe_takes_the_papers_attack_where_it_is_asked_for(monkeypatch, parts):
    config = JobConfig(method=MethodConfig(probe_attack="mia_paper"))
    attacked = mia_paper(parts["forget"].losses, parts["val"].losses)
    assert attacked is not None
    found = probed(monkeypatch, parts, config)
    assert found.forgetting_score == abs(attacked - 0.5)


def test_probe_tells_the_separation_on_val_where_it_is_asked_for(monkeypatch, parts):
    config = JobConfig(metrics=MetricsConfig(separation=True))
    val = parts["val"]
    wanted = class_separation(val.features, val.labels, val.people).to_dict()
    assert probed(monkeypatch, parts, config).separation == wanted
    # Without two classes there is nothing to tell.
    parts["val"] = dataclasses.replace(val, labels=np.zeros_like(val.labels))
    assert probed(monkeypatch, parts, config).separation == {}


def test_recording_the_separation_makes_no_other_run():
    metrics = MetricsConfig(separation=True)
    assert signature(JobConfig(metrics=metrics), {}) == signature(JobConfig(), {})
    assert signature(JobConfig(metrics=MetricsConfig(seed=1)), {}) != signature(JobConfig(), {})
