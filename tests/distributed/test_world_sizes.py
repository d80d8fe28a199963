"""World sizes 1, 2 and 4 are the same run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dlfd_dist.compose import job_from_dict
from dlfd_dist.config import to_dict
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag, StoppedEarly
from tests.fakes.ranks import StandingRanks
from tests.fakes.stops import StopAfter

METHODS = {
    "dlfd": ["method=dlfd", "method.dynamic=false", "synthesis.save=12"],
    "finetune": ["method=finetune", "method.augment=true", "data.augment=face"],
    "dlfd_sync_bn": ["method=dlfd", "method.dynamic=false", "train_mode=sync_bn"],
    "dlfd_dropout": ["method=dlfd", "method.dynamic=false", "model.head=mlp"],
    "dlfd_entropic": ["method=dlfd", "method.dynamic=false", "ot.solver=entropic"],
    # Relearned in batches of 3, 3 and 2 forget images, which 4 ranks share unevenly.
    "neggrad": [
        "method=neggrad",
        "method.epochs=3",
        "method.lr=0.05",
        "metrics.relearn_steps=4",
        "train.global_batch_size=3",
    ],
    "neggrad_plus": ["method=neggrad_plus", "method.alpha=0.7"],
    "cf_k": ["method=cf_k"],
    "cf_k_sync_bn": ["method=cf_k", "train_mode=sync_bn"],
    "eu_k": ["method=eu_k"],
    "unsir": ["method=unsir", "method.retain_fraction=0.5"],  # 10 and 2 images, impair and repair
    "bad_teacher": ["method=bad_teacher", "method.epochs=2"],  # 15 mixed images: 10 and 5, twice
    "bad_teacher_dropout": ["method=bad_teacher", "method.epochs=2", "model.head=mlp"],
    "scrub": ["method=scrub", "method.epochs=2", "method.max_steps=6"],  # max, 3 of min, max, min
    "scrub_sync_bn": ["method=scrub", "train_mode=sync_bn"],
    "salun": ["method=salun", "method.max_steps=4"],  # saliency, relabel, 2 of repair
    "ssd": ["method=ssd", "method.selection=1", "method.max_steps=null"],  # 32 mixed: 10, 10, 10, 2
    "l1_sparse": ["method=l1_sparse"],
    # 8 forget images meet 4 of one val person in batches of 3 and 2, or 8 and 2.
    "dlfm": ["method=dlfm", "method.dynamic=false", "method.match_batch_size=3"],
    "dlfm_synthesised": [
        "method=dlfm",
        "method.dynamic=false",
        "method.reference=synthesised",
        "model.head=mlp",
    ],
}
PHASES = {
    "unsir": ["impair", "impair", "repair"],
    "bad_teacher": ["distill"] * 3,
    "scrub": ["max", "min", "min", "min", "max", "min"],
    "salun": ["saliency", "relabel", "repair", "repair"],
    "ssd": ["importance"] * 4,
}
UNEVEN = [
    # 24 retain images in batches of 10, 10, 4: 10 does not divide by 4, and neither does the forget
    # batch of 8 and the val set of 8 by 3.
    "method.global_batch_size=10",
    "method.max_steps=3",
    "method.select=last",
    "method.clip_norm=1",
    "method.lr=0.002",
    "runtime.dtype=float64",
]


@pytest.fixture(scope="module")
def standing() -> Iterator[dict[int, StandingRanks]]:
    groups = {world_size: StandingRanks(world_size) for world_size in (2, 4)}
    yield groups
    for group in groups.values():
        group.kill()


@pytest.fixture
def ranks(standing: dict[int, StandingRanks]) -> Callable[..., list[Any]]:
    """Return a runner on ranks that stay up over all tests of this file."""

    def run(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        return standing[world_size].run(function, *args)

    return run


def _run(group: Collectives, values: dict[str, Any]) -> str:
    config = job_from_dict(values)
    run_job(config, group, StopFlag())
    return config.run.dir or ""


def relative_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of two states, tensor by tensor relative to its norm."""
    assert one.keys() == other.keys()
    return max(
        float((one[k].double() - other[k].double()).norm() / one[k].double().norm().clamp(min=1e-9))
        for k in one
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


def _original(cache: dict[str, Path], tiny, tmp_path_factory, *extra: str) -> Path:
    key = " ".join(extra)
    if key not in cache:
        path = tmp_path_factory.mktemp("original") / "run"
        run_job(tiny("train", f"run.dir={path}", *extra), Collectives(), StopFlag())
        cache[key] = path
    return cache[key]


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_equal_for_1_2_and_4_ranks(
    name, tiny, ranks, tmp_path, original, tmp_path_factory
):
    head = [o for o in METHODS[name] if o.startswith("model.head")]
    checkpoint = _original(original, tiny, tmp_path_factory, *head)
    states, results = {}, {}
    for world_size in (1, 2, 4):
        run_dir = tmp_path / f"w{world_size}"
        config = tiny(
            "unlearn", *UNEVEN, *METHODS[name], f"checkpoint={checkpoint}", f"run.dir={run_dir}"
        )
        if world_size == 1:
            run_job(config, Collectives(), StopFlag())
        else:
            ranks(_run, world_size, to_dict(config))
        states[world_size] = load_file(RunDir(run_dir).model)
        results[world_size] = RunDir(run_dir).read_result()
    start = load_file(RunDir(checkpoint).model)
    moved = relative_difference(start, {k: v.to(start[k].dtype) for k, v in states[1].items()})
    assert moved > 1e-6, "the run must have moved the weights"
    if name in PHASES:
        steps = [e for e in read_events(RunDir(tmp_path / "w4").metrics) if e["event"] == "step"]
        assert [e["phase"] for e in steps] == PHASES[name]
    for world_size in (2, 4):
        # Sums over ranks are taken in another order: rounding of float64, amplified by 3 steps.
        assert relative_difference(states[1], states[world_size]) < 1e-9
        assert results[world_size]["world_size"] == world_size
        for figure in ("retain_accuracy", "test_accuracy", "forgetting_score", "signature"):
            assert results[world_size][figure] == results[1][figure]
        moved, alone = (results[size]["against_original"] for size in (world_size, 1))
        for figure in ("weight_change", "divergence"):
            for name, value in alone[figure].items():
                assert moved[figure][name] == pytest.approx(value, rel=1e-6, abs=1e-12)
        assert moved["synthesised_share"] == alone["synthesised_share"]
        if "relearn" in results[1]:
            losses = [results[size]["relearn"]["losses"] for size in (1, world_size)]
            assert len(losses[0]) > 1
            assert losses[1] == pytest.approx(losses[0], rel=1e-9)


def test_training_with_dropout_and_batch_norm_is_equal_for_1_and_2_ranks(tiny, ranks, tmp_path):
    overrides = [
        "model.head=mlp", "data.augment=face", "runtime.dtype=float64", "train.max_steps=3",
        "train.global_batch_size=9",
    ]  # fmt: skip
    configs = {n: tiny("train", *overrides, f"run.dir={tmp_path / str(n)}") for n in (1, 2)}
    run_job(configs[1], Collectives(), StopFlag())
    ranks(_run, 2, to_dict(configs[2]))
    one, two = (load_file(RunDir(tmp_path / str(n)).model) for n in (1, 2))
    # Training from random weights moves BatchNorm statistics too; rounding alone remains.
    assert relative_difference(one, two) < 1e-9


def test_the_rank_scope_is_another_objective(tiny, ranks, tmp_path, original, tmp_path_factory):
    checkpoint = _original(original, tiny, tmp_path_factory)
    states = {}
    for scope in ("global", "rank"):
        run_dir = tmp_path / scope
        config = tiny(
            "unlearn", *METHODS["dlfd"], *UNEVEN, f"ot.scope={scope}",
            f"checkpoint={checkpoint}", f"run.dir={run_dir}",
        )  # fmt: skip
        ranks(_run, 2, to_dict(config))
        states[scope] = load_file(RunDir(run_dir).model)
    assert relative_difference(states["global"], states["rank"]) > 1e-6


def test_the_album_holds_the_same_pictures_for_1_and_2_ranks(
    tiny, ranks, tmp_path, original, tmp_path_factory
):
    checkpoint = _original(original, tiny, tmp_path_factory)
    for world_size in (1, 2):
        config = tiny(
            "unlearn", *METHODS["dlfd"], *UNEVEN, f"checkpoint={checkpoint}",
            f"run.dir={tmp_path / str(world_size)}",
        )  # fmt: skip
        if world_size == 1:
            run_job(config, Collectives(), StopFlag())
        else:
            ranks(_run, 2, to_dict(config))
    one, two = (
        load_file(RunDir(tmp_path / str(n)).synthesis / "images.safetensors") for n in (1, 2)
    )
    assert len(one["ids"]) == 12
    for name in one:
        assert torch.equal(one[name], two[name])
    assert not torch.equal(one["original"], one["synthesised"])


@pytest.mark.parametrize(
    ("name", "step", "num_steps"),
    [("dlfd", 1, 3), ("dlfm", 1, 3), ("unsir", 1, 3), ("salun", 3, 4), ("ssd", 2, 4)],
)
def test_a_run_goes_on_with_another_number_of_ranks(
    name, step, num_steps, tiny, ranks, tmp_path, original, tmp_path_factory
):
    checkpoint = _original(original, tiny, tmp_path_factory)
    common = [*UNEVEN, *METHODS[name], f"checkpoint={checkpoint}"]
    whole = tiny("unlearn", *common, f"run.dir={tmp_path / 'whole'}")
    run_job(whole, Collectives(), StopFlag())
    cut = tiny("unlearn", *common, f"run.dir={tmp_path / 'cut'}")
    ranks(_stop_after, 2, to_dict(cut), step)
    held = RunDir(tmp_path / "cut")
    assert not held.finished()
    assert (held.checkpoints / "latest").read_text().strip() == f"step_{step}"
    run_job(cut, Collectives(), StopFlag())
    one, other = load_file(RunDir(tmp_path / "whole").model), load_file(held.model)
    assert relative_difference(one, other) < 1e-9
    steps = [e["step"] for e in read_events(held.metrics) if e["event"] == "step"]
    assert steps == list(range(1, num_steps + 1))


def _stop_after(group: Collectives, values: dict[str, Any], step: int) -> str:
    """One rank alone is told to stop, and all of them do."""
    flag = StopAfter(step) if group.rank == 1 else StopFlag()
    with pytest.raises(StoppedEarly, match=f"after step {step} of "):
        run_job(job_from_dict(values), group, flag)
    return json.dumps({"rank": group.rank})


def _gathered(group: Collectives, total: int) -> torch.Tensor:
    rows = torch.arange(total, dtype=torch.float64).view(-1, 1)[group.shard(total)]
    return group.gather_rows(rows, total)


@pytest.mark.parametrize("total", [1, 3, 4, 7])
def test_gather_keeps_the_order_of_uneven_and_empty_shards(total, ranks):
    for gathered in ranks(_gathered, 4, total):
        assert gathered.flatten().tolist() == list(range(total))


def _global_cost_gradient(group: Collectives, total: int) -> list[torch.Tensor]:
    from dlfd_dist.transport import solve_global

    generator = torch.Generator().manual_seed(0)
    features = torch.randn(total, 5, generator=generator, dtype=torch.float64)
    forget = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    own = features[group.shard(total)].clone().requires_grad_(True)
    solved = solve_global(own, forget, total=total, collectives=group)
    (gradient,) = torch.autograd.grad(solved.value, own)
    value = group.all_reduce_sum(solved.value)
    return [value, group.gather_rows(gradient, total)]


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_global_plan_gives_every_rank_the_gradient_of_the_one_global_cost(world_size, ranks):
    alone = _global_cost_gradient(Collectives(), 7)
    for value, gradient in ranks(_global_cost_gradient, world_size, 7):
        torch.testing.assert_close(value, alone[0], rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, alone[1], rtol=1e-12, atol=1e-14)


def _non_finite(group: Collectives, values: dict[str, Any], message: str) -> str:
    from dlfd_dist.errors import NonFiniteLossError

    with pytest.raises(NonFiniteLossError, match=message):
        run_job(job_from_dict(values), group, StopFlag())
    return "stopped"


def test_a_checkpoint_of_nan_stops_all_ranks(tiny, ranks, tmp_path, original, tmp_path_factory):
    from safetensors.torch import save_file

    checkpoint = _original(original, tiny, tmp_path_factory)
    state = load_file(RunDir(checkpoint).model)
    state["head.0.weight"] = torch.full_like(state["head.0.weight"], float("nan"))
    save_file(state, tmp_path / "nan.safetensors")
    config = tiny(
        "unlearn", "method=finetune", f"checkpoint={tmp_path / 'nan.safetensors'}",
        f"run.dir={tmp_path / 'run'}", "method.probe_every=null",
    )  # fmt: skip
    message = "outputs of the model became NaN"
    assert ranks(_non_finite, 2, to_dict(config), message) == ["stopped", "stopped"]
    assert not RunDir(tmp_path / "run").finished()
    assert not RunDir(tmp_path / "run").model.exists()


def test_a_non_finite_loss_stops_all_ranks(tiny, ranks, tmp_path, original, tmp_path_factory):
    checkpoint = _original(original, tiny, tmp_path_factory)
    config = tiny(
        "unlearn", "method=finetune", f"checkpoint={checkpoint}", f"run.dir={tmp_path / 'run'}",
        "method.probe_every=null", "method.lr=1e30",
    )  # fmt: skip
    message = "the weights were not changed"
    assert ranks(_non_finite, 2, to_dict(config), message) == ["stopped", "stopped"]
    assert not RunDir(tmp_path / "run").finished()
    assert not RunDir(tmp_path / "run").model.exists()
