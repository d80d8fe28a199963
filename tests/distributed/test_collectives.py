"""What the ranks exchange, and that all of them stop where one cannot go on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlfd_dist.compose import job_from_dict
from dlfd_dist.config import to_dict
from dlfd_dist.errors import NonFiniteLossError
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from dlfd_dist.transport import solve_global


def _gathered(group: Collectives, total: int) -> torch.Tensor:
    rows = torch.arange(total, dtype=torch.float64).view(-1, 1)[group.shard(total)]
    return group.gather_rows(rows, total)


@pytest.mark.parametrize("total", [1, 3, 4, 7])
def test_gather_keeps_the_order_of_uneven_and_empty_shards(total, ranks):
    for gathered in ranks(_gathered, 4, total):
        assert gathered.flatten().tolist() == list(range(total))


def _told(group: Collectives, text: str) -> str:
    return group.broadcast_text(text if group.is_main else None)


@pytest.mark.parametrize("text", ["", "naïve \u20ac 1"])
def test_every_rank_has_the_text_of_the_main_one(text, ranks):
    assert ranks(_told, 4, text) == [text] * 4
    assert _told(Collectives(), text) == text


def _global_cost_gradient(group: Collectives, total: int) -> list[torch.Tensor]:
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
    with pytest.raises(NonFiniteLossError, match=message):
        run_job(job_from_dict(values), group, StopFlag())
    return "stopped"


def test_a_checkpoint_of_nan_stops_all_ranks(tiny, trained, ranks, tmp_path):
    state = load_file(RunDir(trained()).model)
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


def test_a_non_finite_loss_stops_all_ranks(tiny, trained, ranks, tmp_path):
    config = tiny(
        "unlearn", "method=finetune", f"checkpoint={trained()}", f"run.dir={tmp_path / 'run'}",
        "method.probe_every=null", "method.lr=1e30",
    )  # fmt: skip
    message = "the weights were not changed"
    assert ranks(_non_finite, 2, to_dict(config), message) == ["stopped", "stopped"]
    assert not RunDir(tmp_path / "run").finished()
    assert not RunDir(tmp_path / "run").model.exists()
