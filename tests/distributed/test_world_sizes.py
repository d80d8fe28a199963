"""World sizes 1, 2 and 4 are the same run."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from dlfd_dist.config import to_dict
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.distributed.methods import (
    METHODS,
    ON_2_RANKS,
    PHASES,
    relative_difference,
    run_on_rank,
    training_words,
)
from tests.fakes.cuda_graphs import record_graphs

# On one worker: two groups of four ranks would stand in each other's way.
pytestmark = pytest.mark.xdist_group("world sizes")
CASES = [(name, 4) for name in METHODS] + [(name, 2) for name in ON_2_RANKS]


@pytest.mark.parametrize("name", METHODS)
def test_the_run_that_is_compared_moves_the_weights(name, finished, trained):
    start = load_file(RunDir(trained(*training_words(name))).model)
    state = load_file(finished(name, 1).model)
    moved = relative_difference(start, {k: v.to(start[k].dtype) for k, v in state.items()})
    assert moved > 1e-6


@pytest.mark.parametrize(("name", "world_size"), CASES)
def test_weights_and_figures_are_those_of_one_rank(name, world_size, finished):
    alone, shared = (finished(name, n) for n in (1, world_size))
    # Sums over ranks are taken in another order: rounding of float64, amplified by 3 steps.
    assert relative_difference(load_file(alone.model), load_file(shared.model)) < 1e-9
    expected, result = alone.read_result(), shared.read_result()
    assert result["world_size"] == world_size
    for figure in ("retain_accuracy", "test_accuracy", "forgetting_score", "signature"):
        assert result[figure] == expected[figure]
    assert result.get("start") == expected.get("start")
    moved, moved_alone = (found["against_original"] for found in (result, expected))
    for figure in ("weight_change", "divergence"):
        for part, value in moved_alone[figure].items():
            assert moved[figure][part] == pytest.approx(value, rel=1e-6, abs=1e-12)
    assert moved["synthesised_share"] == moved_alone["synthesised_share"]
    assert ("relearn" in expected) == (name == "neggrad")
    if "relearn" in expected:
        losses = [one["relearn"]["losses"] for one in (expected, result)]
        assert len(losses[0]) > 1
        assert losses[1] == pytest.approx(losses[0], rel=1e-9)


@pytest.mark.parametrize("name", PHASES)
def test_four_ranks_go_through_the_phases_of_a_method(name, finished):
    steps = [e for e in read_events(finished(name, 4).metrics) if e["event"] == "step"]
    assert [e["phase"] for e in steps] == PHASES[name]


def test_training_with_dropout_and_batch_norm_is_equal_for_1_and_2_ranks(tiny, ranks, tmp_path):
    overrides = [
        "model.head=mlp", "data.augment=face", "runtime.dtype=float64", "train.max_steps=3",
        "train.global_batch_size=9",
    ]  # fmt: skip
    configs = {n: tiny("train", *overrides, f"run.dir={tmp_path / str(n)}") for n in (1, 2)}
    run_job(configs[1], Collectives(), StopFlag())
    ranks(run_on_rank, 2, to_dict(configs[2]))
    states = [load_file(RunDir(tmp_path / str(n)).model) for n in (1, 2)]
    # Training from random weights moves BatchNorm statistics too; rounding alone remains.
    assert relative_difference(*states) < 1e-9


def test_the_rank_scope_is_another_objective(unlearning, ranks, finished, tmp_path):
    config = unlearning("dlfd_dropout", tmp_path / "rank", "ot.scope=rank")
    ranks(run_on_rank, 4, to_dict(config))
    runs = finished("dlfd_dropout", 4), RunDir(tmp_path / "rank")
    assert relative_difference(*(load_file(run.model) for run in runs)) > 1e-6


def test_the_album_holds_the_same_pictures_for_1_and_2_ranks(finished):
    alone, shared = (
        load_file(finished("dlfd", n).synthesis / "images.safetensors") for n in (1, 2)
    )
    assert len(alone["ids"]) == 12
    for name in alone:
        assert torch.equal(alone[name], shared[name])
    assert not torch.equal(alone["original"], alone["synthesised"])


def assert_equal_runs(run: RunDir, other: RunDir) -> None:
    """Assert that two runs differ by rounding alone, in weights and probes."""
    assert relative_difference(load_file(run.model), load_file(other.model)) < 1e-9
    probes = [[e for e in read_events(r.metrics) if e["event"] == "probe"] for r in (run, other)]
    assert len(probes[0]) > 1
    for one, another in zip(*probes, strict=True):
        for figure in ("val_accuracy", "forget_accuracy", "mia_auc"):
            assert one[figure] == pytest.approx(another[figure], abs=1e-9)


def test_folding_changes_a_run_by_rounding_alone(unlearning, finished, tmp_path):
    config = unlearning("dlfd", tmp_path / "unfolded", "runtime.fast=false")
    run_job(config, Collectives(), StopFlag())
    assert_equal_runs(RunDir(tmp_path / "unfolded"), finished("dlfd", 1))


def test_replayed_passes_leave_a_run_as_it_is(unlearning, finished, tmp_path, monkeypatch):
    graphs = record_graphs(monkeypatch)
    config = unlearning("dlfd", tmp_path / "captured", "runtime.cuda_graphs=true")
    run_job(config, Collectives(), StopFlag())
    backward = [graph for graph in graphs if any("backward" in name for name in graph.operations)]
    assert sum(graph.num_replays for graph in backward) > 5
    assert_equal_runs(RunDir(tmp_path / "captured"), finished("dlfd", 1))
