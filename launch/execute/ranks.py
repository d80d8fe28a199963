"""Runs on this machine: in this process for one rank, through torch's elastic launcher for more."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlfd_dist.config import JobConfig
from dlfd_dist.errors import BAD_INPUT, FAILED, LOST, STOPPED
from dlfd_dist.runtime.env import rank_info

from ..children import child_environment, mind_working_directory, python_words
from .rank import LAUNCHER

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

    from dlfd_dist.__main__ import Prepare

STOP_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2"
SHUTDOWN_TIMEOUT_S = 300
"""How long stopped ranks may take to write their checkpoint before they are killed."""


def run_local(
    configs: Sequence[JobConfig], config_files: Sequence[Path], ready: Prepare | None = None
) -> int:
    """Run configurations one after another on this machine; return the exit status.

    Parameters
    ----------
    configs : what to run; they share one runtime section
    config_files : the same configurations as files, for ranks in processes of their own
    ready : as in run_ranks, for the one rank in this process
    """
    from dlfd_dist.__main__ import run_ranks

    world_size = configs[0].runtime.world_size
    if world_size == 1 or rank_info().source != "single":
        return run_ranks(list(configs), ready)
    os.environ[LAUNCHER] = str(os.getpid())
    return run_module("launch.execute.rank", world_size, [str(path) for path in config_files])


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def rank_environment(num_processes: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the processes' environment needs beyond ours: one share of the cores each."""
    share = max(1, cores() // num_processes)
    return {"OMP_NUM_THREADS": environ.get("OMP_NUM_THREADS", str(share))}


def run_module(module: str, world_size: int, arguments: Sequence[str] = ()) -> int:
    """Run `python -m module` as local ranks; return the exit status."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.launcher.api import elastic_launch

    mind_working_directory()
    os.environ.update(rank_environment(world_size, os.environ) | child_environment())
    # Rank 0 hosts the store, where other machines do not reach it; the agent's own listens to all.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    python, *words = python_words(module)
    try:
        with tempfile.TemporaryDirectory(prefix="dlfd-ranks-") as folder:
            launch = elastic_launch(_launch_config(world_size, Path(folder)), python)
            codes = failed_ranks(lambda: launch(*words, *arguments))
    except SignalException:
        # The agent passed the signal on; the ranks saved, or had nothing to save yet.
        print("dlfd: stopped as asked; the same command goes on from there.", file=sys.stderr)
        return STOPPED
    return exit_status(list(codes.values())) if codes else 0


def _launch_config(world_size: int, folder: Path) -> LaunchConfig:
    from torch.distributed.launcher.api import LaunchConfig

    from dlfd_dist.runtime.init import LOOPBACK

    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=world_size,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        # A file of ours: other machines do not reach it either.
        rdzv_endpoint=str(folder / "meeting"),
        rdzv_configs={"store_type": "file"},
        local_addr=LOOPBACK,
        max_restarts=0,
        signals_to_handle=STOP_SIGNALS,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
    )


def failed_ranks(launch: Callable[[], object]) -> dict[int, int]:
    """Run torch's elastic launcher; return the exit codes of the ranks that failed, by local rank.

    Raises SignalException where the launcher was asked to stop.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # The ranks say themselves what went wrong; the agent's own report would only repeat it.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        launch()
    except ChildFailedError as err:
        return {failure.local_rank: failure.exitcode for failure in err.failures.values()}
    return {}


def exit_status(codes: Sequence[int]) -> int:
    """Return the job's exit status: that of the rank that knows the cause."""
    for telling in (STOPPED, BAD_INPUT, LOST):
        if telling in codes:
            return telling
    return FAILED
