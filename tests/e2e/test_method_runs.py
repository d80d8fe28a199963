"""Runs of every method: their rates and steps, and the probes that may be delivered."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dlfd_dist.compose import compose_job, load_config
from dlfd_dist.jobs import run_job
from dlfd_dist.methods import methods
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.command_line import write_faces
from tests.fakes.method_lab import NEW
from tests.fakes.small_model import TWO_CONVS


@pytest.mark.parametrize("name", ["finetune", "scrub"])
def test_the_rates_of_a_run_are_constant_within_an_epoch(name, tiny, trained, tmp_path):
    config = tiny(
        "unlearn", TWO_CONVS, f"method={name}", "method.epochs=3", "method.lr_scheduler=cosine",
        "method.lr=0.01", f"checkpoint={trained(TWO_CONVS)}", f"run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    run_job(config, Collectives(), StopFlag())
    events = [e for e in read_events(RunDir(tmp_path / "run").metrics) if e["event"] == "step"]
    steps = {"finetune": [3, 3, 3], "scrub": [4, 4, 4]}[name]  # 24 retain and 8 forget images
    expected = [0.01] * steps[0] + [0.0075] * steps[1] + [0.0025] * steps[2]
    assert [e["lr"] for e in events] == pytest.approx(expected, rel=1e-12)
    if name == "scrub":
        passes = ["max", *["min"] * 3] * 3
        assert [e["phase"] for e in events] == passes


def test_a_cosine_by_batches_ends_at_zero_with_the_last_step(tiny, trained, tmp_path):
    config = tiny(
        "unlearn", TWO_CONVS, "method=finetune", "method.steps=7", "method.lr=0.01",
        "method.lr_scheduler=cosine_batch", f"checkpoint={trained(TWO_CONVS)}",
        f"run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    run_job(config, Collectives(), StopFlag())
    events = [e for e in read_events(RunDir(tmp_path / "run").metrics) if e["event"] == "step"]
    expected = [0.01 * (1 + math.cos(math.pi * step / 7)) / 2 for step in range(7)]
    assert [e["lr"] for e in events] == pytest.approx(expected, rel=1e-12)


def test_a_run_of_unsir_repairs_at_a_rate_of_its_own(tiny, trained, tmp_path):
    config = tiny(
        "unlearn", TWO_CONVS, "method=unsir", "method.epochs=1", "method.lr=0.02",
        "method.repair_lr=0.005", f"checkpoint={trained(TWO_CONVS)}", f"run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    run_job(config, Collectives(), StopFlag())
    events = [e for e in read_events(RunDir(tmp_path / "run").metrics) if e["event"] == "step"]
    rates = [(e["phase"], e["lr"]) for e in events]
    assert rates == [("impair", 0.02)] * 3 + [("repair", 0.005)] * 3


@pytest.fixture(scope="module")
def two_labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the settings of a manifest with two labels."""
    root = write_faces(tmp_path_factory.mktemp("two labels") / "faces")
    return (
        TWO_CONVS, f"data.root='{root}'", "data.label=[smile,glasses]", "data.image_size=32",
        "metrics.num_bootstrap=20", "metrics.resurface_steps=1", "runtime.threads_per_rank=1",
        "train.epochs=1",
    )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in NEW if name != "rewind"])
def test_every_method_runs_on_a_manifest_of_several_labels(name, two_labels, trained, tmp_path):
    original = trained(settings=two_labels)
    settings = ["method.global_batch_size=8", "method.max_steps=5", "method.clip_norm=1"]
    settings += ["method.selection=1", "method.max_steps=null"] if name == "ssd" else []
    words = [
        *two_labels, f"method={name}", *settings, "forget.fraction=0.25",
        f"checkpoint={original}", f"run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    result = run_job(compose_job("unlearn", words), Collectives(), StopFlag())
    assert 0 <= result["test_accuracy"] <= 1
    assert 0 <= result["forgetting_score"] <= 0.5
    run = RunDir(tmp_path / "run")
    assert run.model.read_bytes() != RunDir(original).model.read_bytes()
    losses = [e["loss"] for e in read_events(run.metrics) if e["event"] == "step"]
    assert all(map(math.isfinite, losses))


@pytest.mark.parametrize(
    ("name", "step", "wrong"), [("salun", 2, 1), ("scrub", 4, 1), ("ssd", 4, 1)]
)
def test_a_probe_of_a_model_that_may_not_be_delivered_is_not_selected(
    name, step, wrong, tiny, trained, tmp_path, monkeypatch
):
    """At a tiny rate all probes are equal, and the first wins that may be taken."""
    base = [
        TWO_CONVS, f"method={name}", "method.select=rewind", "method.epochs=2", "method.lr=1e-30",
        "method.weight_decay=0", f"checkpoint={trained(TWO_CONVS)}", "method.augment=false",
    ]  # fmt: skip
    base += ["method.probe_every=1", "method.selection=1e9"] if name == "ssd" else []
    found = {}
    for path in ("right", "wrong"):
        config = tiny("unlearn", *base, f"run.dir={tmp_path / path}")
        found[path] = run_job(config, Collectives(), StopFlag())["selected_step"]
        phases = methods.get(name).phases

        def all_selectable(cfg, phases=phases):
            return [replace(phase, selectable=True) for phase in phases(cfg)]

        monkeypatch.setattr(methods.get(name), "phases", all_selectable)
    assert found == {"right": step, "wrong": wrong}


@pytest.mark.parametrize("name", ["finetune", "scrub", "salun", "unsir", "ssd"])
def test_the_optimiser_moves_the_model_in_exactly_so_many_steps(
    name: str, tiny, trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint, counted = trained(), []
    for kind in (torch.optim.SGD, torch.optim.Adam):

        def count(self, *args, step=kind.step, **more):
            # The noise of UNSIR, one tensor of images, is no model.
            counted.append(sum(len(group["params"]) for group in self.param_groups))
            return step(self, *args, **more)

        monkeypatch.setattr(kind, "step", count)
    words = [f"method={name}", "method.steps=7", f"checkpoint={checkpoint}"]
    words += ["metrics.resurface_steps=0"]
    config = tiny("unlearn", *words, f"run.dir={tmp_path / 'run'}")
    run_job(config, Collectives(), StopFlag())
    assert sum(number > 1 for number in counted) == (0 if name == "ssd" else 7)
    assert load_config(tmp_path / "run" / "config.yaml").method.steps == 7
