"""The one place where Ray is started: on this machine, or as part of a cluster that runs."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlfd_dist.config import SearchConfig
from dlfd_dist.errors import ConfigError, DlfdError
from dlfd_dist.resources import checkout

from ..children import child_environment, mind_working_directory
from ..execute.ranks import cores
from .sockets import ray_folder

if TYPE_CHECKING:
    from ray.job_config import JobConfig

    from .plan import SearchPlan

logger = logging.getLogger("dlfd_dist.search")

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Trials name their files absolutely; Tune would change into a directory of its own.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Trials are the work of the allocation: at Ray's own 15 any other process goes before them.
    "RAY_worker_niceness": "0",
    # SLURM or the system limits memory: they know what else runs here.
    "RAY_memory_monitor_refresh_ms": "0",
    # Of Tune's own logs only those for TensorBoard are wanted.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Seconds between saves of the state that --resume goes on from.
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_DEDUP_LOGS": "0",
}
ADDRESS, NODES, PORTS = "DLFD_RAY_ADDRESS", "DLFD_RAY_NODES", "DLFD_RAY_PORTS"
"""Variables that launch.search.node sets: address and nodes of its Ray, free ports LOW-HIGH."""
STARTS = 3
"""Times that a Ray of this machine may be too slow."""
WATCH_S = 5.0
MISSING = (
    "Ray and Optuna are needed for 'dlfd search', and {name} is not installed: install them with "
    "pip install 'dlfd-dist[search]'."
)


@dataclass(frozen=True)
class Room:
    """What there is to run trials on."""

    cpus: float
    gpus: float
    nodes: int = 1

    def check(self, search: SearchConfig, gpus_per_rank: float) -> None:
        """Refuse a trial that would wait forever."""
        cpus = search.workers_per_trial * search.cpus_per_trial
        gpus = search.workers_per_trial * gpus_per_rank
        for name, wanted, there in (("cores", cpus, self.cpus), ("GPUs", gpus, self.gpus)):
            if wanted > there:
                raise ConfigError(
                    f"A trial needs {wanted:g} {name} (search.workers_per_trial="
                    f"{search.workers_per_trial} ranks), and there are {there:g}: give fewer ranks "
                    "per trial, or less to each."
                )
        if search.cpus_per_trial > self.cpus / self.nodes:
            raise ConfigError(
                f"A rank needs {search.cpus_per_trial} cores, and a node has "
                f"{self.cpus / self.nodes:g}: lower search.cpus_per_trial."
            )

    def at_a_time(self, search: SearchConfig, gpus_per_rank: float) -> int:
        """Return how many trials run at a time."""
        num = int(self.cpus // (search.workers_per_trial * search.cpus_per_trial))
        if gpus_per_rank:
            num = min(num, int(self.gpus / (search.workers_per_trial * gpus_per_rank) + 1e-9))
        return max(1, min(num, search.concurrent or num))


def require_ray() -> None:
    """Raise ConfigError that names the extra when Ray or Optuna is not installed."""
    from importlib.util import find_spec

    for name in ("ray", "optuna"):
        try:
            spec = find_spec(name)
        except ValueError:
            spec = None
        if spec is None:
            raise ConfigError(MISSING.format(name=name))


def local_room() -> Room:
    """Return what this machine has; no Ray is started."""
    import torch

    return Room(cores(), torch.cuda.device_count())


def gpus_per_rank(plan: SearchPlan, room: Room) -> float:
    """Return search.gpus_per_trial, or 1 where there are GPUs; 0 on the CPU."""
    if plan.config.runtime.device == "cpu":
        return 0.0
    wanted = plan.search.gpus_per_trial
    return float(bool(room.gpus)) if wanted is None else wanted


@contextlib.contextmanager
def ray_cluster(search: SearchConfig) -> Iterator[Room]:
    """Yield the room of a Ray that runs; what is started here ends with the block."""
    mind_working_directory()
    os.environ.update(child_environment({**ENVIRONMENT, **os.environ}))
    if search.address is None and ADDRESS not in os.environ:
        os.environ.update(ray_folder(os.environ))
        _authenticate()
    import ray

    started = not ray.is_initialized()
    if started:
        _start(search)
    ended = threading.Event()
    try:
        if NODES in os.environ and started:
            _wait_for_nodes(search, int(os.environ[NODES]))
            threading.Thread(target=_watch_nodes, args=[ended], daemon=True).start()
        resources = ray.cluster_resources()
        yield Room(resources.get("CPU", 0.0), resources.get("GPU", 0.0), max(1, num_nodes()))
    finally:
        ended.set()
        if started:
            ray.shutdown()


def _authenticate() -> None:
    """Let nobody else on this machine join; said aloud, as Ray's default differs by version.

    Ray reads the mode when it is imported: where that has happened it stays without.
    """
    is_new = "ray" not in sys.modules
    if os.environ.setdefault("RAY_AUTH_MODE", "token" if is_new else "disabled") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def num_nodes() -> int:
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())


def _wait_for_nodes(search: SearchConfig, wanted: int) -> None:
    end = time.monotonic() + search.join_s
    while num_nodes() < wanted:
        if time.monotonic() > end:
            raise DlfdError(
                f"Of {wanted} nodes {num_nodes()} joined Ray within {search.join_s} s: the job's "
                "output says what the others met; give more with search.join_s."
            )
        time.sleep(0.2)
    logger.info("Ray has %d nodes", wanted)


def _watch_nodes(ended: threading.Event) -> None:
    """Stop the search when a node's Ray is lost: trials would wait for its cores forever."""
    wanted = int(os.environ[NODES])
    while not ended.wait(WATCH_S):
        with contextlib.suppress(Exception):
            num_left = num_nodes()
            if num_left < wanted and not ended.is_set():
                logger.warning(
                    "of %d nodes %d are left: the search stops and saves", wanted, num_left
                )
                os.kill(os.getpid(), signal.SIGTERM)
                return


