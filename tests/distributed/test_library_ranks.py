"""A program on two ranks gives what it gives on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import dlfd_dist as dlfd
from dlfd_dist.compose import compose_job
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.huggingface import write_model
from tests.fakes.strangers import QUICK, WORDS, build, splits
from tests.fakes.tiny import TINY_FACES


def call(out: Path, method: str, **more: Any) -> dict[str, Any]:
    settings = {**QUICK, "train_mode": "sync_bn"}
    run = dlfd.unlearn(build(), **{**splits(), **more}, method=method, out=out, settings=settings)
    return dict(run.model.state_dict())


def on_rank(group: Collectives, out: Path, method: str) -> dict[str, Any]:
    return call(out, method)


def measured(out: Path) -> dict[str, float]:
    settings = {**QUICK, "metrics.custom": ["spread"], "plugins": ["tests.fakes.metrics"]}
    run = dlfd.evaluate(build(), **splits(), reference=build(dropout=0), out=out, settings=settings)
    return run.result["custom_metrics"]


def measured_on_rank(group: Collectives, out: Path) -> dict[str, float]:
    return measured(out)


def with_other_data(group: Collectives, out: Path, differ: str) -> str:
    """Return what a rank is told whose model or set is not that of the first."""
    model, sets = build(), splits()
    if group.rank and differ == "model":
        torch.nn.init.zeros_(model.answer.bias)
    if group.rank and differ == "sets":
        sets = splits()
        sets["val"].shape, sets["val"].rows[0] = (1, 12, 10), (900, 0)
    try:
        dlfd.unlearn(model, **sets, out=out, settings=QUICK, method="finetune")
    except dlfd.DlfdError as err:
        return str(err)
    return ""


@pytest.mark.parametrize("method", ["dlfd", "neggrad_plus"])
def test_two_ranks_give_the_weights_of_one(tmp_path: Path, ranks, method: str):
    alone = call(tmp_path / "one", method)
    together = ranks(on_rank, 2, tmp_path / "two", method)
    assert RunDir(tmp_path / "two").read_result()["world_size"] == 2
    for state in together:
        torch.testing.assert_close(state, alone, rtol=1e-9, atol=1e-9)


def test_two_ranks_give_the_custom_metrics_of_one(tmp_path: Path, ranks):
    alone = measured(tmp_path / "one")
    assert alone.keys() == {"forget_loss_spread", "retrained_loss_spread", "forget_people"}
    assert alone["forget_people"] == 2
    for figures in ranks(measured_on_rank, 2, tmp_path / "two"):
        assert figures == pytest.approx(alone, rel=1e-9)


def from_a_folder(group: Collectives, folder: Path, out: Path) -> dict[str, torch.Tensor]:
    words = ["model=huggingface", f"model.folder={folder}", "method=dlfd", f"run.dir={out}"]
    config = compose_job("unlearn", [*words, *TINY_FACES, *WORDS, "train_mode=sync_bn"])
    run_job(config, group, StopFlag())
    return load_file(RunDir(out).model)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_two_ranks_give_the_weights_of_one_to_a_folder(tmp_path: Path, ranks, kind: str):
    pytest.importorskip("transformers", reason="transformers is missing: dlfd-dist[huggingface]")
    folder = write_model(tmp_path / "model", kind)
    alone = from_a_folder(Collectives(), folder, tmp_path / "one")
    for state in ranks(from_a_folder, 2, folder, tmp_path / "two"):
        torch.testing.assert_close(state, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("differ", "match"), [("model", "another checkpoint"), ("sets", "other images")]
)
def test_ranks_that_see_different_things_are_told(tmp_path: Path, ranks, differ: str, match: str):
    told = ranks(with_other_data, 2, tmp_path / "run", differ)
    assert all("Rank 1 reads" in one and match in one for one in told), told
    assert not (tmp_path / "run").exists()
