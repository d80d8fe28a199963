"""Where the time of an unlearning run goes: a few of its steps, timed by phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..config import DLFDConfig, DLFMConfig, JobConfig
from ..errors import DataError
from ..methods import methods
from ..methods.dlfd import synthesis_objective
from ..models import Classifier, FoldedClassifier, computed_in
from ..runtime.collectives import Collectives
from ..runtime.phases import OTHER, Lap, measured
from ..runtime.preemption import StopFlag
from ..synthesis import (
    Synthesised,
    floor_flops,
    floor_iterations,
    interleaved,
    peak_bandwidth,
    peak_flops,
    perturb,
    traffic_bytes,
)
from .context import Job, open_job, prepare
from .memory import step_memory
from .plan import num_steps
from .unlearn import course_of, method_context, step_batch, unlearn

PHASES = (
    "data", "forward", "backward", "transport", "gather", "update", "probe", "checkpoint", OTHER,
)  # fmt: skip
FLOOR_STEPS, FLOOR_REPEATS = 2, 3
"""Iterations of a timed call, and calls of each side."""


@dataclass(frozen=True)
class Iteration:
    """A synthesis iteration against what it cannot cost less than."""

    over_floor: float
    """over one forward and one input backward pass of the unfolded model, the median"""
    seconds: float
    flops: int
    """of that floor, counted by torch"""
    peak_flops: float
    """of the device in a second, in a product of large matrices of the same dtype"""
    bytes: int
    """that the operations of an iteration are given and return"""
    peak_bandwidth: float
    """bytes that the device reads and writes in a second, in a copy of a large tensor"""

    @property
    def peak_share(self) -> float:
        return self.flops / self.seconds / self.peak_flops

    @property
    def bandwidth_share(self) -> float:
        """Above 1 where operations find in a cache what they are given."""
        return self.bytes / self.seconds / self.peak_bandwidth

    @property
    def bound_by(self) -> str:
        """What the roofline of this iteration is: the peak of arithmetic, or of memory traffic."""
        return "arithmetic" if self.peak_share >= self.bandwidth_share else "memory"

    @property
    def roofline_share(self) -> float:
        """The least seconds by the roofline, over those of an iteration."""
        return max(self.peak_share, self.bandwidth_share)


@dataclass(frozen=True)
class Bench:
    """What was measured of a run; seconds are those of one outer step."""

    device: str
    batch: int
    num_steps: int
    """of the whole run"""
    num_measured: int
    num_probes: int
    """of the whole run"""
    seconds: dict[str, float]
    """by phase, one probe and one checkpoint shared out over the steps between two of them"""
    iteration: Iteration | None
    """of the synthesis; None for a method that has none"""
    memory_mb: dict[str, float] = field(default_factory=dict)
    """peak of two steps: train (plain training at the same batch) and unlearn"""

    @property
    def step_seconds(self) -> float:
        return sum(self.seconds.values())

    @property
    def images_per_s(self) -> float:
        return self.batch / self.step_seconds

    @property
    def share(self) -> dict[str, float]:
        return {name: value / self.step_seconds for name, value in self.seconds.items()}

    @property
    def memory_over_training(self) -> float:
        return self.memory_mb["unlearn"] / self.memory_mb["train"]


def bench(config: JobConfig, steps: int, collectives: Collectives) -> Bench:
    """Time `steps` steps of an unlearning run on one rank, and its synthesis against the floor.

    The run is the configured one, except that every step is probed, so that there are probes to
    time, and that synthesis does not rest; a probe then counts as often as it is configured. A
    first step warms up (two where CUDA graphs are captured) and a last one, which is always probed
    whole, ends the run.

    config : run.dir is where the run leaves its files, which are of no use afterwards
    """
    warming = steps_done(config, steps) - steps - 1
    prepared = prepare(_shortened(config, steps), 1)
    laps: list[Lap] = []
    with measured(collectives.device) as watch, open_job(prepared, collectives) as job:
        unlearn(
            job, StopFlag(), observe=lambda *_: laps.append(watch.lap()), end=lambda *_, **__: {}
        )
    before = methods.get(config.method.name).initial_probe
    num_done = len(laps) - before
    if num_done < warming + steps + 1:
        raise DataError(
            f"steps={steps} is more than there are: method={config.method.name} has {num_done} "
            f"steps on this data, and {warming + 1} more than are timed are needed."
        )
    counted = laps[before + warming : before + warming + steps]
    total = num_steps(config, job.data)
    probes = _num_probes(config, total)
    return Bench(
        str(collectives.device), min(config.method.global_batch_size, len(job.data.splits.retain)),
        total, steps, probes, _per_step(counted, config, probes / total),
        _iteration(job, config), step_memory(config),
    )  # fmt: skip


def steps_done(config: JobConfig, steps: int) -> int:
    """Return the steps that are done to time `steps` of them."""
    return steps + 2 + config.runtime.cuda_graphs


def _shortened(config: JobConfig, steps: int) -> JobConfig:
    cfg, needed = config.method, steps_done(config, steps)
    method = replace(cfg, max_steps=needed, epochs=max(cfg.epochs, needed), probe_every=1)
    if isinstance(method, DLFDConfig | DLFMConfig):
        method = replace(method, dynamic=False)
    # One checkpoint, after the last step that counts.
    return replace(config, method=method, run=replace(config.run, checkpoint_every=needed - 1))


def _num_probes(config: JobConfig, total: int) -> int:
    build, every = methods.get(config.method.name), config.method.probe_every
    ends = len(build.phases(config.method))
    return build.initial_probe + (ends if every is None else max(ends, total // every))


def _per_step(laps: Sequence[Lap], config: JobConfig, probes_per_step: float) -> dict[str, float]:
    summed = {name: sum(lap.seconds.get(name, 0.0) for lap in laps) for name in PHASES}
    seconds = {name: value / len(laps) for name, value in summed.items()}
    seconds["probe"] *= probes_per_step
    seconds["checkpoint"] = summed["checkpoint"] / config.run.checkpoint_every
    return seconds


def _iteration(job: Job, config: JobConfig) -> Iteration | None:
    """Time an iteration in turn with a forward and an input backward pass."""
    cfg = config.method
    if not isinstance(cfg, DLFDConfig) or cfg.name != "dlfd":
        return None
    model = job.model(config.checkpoint)
    course = course_of(job)
    batch = step_batch(job, next(course.turns(0)))
    context = method_context(job, model, course.num_steps)
    synthesis = replace(config.synthesis, steps=FLOOR_STEPS)
    bfloat16 = config.runtime.synthesis_in_bfloat16
    # What a graph replays is not seen by what counts the traffic.
    eager = FoldedClassifier(model, fold=config.runtime.fast)
    shape = batch.images.shape
    with (
        computed_in(model, bfloat16=bfloat16),
        context.folded.computed_in(shape, bfloat16=bfloat16) as folded,
        eager.computed_in(shape, bfloat16=bfloat16) as counted,
    ):
        objective = synthesis_objective(
            context, folded, batch, forget_weight=cfg.forget_weight if cfg.distancing else 0.0,
            retain_weight=cfg.final_retain_weight,
        )  # fmt: skip

        def ours(network: Classifier) -> Synthesised:
            return perturb(
                network, batch.images, objective, cfg=synthesis, pixel_range=context.pixel_range
            )

        calls = {
            "floor": lambda: floor_iterations(model, batch.images, FLOOR_STEPS),
            "ours": lambda: ours(folded),
        }
        device = job.collectives.device
        rows = list(interleaved(calls, FLOOR_REPEATS, device))
        flops = floor_flops(model, batch.images)
        traffic = traffic_bytes(lambda: ours(counted))
    dtype = torch.bfloat16 if bfloat16 else batch.images.dtype
    return Iteration(
        over_floor=float(np.median([row["ours"] / row["floor"] for row in rows])),
        seconds=float(np.median([row["ours"] for row in rows])) / FLOOR_STEPS,
        flops=flops,
        peak_flops=peak_flops(device, dtype),
        bytes=traffic // FLOOR_STEPS,
        peak_bandwidth=peak_bandwidth(device),
    )
