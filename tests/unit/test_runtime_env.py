"""Which rank this is, and where the ranks meet."""

from __future__ import annotations

import pytest

from dlfd_dist.errors import ConfigError
from dlfd_dist.runtime.env import RankInfo, rank_info, refuse_ranks, rendezvous

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
        # An image that sets them for whatever runs in it.
        ({"RANK": "0", "WORLD_SIZE": "1"}, RankInfo()),
        ({"OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1"}, RankInfo()),
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
        {**TORCHRUN, "LOCAL_RANK": "-1"},
        {"RANK": "1", "WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "2"},
    ],
)
def test_incomplete_environment_is_refused_and_told_how_to_run_alone(env):
    name = "RANK" if "RANK" in env else "SLURM_STEP_ID"
    why = f"The launcher's environment is incomplete: .* To run alone: env -u {name} .*torchrun"
    with pytest.raises(ConfigError, match=why):
        rank_info(env)


@pytest.mark.parametrize(
    "env",
    [
        {**TORCHRUN, "RANK": "8"},
        {**TORCHRUN, "LOCAL_RANK": "4"},
        {**TORCHRUN, "LOCAL_WORLD_SIZE": "0"},
        {**TORCHRUN, "LOCAL_WORLD_SIZE": "16"},
        {**TORCHRUN, "WORLD_SIZE": "0"},
        {**SRUN, "SLURM_PROCID": "8"},
    ],
)
def test_a_place_outside_its_world_is_refused(env):
    with pytest.raises(ConfigError, match="environment contradicts itself: .*run alone: env"):
        rank_info(env)


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD", "PMI"])
def test_processes_of_mpirun_do_not_each_do_the_whole_run(name):
    env = {f"{name}_RANK": "2", f"{name}_SIZE": "4"}
    with pytest.raises(ConfigError, match="mpirun started this process as number 2 of 4"):
        rank_info(env)
    assert rank_info({**env, **TORCHRUN}).source == "torchrun"


@pytest.mark.parametrize("port", ["", "abc", "0", "65536", "-1"])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ConfigError, match=f"MASTER_PORT={port} is no port"):
        rendezvous(rank_info(TORCHRUN), {"MASTER_ADDR": "node7", "MASTER_PORT": port})


@pytest.mark.parametrize(("env", "name"), [(TORCHRUN, "RANK"), (SRUN, "SLURM_STEP_ID")])
def test_a_command_that_starts_ranks_says_how_to_start_it_alone(monkeypatch, env, name):
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match=f"start it once, without torchrun .*env -u {name} "):
        refuse_ranks("dlfd compare")


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
