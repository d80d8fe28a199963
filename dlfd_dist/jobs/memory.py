"""Peak memory of a rank in steps of unlearning, against plain training at the same batch."""

from __future__ import annotations

import contextlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from ..config import JobConfig
from ..methods import methods
from ..runtime.collectives import Collectives
from ..runtime.env import RankInfo
from ..runtime.init import pick_device, set_threads
from .context import Job, make_job, prepare
from .train import train_step
from .unlearn import course_of, method_context, step_batch

KINDS = ("train", "unlearn")
STEPS = 2
"""The second step finds what the optimizer keeps."""


def step_memory(config: JobConfig) -> dict[str, float]:
    """Return the peak MB of two steps of each kind beyond libraries and data.

    Each is measured in a fresh process, as memory once freed may stay with a process: resident
    memory, or that of the device on CUDA. Both count the weights and what the optimizer keeps.

    config : of an unlearning run; plain training takes its method.global_batch_size
    """
    grown = {}
    for kind in KINDS:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
            grown[kind] = pool.submit(grown_mb, config, kind).result()
    return grown


def grown_mb(config: JobConfig, kind: str) -> float:
    """Return the peak memory of the steps above that before the model, in this process."""
    import ot  # noqa: F401  # a library, which one of the kinds would load within its step

    set_threads(config.runtime, RankInfo())
    device = pick_device(config.runtime, RankInfo())
    collectives = Collectives(device=device)
    job = make_job(prepare(config, 1), collectives)
    before = _start_peak(device)
    {"train": _train, "unlearn": _unlearn}[kind](job)
    return (_peak(device) - before) / 1e6


def _train(job: Job) -> None:
    cfg, model = job.config.train, job.model(job.config.checkpoint)
    updater = job.updater(model, cfg)
    ids = job.data.splits.retain[: job.config.method.global_batch_size]
    for index in range(STEPS):
        train_step(job, model, updater, ids, index, False)


def _unlearn(job: Job) -> None:
    course, model = course_of(job), job.model(job.config.checkpoint)
    build = methods.get(job.config.method.name)
    method = build(method_context(job, model, course.num_steps))
    updater = job.updater(model, job.config.method, course.optimizers)
    for turn, _ in zip(course.turns(0), range(STEPS), strict=False):
        updater.set_epoch(turn.epoch, turn.phase.lr, turn.phase.optimizer)
        method.step(step_batch(job, turn), updater, stop=False)


def _start_peak(device: torch.device) -> int:
    """Return the bytes in use, from which on the peak counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage: there a child begins with the peak of its parent.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
