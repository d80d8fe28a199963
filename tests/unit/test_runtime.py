"""runtime, run_dir and logs: place, order, seeds, checkpoints, stopping, files, progress lines."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlfd_dist.config import RuntimeConfig
from dlfd_dist.errors import CheckpointError, CollectiveError, ConfigError, RunDirError
from dlfd_dist.logs import Progress, close_rank_log, duration, open_rank_log, setup_console
from dlfd_dist.run_dir import (
    RunDir,
    append_event,
    read_events,
    replacing,
    truncate_events,
    write_json,
    write_text,
)
from dlfd_dist.runtime.checkpoint import (
    Checkpoint,
    copy_state,
    drop_checkpoints,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from dlfd_dist.runtime.collectives import Collectives, shard_counts, shard_slice
from dlfd_dist.runtime.env import RankInfo, rank_info, rendezvous
from dlfd_dist.runtime.init import pick_device, process_group
from dlfd_dist.runtime.preemption import STOP_SIGNALS, stop_flag
from dlfd_dist.runtime.sampler import EpochSampler
from dlfd_dist.runtime.seeding import derive_seed, purpose_key, sample_keys, shuffled, torch_seed

# -- place ---------------------------------------------------------------------------------------

TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SRUN = {
    "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8",
    "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
}  # fmt: skip


def without(env: dict[str, str], *names: str) -> dict[str, str]:
    return {k: v for k, v in env.items() if k not in names}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (TORCHRUN, RankInfo(5, 1, 8, 4, 1, "torchrun")),
        ({**SRUN, **TORCHRUN, "RANK": "2"}, RankInfo(2, 1, 8, 4, 0, "torchrun")),
        (SRUN, RankInfo(5, 1, 8, 4, 1, "slurm")),
        ({}, RankInfo(0, 0, 1, 1, 0, "single")),
        # The shell of a batch script, and a step of one task, are single processes.
        (without(SRUN, "SLURM_STEP_ID"), RankInfo()),
        ({**SRUN, "SLURM_NTASKS": "1"}, RankInfo()),
        (without(SRUN, "SLURM_NTASKS"), RankInfo()),
    ],
)
def test_rank_info_reads_torchrun_then_srun_then_nothing(env, expected):
    assert rank_info(env) == expected


@pytest.mark.parametrize(
    ("tasks", "node", "expected"),
    [
        ("4", 0, 4),
        ("4(x2)", 1, 4),
        ("2(x3),1", 2, 2),
        ("2(x3),1", 3, 1),
        ("3,2,1", 1, 2),
        ("16(x12),8(x3)", 14, 8),
        ("2", 5, 1),
    ],
)
def test_tasks_of_this_node_are_read_from_slurms_short_form(tasks, node, expected):
    env = {**SRUN, "SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_NODEID": str(node)}
    assert rank_info(env).local_world_size == expected


@pytest.mark.parametrize(
    "env",
    [
        without(TORCHRUN, "LOCAL_RANK"),
        without(TORCHRUN, "LOCAL_WORLD_SIZE"),
        {**TORCHRUN, "RANK": "one"},
        without(SRUN, "SLURM_PROCID"),
        without(SRUN, "SLURM_NODEID"),
        {**SRUN, "SLURM_NTASKS": "eight"},
    ],
)
def test_incomplete_environment_is_refused(env):
    with pytest.raises(ConfigError, match="The launcher's environment is incomplete: .*torchrun"):
        rank_info(env)


def test_only_rank_0_is_main():
    assert rank_info({**TORCHRUN, "RANK": "0"}).is_main
    assert not rank_info(TORCHRUN).is_main


def test_rendezvous_takes_what_the_launcher_exports():
    env = {"MASTER_ADDR": "node7", "MASTER_PORT": "1234"}
    assert rendezvous(rank_info(TORCHRUN), env) == ("node7", 1234)


def test_rendezvous_of_one_node_differs_by_job_step_and_restart():
    ids = [("7", "0", "0"), ("8", "0", "0"), ("7", "1", "0"), ("7", "0", "1")]
    ports = set()
    for job, step, restart in ids:
        env = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": step, "SLURM_RESTART_COUNT": restart}
        address, port = rendezvous(rank_info(SRUN), env)
        assert address == "127.0.0.1"
        assert 20000 <= port < 40000
        ports.add(port)
    assert len(ports) == 4


@pytest.mark.parametrize(
    ("info", "env"),
    [(rank_info(TORCHRUN), {}), (rank_info(SRUN), {"SLURM_STEP_NUM_NODES": "2"})],
)
def test_rendezvous_over_several_nodes_must_be_exported(info, env):
    with pytest.raises(ConfigError, match="MASTER_ADDR and MASTER_PORT are not set: source"):
        rendezvous(info, env)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="runtime.device=cuda, but torch finds no CUDA"):
        pick_device(RuntimeConfig(device="cuda"), RankInfo())
    assert pick_device(RuntimeConfig(), RankInfo()) == torch.device("cpu")


def test_one_rank_needs_no_group():
    threads = torch.get_num_threads()
    try:
        with process_group(RuntimeConfig(device="cpu", threads_per_rank=1), RankInfo()) as group:
            assert (group.rank, group.world_size, group.is_main) == (0, 1, True)
            assert not torch.distributed.is_initialized()
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_a_rank_that_waits_in_vain_says_why(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    info = RankInfo(1, 1, 2, 2, 0, "torchrun")
    cfg = RuntimeConfig(device="cpu", threads_per_rank=1, init_timeout_s=1)
    with (
        pytest.raises(
            CollectiveError, match=r"Rank 1 could not join .* Common causes: MASTER_ADDR"
        ),
        process_group(cfg, info),
    ):
        pass


# -- shards --------------------------------------------------------------------------------------


@given(total=st.integers(0, 200), world_size=st.integers(1, 17))
def test_shards_in_rank_order_are_the_whole_and_nearly_equal(total, world_size):
    rows = list(range(total))
    parts = [rows[shard_slice(total, rank, world_size)] for rank in range(world_size)]
    assert sum(parts, []) == rows
    sizes = [len(part) for part in parts]
    assert sizes == shard_counts(total, world_size)
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_collectives_of_one_rank_are_copies_without_gradient():
    group, value = Collectives(), torch.ones(3, requires_grad=True)
    for answer in (
        group.all_reduce_sum(value),
        group.all_reduce_max(value),
        group.gather_rows(value, 3),
    ):
        assert torch.equal(answer, value.detach())
        assert not answer.requires_grad
    summed = group.all_reduce_sum(value)
    summed += 1
    assert torch.equal(value.detach(), torch.ones(3))
    assert group.gather_numpy(np.arange(3), 3).tolist() == [0, 1, 2]
    assert group.shard(5) == slice(0, 5)


# -- seeds ---------------------------------------------------------------------------------------

IDS = st.lists(st.integers(0, 2**40), unique=True, min_size=1, max_size=40).map(np.array)


@given(ids=IDS, keep=st.integers(1, 40), seed=st.integers(0, 100))
@settings(deadline=None)
def test_a_samples_key_does_not_depend_on_the_others(ids, keep, seed):
    keys = sample_keys(ids, seed, 3)
    assert np.array_equal(sample_keys(ids[:keep], seed, 3), keys[:keep])
    assert np.array_equal(sample_keys(ids[::-1], seed, 3), keys[::-1])


@given(ids=IDS, seed=st.integers(0, 100))
@settings(deadline=None)
def test_shuffled_is_a_permutation_that_keeps_its_order_when_samples_leave(ids, seed):
    order = shuffled(ids, seed)
    assert sorted(order) == sorted(ids)
    fewer = shuffled(ids[: len(ids) // 2 + 1], seed)
    assert [i for i in order if i in set(fewer)] == fewer.tolist()


def test_keys_of_many_samples_are_distinct_and_uniform():
    keys = sample_keys(np.arange(20_000), 0)
    assert len(np.unique(keys)) == 20_000
    counts, _ = np.histogram(keys / 2.0**64, bins=20, range=(0, 1))
    # Chi-squared of 20 bins has mean 19; 43.8 is its 99.9 % quantile.
    assert (((counts - 1000) ** 2) / 1000).sum() < 43.8


def test_places_after_shuffling_are_uniform_over_seeds():
    places = np.array([np.argmax(shuffled(np.arange(10), s) == 0) for s in range(2000)])
    counts = np.bincount(places, minlength=10)
    # Chi-squared of 10 bins has mean 9; 27.9 is its 99.9 % quantile.
    assert (((counts - 200) ** 2) / 200).sum() < 27.9


def test_seeds_differ_by_every_part_of_the_key_and_its_order():
    keys = [(0,), (1,), (0, 0), (0, 1), (1, 0), (2**40,), (0, purpose_key("dropout"))]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(3, 4) == derive_seed(3, 4)


def test_torch_seed_draws_the_same_inside_and_nothing_outside():
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    draws = []
    for _ in range(2):
        with torch_seed(7):
            draws.append(torch.rand(4))
    assert torch.equal(*draws)
    assert torch.equal(torch.rand(4), expected)
    assert not torch.equal(draws[0], expected)


def test_torch_seed_restores_after_an_error():
    def draw_and_fail() -> None:
        with torch_seed(7):
            torch.rand(4)
            raise RuntimeError("inside")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)


# -- order ---------------------------------------------------------------------------------------


def sampler(n: int = 10, batch_size: int = 4, seed: int = 0, purpose: str = "order", **values):
    ids = 100 + np.arange(n)
    return EpochSampler(ids, batch_size=batch_size, seed=seed, purpose=purpose, **values)


@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), epoch=st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_every_sample_comes_once_per_epoch(n, batch_size, epoch):
    order = sampler(n, batch_size)
    per_epoch = order.steps_per_epoch
    steps = list(order.steps(epoch * per_epoch, (epoch + 1) * per_epoch))
    assert sorted(np.concatenate([s.ids for s in steps])) == list(order.ids)
    assert {s.epoch for s in steps} == {epoch}
    assert all(len(s.ids) == batch_size for s in steps[:-1])
    assert len(steps[-1].ids) == (n - 1) % batch_size + 1


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_step_by_its_number_is_that_of_the_running_order(shuffle):
    order = sampler(shuffle=shuffle)
    for index, step in zip(range(2, 9), order.steps(2, 9), strict=True):
        alone = order.step(index)
        assert (step.index, step.epoch) == (alone.index, alone.epoch) == (index, index // 3)
        assert np.array_equal(step.ids, alone.ids)


def test_the_last_batch_of_an_epoch_is_smaller():
    assert [len(s.ids) for s in sampler().steps(0, 6)] == [4, 4, 2, 4, 4, 2]


def test_the_order_differs_by_epoch_seed_and_purpose():
    orders = [
        sampler(30).order(0),
        sampler(30).order(1),
        sampler(30, seed=1).order(0),
        sampler(30, purpose="forget").order(0),
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert np.array_equal(orders[0], sampler(30).order(0))


def test_without_shuffling_every_epoch_keeps_the_order_of_the_ids():
    ids = np.concatenate([s.ids for s in sampler(shuffle=False).steps(0, 6)])
    assert ids.tolist() == 2 * list(range(100, 110))


# -- checkpoints ---------------------------------------------------------------------------------


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
    state = Checkpoint(3, copy_state(whole.state_dict()), optimizer_tensors(optimizer))
    save_checkpoint(tmp_path, state, keep=1)
    advance(whole, optimizer, range(3, 6))

    found = load_checkpoint(tmp_path)
    assert found is not None
    assert set(found.optimizer) == {"0.momentum_buffer", "1.momentum_buffer"}
    resumed, optimizer = start()
    resumed.load_state_dict(found.model)
    restore_optimizer(optimizer, found.optimizer)
    advance(resumed, optimizer, range(3, 6))
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


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


# -- stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_stop_signal_sets_the_flag_and_the_old_handlers_come_back(number):
    before = [signal.getsignal(n) for n in STOP_SIGNALS]
    with stop_flag() as flag:
        assert not flag.requested
        os.kill(os.getpid(), number)
        assert flag.requested
    assert [signal.getsignal(n) for n in STOP_SIGNALS] == before


def test_handlers_come_back_after_an_error():
    before = [signal.getsignal(n) for n in STOP_SIGNALS]
    with pytest.raises(RuntimeError, match="inside"), stop_flag():
        raise RuntimeError("inside")
    assert [signal.getsignal(n) for n in STOP_SIGNALS] == before


def test_a_thread_that_may_not_set_handlers_gets_a_flag_all_the_same():
    found = []

    def body() -> None:
        with stop_flag() as flag:
            found.append(flag.requested)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [False]


# -- run directory -------------------------------------------------------------------------------


def test_a_claimed_directory_holds_config_and_identity(tmp_path):
    run_dir = RunDir(tmp_path / "größe 'x'" / "run")
    run_dir.claim("abc", {"data": "d1"}, "seed: 0\n")
    assert run_dir.config.read_text() == "seed: 0\n"
    held = json.loads(run_dir.identity.read_text())
    assert held == {"signature": "abc", "inputs": {"data": "d1"}}
    assert run_dir.logs.is_dir()
    assert run_dir.checkpoints.is_dir()
    assert not run_dir.finished()
    assert run_dir.rank_log(3).name == "rank_0003.jsonl"


def test_the_same_run_joins_its_directory_and_keeps_its_files(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    run_dir.claim("abc", {}, "seed: 0\n")
    append_event(run_dir.metrics, {"step": 1})
    write_json(run_dir.result, {"nomus": 0.5})
    run_dir.claim("abc", {}, "seed: 0\n")
    assert read_events(run_dir.metrics) == [{"step": 1}]
    assert run_dir.finished()
    assert run_dir.read_result() == {"nomus": 0.5}


def test_another_run_is_refused_and_changes_nothing(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    run_dir.claim("abc", {}, "seed: 0\n")
    with pytest.raises(RunDirError, match=r"holds another run \(signature abc, this one is def\)"):
        run_dir.claim("def", {}, "seed: 1\n")
    assert run_dir.config.read_text() == "seed: 0\n"


def test_an_empty_directory_may_be_claimed(tmp_path):
    RunDir(tmp_path).claim("abc", {}, "")
    assert RunDir(tmp_path).identity.is_file()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_run_directory_is_refused_untouched(kind, tmp_path):
    path = tmp_path / "photos"
    if kind == "folder":
        path.mkdir()
        (path / "a.png").write_bytes(b"x")
    else:
        path.write_bytes(b"x")
    with pytest.raises(RunDirError, match="exists and is not a run directory: choose another"):
        RunDir(path).claim("abc", {}, "")
    assert not (path / "run.json").exists()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(RunDirError, match=r"run.dir=.*run cannot be written \(Not a directory\)"):
        RunDir(tmp_path / "file" / "run").claim("abc", {}, "")


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}"])
def test_a_damaged_identity_is_refused(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunDirError, match=r"run.json is damaged"):
        RunDir(tmp_path).claim("abc", {}, "")


def test_events_after_the_resumed_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    events = [{"event": "start"}, {"step": 1}, {"step": 2}, {"step": 2, "probe": 1}, {"step": 3}]
    for event in events:
        append_event(path, event)
    truncate_events(path, 2)
    assert read_events(path) == events[:4]


def test_a_last_line_cut_off_by_a_crash_does_not_count(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_event(path, {"step": 1, "text": "größe\u2028x"})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_events(path) == [{"step": 1, "text": "größe\u2028x"}]
    truncate_events(path, 5)
    append_event(path, {"step": 2})
    assert [e["step"] for e in read_events(path)] == [1, 2]


def test_a_file_of_events_that_is_not_there_is_empty(tmp_path):
    assert read_events(tmp_path / "metrics.jsonl") == []


class Unserialisable:
    pass


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({"x": float("nan")}, ValueError, "not JSON compliant"),
        ({"x": Unserialisable()}, TypeError, "not JSON serializable"),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_no_temporary(value, error, message, tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"x": 1})
    with pytest.raises(error, match=message):
        write_json(path, value)
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_replacing_shows_nothing_before_the_end_and_cleans_up_after_an_error(folder, tmp_path):
    target = tmp_path / "target"

    def fill(partial: Path) -> None:
        if folder:
            partial.mkdir()
            (partial / "inner").write_text("x")
        else:
            partial.write_text("x")

    def fail() -> None:
        with replacing(target) as partial:
            fill(partial)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with replacing(target) as partial:
        fill(partial)
        assert not target.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


# -- logs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (252, "4m12s"), (3599, "59m59s"), (3600, "1h00m"),
     (7500, "2h05m"), (90000, "25h00m")],
)  # fmt: skip
def test_duration_is_short_and_readable(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def own_logging(monkeypatch):
    """A logger without the handlers of other tests, put back afterwards."""
    root, python = logging.getLogger("dlfd_dist"), logging.getLogger("py.warnings")
    held = (root.handlers, root.level, root.propagate, python.handlers)
    root.handlers = []
    root.setLevel(logging.INFO)
    yield root
    logging.captureWarnings(False)
    root.handlers, root.propagate, python.handlers = held[0], held[2], held[3]
    root.setLevel(held[1])


PROGRESS = re.compile(r"unlearn step=2/4 loss=0\.4123 kept=3 img/s=\d+ eta=\d+s\n$")


def test_progress_without_a_terminal_is_one_greppable_line(own_logging, capsys):
    setup_console()
    progress = Progress("unlearn", 4, first=0, every_s=1e-9, enabled=True)
    progress.update(2, 64, loss=0.41234, kept=3)
    progress.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(r"\[0s\] ", err)
    assert PROGRESS.search(err)


def test_progress_waits_for_its_interval_and_always_tells_the_last_step(own_logging, capsys):
    setup_console()
    progress = Progress("train", 3, first=0, every_s=1e6, enabled=True)
    for step in (1, 2, 3):
        progress.update(step, 8)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "step=3/3" in lines[0]
    assert "eta=0s" in lines[0]


def test_other_ranks_show_no_progress(own_logging, capsys):
    setup_console()
    Progress("train", 1, first=0, every_s=1e-9, enabled=False).update(1, 8)
    assert capsys.readouterr().err == ""


def test_console_of_another_rank_shows_its_warnings_with_its_number(own_logging, capsys):
    setup_console(rank=3)
    setup_console(rank=3)
    logging.getLogger("dlfd_dist.x").info("quiet")
    logging.getLogger("dlfd_dist.x").warning("loud")
    assert re.fullmatch(r"\[0s\] \[rank 3\] warning: loud\n", capsys.readouterr().err)


def test_rank_log_has_one_json_object_a_line(own_logging, tmp_path):
    path = tmp_path / "rank_0002.jsonl"
    handler = open_rank_log(path, 2)
    logging.getLogger("dlfd_dist.x").info("größe %d\nnext", 3)
    close_rank_log(handler)
    logging.getLogger("dlfd_dist.x").info("after")
    (event,) = read_events(path)
    assert (event["rank"], event["level"], event["message"]) == (2, "info", "größe 3\nnext")
    assert event["time"] > 0
