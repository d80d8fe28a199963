"""Start and end of a rank: device, threads, process group."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from ..config import RuntimeConfig
from ..errors import CollectiveError, ConfigError
from .collectives import Collectives
from .env import RankInfo, rendezvous

logger = logging.getLogger(__name__)

TOLD_AFTER_S = 2.0
"""Ranks that were all started find each other sooner; who waits longer is told for whom."""
LOOPBACK = "127.0.0.1"
"""Where the ranks meet when all of them are on one machine."""


def pick_device(cfg: RuntimeConfig, info: RankInfo) -> torch.device:
    """Return cuda:<local rank> where CUDA is there and allowed, else the CPU.

    With --gpus-per-task every task sees one device, numbered 0.
    """
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("runtime.device=cuda, but torch finds no CUDA device on this machine.")
    if cfg.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", info.local_rank % torch.cuda.device_count())


def set_threads(cfg: RuntimeConfig, info: RankInfo) -> None:
    """Give each rank its share of the cores: too many threads run many times slower."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    torch.set_num_threads(cfg.threads_per_rank or max(1, cores // info.local_world_size))


@contextlib.contextmanager
def process_group(cfg: RuntimeConfig, info: RankInfo) -> Iterator[Collectives]:
    """Yield the collectives of this job; the group ends with the block."""
    device = pick_device(cfg, info)
    set_threads(cfg, info)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if info.world_size == 1:
        yield Collectives(device=device)
        return
    owner = not dist.is_initialized()
    if owner:
        _start(cfg, info, device)
    try:
        yield Collectives(info.rank, info.world_size, device)
    finally:
        if owner:
            dist.destroy_process_group()


def _listening_on_loopback(port: int) -> int:
    """Return a socket that other machines cannot reach; TCPStore's own listens everywhere."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((LOOPBACK, port))
        server.listen()
        return server.detach()


def _start(cfg: RuntimeConfig, info: RankInfo, device: torch.device) -> None:
    address, port = rendezvous(info)
    # torchrun's agent hosts the store itself and says so.
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    is_host = info.is_main and not hosted
    if is_local := not hosted and info.local_world_size == info.world_size:
        address = LOOPBACK
    waits = threading.Timer(TOLD_AFTER_S, _tell_waiting, [info, f"{address}:{port}"])
    waits.daemon = True
    waits.start()
    try:
        store = dist.TCPStore(
            address,
            port,
            info.world_size,
            is_master=is_host,
            timeout=timedelta(seconds=cfg.init_timeout_s),
            master_listen_fd=_listening_on_loopback(port) if is_host and is_local else None,
            use_libuv=True,
        )
        dist.init_process_group(
            _backend(device, info, store),
            store=dist.PrefixStore("dlfd", store),
            rank=info.rank,
            world_size=info.world_size,
            timeout=timedelta(seconds=cfg.collective_timeout_s),
        )
    except (RuntimeError, ValueError, OSError) as err:
        raise CollectiveError(
            f"Rank {info.rank} could not join the {info.world_size} ranks at {address}:{port} "
            f"within {cfg.init_timeout_s} s. Common causes: MASTER_ADDR differs between ranks, a "
            f"rank never started ({info.alone}), or a firewall between nodes. "
            f"({str(err).splitlines()[0]})"
        ) from err
    finally:
        waits.cancel()


def _tell_waiting(info: RankInfo, place: str) -> None:
    logger.warning(
        "rank %d waits at %s for the others of %d ranks: %s",
        info.rank, place, info.world_size, info.alone,
    )  # fmt: skip


def _backend(device: torch.device, info: RankInfo, store: dist.TCPStore) -> str:
    """Return NCCL for CUDA, or gloo where ranks share a GPU, as fractions do: NCCL refuses that.

    Raises
    ------
    RuntimeError : a rank did not say where it is within the store's timeout
    """
    if device.type != "cuda":
        return "gloo"
    places = [f"gpu/{rank}" for rank in range(info.world_size)]
    store.set(places[info.rank], str(torch.cuda.get_device_properties(device).uuid))
    gpus = set(store.multi_get(places))
    if len(gpus) == info.world_size:
        return "cpu:gloo,cuda:nccl"
    if info.is_main:
        logger.warning(
            "%d ranks share %d GPU(s) and talk through gloo: NCCL takes one rank per GPU.",
            info.world_size,
            len(gpus),
        )
    return "gloo"
