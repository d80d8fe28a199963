"""jobs/resurfacing.py: who comes back when a model is trained on, and what that leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dlfd_dist.compose import load_config
from dlfd_dist.config import ForgetConfig, JobConfig, MetricsConfig, signature
from dlfd_dist.jobs import resurfacing, run_job
from dlfd_dist.jobs.context import prepare
from dlfd_dist.jobs.resurfacing import RATES, resurfacing_steps
from dlfd_dist.jobs.trial import figures_of
from dlfd_dist.models import weights_path
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.tiny import LEARNED as KNOWN_BY_HEART

LEARNED = (*KNOWN_BY_HEART, "metrics.resurface_steps=3")


@pytest.fixture
def unlearned(tiny, trained, tmp_path):
    """Return a maker of runs of a model that learned its training people by heart."""
    original, retrained = (trained(*LEARNED, on=on) for on in ("all", "retain"))

    def make(name, *words, checkpoint=original):
        config = tiny(
            "unlearn", "method=finetune", "method.select=last", *LEARNED,
            f"checkpoint={checkpoint}", f"reference={retrained}",
            f"run.dir={tmp_path / name}", *words,
        )  # fmt: skip
        return run_job(config, Collectives(), StopFlag())

    return make


STILL = ("method.max_steps=1", "method.lr=1e-9", "train_mode=frozen")


def hidden(original, path):
    """Write a model that answers class 0 to everything, by a bias that training soon takes back."""
    weights = load_file(weights_path(str(original)))
    weights["head.0.bias"] += torch.tensor([8.0] + [0.0] * (len(weights["head.0.bias"]) - 1))
    save_file(weights, path)
    return path


def test_whom_a_bias_hides_comes_back_and_whom_retrained_never_saw_does_not(
    unlearned, trained, tmp_path
):
    original = trained(*LEARNED, on="all")
    checkpoint = hidden(original, tmp_path / "m.safetensors")
    found = unlearned("hidden", *STILL, "metrics.resurface_steps=24", checkpoint=checkpoint)
    before, rates = found["forget_accuracy"], found["resurfacing"]["rates"]
    assert rates["strong"]["forget_accuracy"] > before + 0.2
    assert found["resurfaced_accuracy"] == max(rate["forget_accuracy"] for rate in rates.values())
    retrained = RunDir(trained(*LEARNED, on="retain")).read_result()
    assert retrained["resurfaced_accuracy"] <= retrained["forget_accuracy"] + 0.13  # one image


def test_it_leaves_weights_and_other_figures_as_they_were(unlearned, tmp_path):
    plain = unlearned("plain", *STILL, "metrics.resurface_steps=0")
    found = unlearned("trained on", *STILL)
    assert plain["resurfacing"] is None
    assert found["resurfacing"]["steps"] == 3
    one, other = (load_file(RunDir(tmp_path / n).model) for n in ("plain", "trained on"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    for figure in ("nomus", "forgetting_score", "gap_to_retrained", "model_sha256"):
        assert plain[figure] == found[figure]
    assert plain["signature"] != found["signature"]


def test_it_is_held_against_retrained_given_the_same_steps(unlearned, trained, tmp_path):
    retrained = trained(*LEARNED, on="retain")
    apart = unlearned("apart", *STILL)["resurfacing"]["rates"]
    assert all(rate["js_divergence"] > 0 for rate in apart.values())
    itself = unlearned("itself", *STILL, checkpoint=retrained)["resurfacing"]["rates"]
    assert all(rate["js_divergence"] < 1e-3 for rate in itself.values())
    fewer = unlearned("fewer", *STILL, "metrics.resurface_steps=1")["resurfacing"]["rates"]
    assert all(rate["js_divergence"] is None for rate in fewer.values())
    with safe_open(RunDir(tmp_path / "apart").samples, framework="numpy") as samples:
        assert {f"resurfaced.{rate}.logits" for rate in RATES} <= set(samples.keys())


def test_a_trial_tells_what_a_run_does_on_val_and_reads_no_test_image(
    unlearned, trained, tmp_path, monkeypatch
):
    run = unlearned("run", *STILL)
    config = load_config(RunDir(tmp_path / "run").config)
    data = prepare(config, 1).data
    original, read = trained(*LEARNED, on="all"), []

    def watched(job, model, ids):
        read.append(set(ids))
        return outputs(job, model, ids)

    outputs = resurfacing._outputs
    monkeypatch.setattr(resurfacing, "_outputs", watched)
    asked = replace(config, metrics=replace(config.metrics, resurface_always=True))
    found = figures_of(asked, data, str(original))
    assert found["resurfaced"] == {
        name: {
            "forget_accuracy": pytest.approx(rate["forget_accuracy"]),
            **{figure: pytest.approx(value) for figure, value in rate["validation"].items()},
        }
        for name, rate in run["resurfacing"]["rates"].items()
    }
    assert set(data.splits.val) <= set().union(*read)
    assert not set().union(*read) & set(data.splits.test)
    assert "resurfaced" not in figures_of(config, data, str(original))


def test_a_rate_that_is_too_large_costs_only_its_own_figure(unlearned, monkeypatch):
    monkeypatch.setitem(RATES, "strong", 1e30)
    found = unlearned("diverged", *STILL, "method.clip_norm=null")
    assert found["resurfacing"]["rates"]["strong"] is None
    assert found["resurfaced_accuracy"] == found["resurfacing"]["rates"]["mild"]["forget_accuracy"]


def test_a_barrier_stands_between_two_trainings_and_none_within_a_step(unlearned):
    near = unlearned("near", "method.max_steps=1", "method.lr=1e-4")["against_original"]
    assert near["loss_barrier"] == pytest.approx(0, abs=1e-2)
    anew = ("method=eu_k", "method.k=5", "method.epochs=24", "method.lr=0.02")
    assert unlearned("far", *anew)["against_original"]["loss_barrier"] > 0.1


def test_steps_are_an_epoch_of_a_training_and_none_of_an_evaluation():
    config = JobConfig(verb="unlearn", checkpoint="x", forget=ForgetConfig(fraction=0.5))
    assert resurfacing_steps(config, 33) == 2
    assert resurfacing_steps(replace(config, verb="evaluate"), 33) == 0
    asked = replace(config, metrics=replace(config.metrics, resurface_steps=5))
    assert resurfacing_steps(replace(asked, verb="evaluate"), 33) == 5
    batch = replace(config, train=replace(config.train, global_batch_size=64))
    assert signature(config, {}) != signature(batch, {})
    off = [replace(c, metrics=replace(c.metrics, resurface_steps=0)) for c in (config, batch)]
    assert signature(off[0], {}) == signature(off[1], {})
    always = replace(config, verb="evaluate", metrics=MetricsConfig(resurface_always=True))
    assert resurfacing_steps(always, 33) == 2
    assert signature(always, {}) != signature(replace(always, metrics=MetricsConfig()), {})