def _own_path() -> JobConfig:
    """Return what gives Ray's workers our code; Ray would put the working directory before it."""
    from ray.job_config import JobConfig

    class OwnPath(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            return True

    return OwnPath(_py_driver_sys_path=[str(path) for path in [checkout()] if path])


def _start(search: SearchConfig) -> None:
    import ray

    quiet: dict[str, Any] = {
        "log_to_driver": False, "logging_level": "ERROR", "job_config": _own_path(),
    }  # fmt: skip
    if ADDRESS in os.environ:
        ray.init(address=os.environ[ADDRESS], **quiet)
        return
    if search.address is not None:
        # Processes of another start of Ray do not have our environment.
        passed = {k: v for k, v in os.environ.items() if k.startswith(("DLFD_", "OMP_"))}
        try:
            ray.init(address=search.address, runtime_env={"env_vars": passed}, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as err:
            raise ConfigError(
                f"There is no Ray cluster at search.address={search.address} "
                f"({str(err).splitlines()[0]}): start one with 'ray start --head', or leave "
                "search.address out for this machine alone."
            ) from err
        return
    room = local_room()
    _patiently(
        ray.init,
        # Without it Ray would join whatever else of it runs on this machine.
        address="local",
        num_cpus=int(room.cpus),
        num_gpus=int(room.gpus),
        object_store_memory=search.object_store_mb * 1_000_000,
        include_dashboard=False,
        **quiet,
    )


def _patiently(start: Callable[..., Any], **options: Any) -> None:
    """Start Ray on this machine; it gives itself 30 s, which a busy machine may not have.

    Raises ConfigError where it was too slow STARTS times.
    """
    for number in range(1, STARTS + 1):
        try:
            start(**options)
            return
        except Exception as err:  # Ray has no kind of its own for it (2.60)
            if "timed out during startup" not in str(err):
                raise
            logger.warning("Ray was not ready after 30 s, try %d of %d", number, STARTS)
    raise ConfigError(
        f"Ray was not ready after 30 s, {STARTS} times: other processes take this machine's cores. "
        "Start the search again when they have ended, or with --resume where it had begun."
    )
