"""Checkpoints: whole, kept, replaced, damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dlfd_dist.errors import CheckpointError
from dlfd_dist.run_dir import write_text
from dlfd_dist.runtime.checkpoint import (
    Checkpoint,
    copy_state,
    drop_checkpoints,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizers,
    save_checkpoint,
)
from dlfd_dist.runtime.seeding import torch_seed


def checkpoint_at(step: int) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((2,), float(step))}, {})


def steps_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir())


def test_no_checkpoint_yet_is_none(tmp_path):
    assert load_checkpoint(tmp_path) is None


def test_a_checkpoint_comes_back_whole(tmp_path):
    saved = Checkpoint(
        7,
        {"w": torch.randn(2, 3), "n": torch.tensor(5)},
        {"0.momentum_buffer": torch.randn(3).double()},
        {"w": torch.zeros(2, 3)},
        {"mask.w": torch.tensor([True, False])},
        {"best": 0.5, "method": {"synthesising": True}},
    )
    save_checkpoint(tmp_path, saved, keep=2)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.values) == (saved.step, saved.values)
    for part in ("model", "optimizer", "best", "loop"):
        torch.testing.assert_close(getattr(found, part), getattr(saved, part), rtol=0, atol=0)


def test_a_resumed_optimizer_goes_on_as_if_never_stopped(tmp_path):
    def start() -> tuple[nn.Linear, torch.optim.SGD]:
        with torch_seed(0):
            model = nn.Linear(3, 2)
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)

    def advance(model: nn.Module, optimizer: torch.optim.SGD, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            model(torch.full((1, 3), float(step))).square().sum().backward()
            optimizer.step()

    whole, optimizer = start()
    advance(whole, optimizer, range(3))
    state = Checkpoint(3, copy_state(whole.state_dict()), optimizer_tensors({"": optimizer}))
    save_checkpoint(tmp_path, state, keep=1)
    advance(whole, optimizer, range(3, 6))

    found = load_checkpoint(tmp_path)
    assert found is not None
    assert set(found.optimizer) == {"0.momentum_buffer", "1.momentum_buffer"}
    resumed, optimizer = start()
    resumed.load_state_dict(found.model)
    restore_optimizers({"": optimizer}, found.optimizer)
    advance(resumed, optimizer, range(3, 6))
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_optimizers_of_several_names_are_restored_each():
    weight = nn.Parameter(torch.ones(2))

    def pair() -> dict[str, torch.optim.SGD]:
        return {name: torch.optim.SGD([weight], lr=0.1, momentum=0.9) for name in ("", "contrast")}

    saved, found = pair(), pair()
    for number, optimizer in enumerate(saved.values()):
        weight.grad = torch.full((2,), float(number))
        optimizer.step()
    tensors = optimizer_tensors(saved)
    assert set(tensors) == {"0.momentum_buffer", "contrast.0.momentum_buffer"}
    restore_optimizers(found, tensors)
    for name, value in (("", 0.0), ("contrast", 1.0)):
        (state,) = found[name].state.values()
        assert state["momentum_buffer"].tolist() == [value, value]


def test_a_copied_state_is_not_reached_by_later_updates():
    weights = {"w": torch.zeros(2, requires_grad=True)}
    copy = copy_state(weights)
    with torch.no_grad():
        weights["w"] += 1
    assert torch.equal(copy["w"], torch.zeros(2))
    assert not copy["w"].requires_grad


@pytest.mark.parametrize(("keep", "kept"), [(1, ["step_20"]), (2, ["step_10", "step_20"])])
def test_the_newest_checkpoints_are_kept_and_latest_names_the_last(keep, kept, tmp_path):
    for step in (5, 10, 20):
        save_checkpoint(tmp_path, checkpoint_at(step), keep=keep)
    assert steps_in(tmp_path) == kept
    assert (tmp_path / "latest").read_text() == "step_20\n"


def test_saving_a_step_again_replaces_it(tmp_path):
    save_checkpoint(tmp_path, checkpoint_at(5), keep=2)
    again = Checkpoint(5, {"w": torch.ones(1)}, {})
    save_checkpoint(tmp_path, again, keep=2)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert torch.equal(found.model["w"], torch.ones(1))


def test_a_step_beyond_the_saved_one_is_left_over_and_never_pushes_it_out(tmp_path):
    """Killed between writing step_20 and moving `latest`, then resumed from 10, stopped at 12."""
    for step in (10, 20):
        save_checkpoint(tmp_path, checkpoint_at(step), keep=2)
    write_text(tmp_path / "latest", "step_10\n")
    save_checkpoint(tmp_path, checkpoint_at(12), keep=1)
    assert steps_in(tmp_path) == ["step_12"]
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 12


def test_half_a_checkpoint_is_not_seen(tmp_path):
    save_checkpoint(tmp_path, checkpoint_at(5), keep=1)
    partial = tmp_path / ".step_6.123.tmp"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    (tmp_path / "step_final").mkdir()
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 5
    save_checkpoint(tmp_path, checkpoint_at(7), keep=1)
    assert {"step_7", "step_final"} <= set(steps_in(tmp_path))


def test_a_failed_save_leaves_the_last_checkpoint(tmp_path):
    save_checkpoint(tmp_path, checkpoint_at(5), keep=1)
    bad = Checkpoint(6, {"w": torch.ones(1)}, {}, values={"best": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_checkpoint(tmp_path, bad, keep=1)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 5
    assert steps_in(tmp_path) == ["step_5"]


@pytest.mark.parametrize("damage", ["cut model", "no values", "no folder"])
def test_a_damaged_checkpoint_says_how_to_start_anew(damage, tmp_path):
    save_checkpoint(tmp_path, checkpoint_at(5), keep=1)
    if damage == "cut model":
        path = tmp_path / "step_5" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-4])
    elif damage == "no values":
        (tmp_path / "step_5" / "values.json").unlink()
    else:
        write_text(tmp_path / "latest", "step_9\n")
    with pytest.raises(CheckpointError, match=r"cannot be read .*: remove .*latest to start"):
        load_checkpoint(tmp_path)


def test_dropping_checkpoints_keeps_the_delivered_model(tmp_path):
    save_checkpoint(tmp_path, checkpoint_at(5), keep=1)
    (tmp_path / "final").mkdir()
    drop_checkpoints(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["final"]
