"""`dlfd bench`: a few steps of an unlearning run on the user's own model and data, timed."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist.config import DLFDConfig, JobConfig, to_dict
from dlfd_dist.errors import ConfigError
from dlfd_dist.logs import setup_console
from dlfd_dist.progress import duration

from ..dry_run import dry_run_text
from .run import plan_lines

if TYPE_CHECKING:
    from dlfd_dist.jobs.bench import Bench, Iteration

STEPS = 5
PROBE_SHARE, DATA_SHARE, TRANSPORT_SHARE, CHECKPOINT_SHARE = 0.2, 0.1, 0.1, 0.1
"""Shares of the time above which something is to be changed."""
FLOOR_RATIO, MEMORY_RATIO, ROOFLINE_SHARE = 1.15, 1.2, 0.25


def run_bench(words: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Time some steps, print where their time goes and what to change."""
    steps, config = read(words)
    if dry_run:
        print(shown_plan(steps, config, as_json=as_json))
        return 0
    from dlfd_dist.jobs.bench import bench
    from dlfd_dist.runtime.allocator import keep_freed_memory
    from dlfd_dist.runtime.env import rank_info
    from dlfd_dist.runtime.init import process_group

    setup_console()
    keep_freed_memory()
    with scratch(config) as placed, process_group(config.runtime, rank_info()) as collectives:
        measured = bench(placed, steps, collectives)
    changes = advice(measured, config)
    values = as_values(measured, changes)
    text = json.dumps(values, indent=2, sort_keys=True)
    if config.run.dir is not None:
        from dlfd_dist.run_dir import write_text

        write_text(Path(config.run.dir) / "bench.json", text + "\n")
    print(text if as_json else table(measured, config, changes))
    return 0


def read(words: Sequence[str]) -> tuple[int, JobConfig]:
    """Return the steps to time, and the run they are of."""
    from dlfd_dist.compose import compose_job
    from dlfd_dist.runtime.env import rank_info

    steps, rest = str(STEPS), []
    for word in words:
        key, _, value = word.partition("=")
        if key == "steps":
            steps = value
        else:
            rest.append(word)
    if not steps.isdecimal() or int(steps) < 1:
        raise ConfigError(f"steps={steps} is not allowed: it must be a whole number >= 1.")
    config = compose_job("unlearn", rest)
    ranks = max(config.runtime.world_size, rank_info().world_size)
    if ranks > 1:
        raise ConfigError(
            f"dlfd bench times one rank, not {ranks}: leave out runtime.world_size. Whether more "
            "ranks pay is said by 'dlfd submit unlearn ... --dry-run'."
        )
    # The pairs of equal images are looked for before a run, not in its steps.
    return int(steps), replace(config, data=replace(config.data, leaks=False))


def shown_plan(steps: int, config: JobConfig, *, as_json: bool) -> str:
    """Return what would be timed, and the files that would be written."""
    from dlfd_dist.jobs.bench import steps_done
    from dlfd_dist.jobs.plan import plan

    # The last line is on the run directory, and there is none.
    lines = plan(replace(config, run=replace(config.run, dir=None)))["plan"][:-1]
    lines.append(f"bench: {steps} steps are timed, {steps_done(config, steps)} are done")
    files = [] if config.run.dir is None else [str(Path(config.run.dir) / "bench.json")]
    values = {"config": to_dict(config), "plan": lines}
    return dry_run_text(values, plan_lines(config, lines, "bench"), files, as_json=as_json)


@contextlib.contextmanager
def scratch(config: JobConfig) -> Iterator[JobConfig]:
    """Yield the run in a folder that is removed: in run.dir, whose disk is then timed, if given."""
    if config.run.dir is not None:
        Path(config.run.dir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=config.run.dir) as folder:
        yield replace(config, run=replace(config.run, dir=str(Path(folder) / "run")))


def as_values(measured: Bench, changes: list[str]) -> dict[str, Any]:
    iteration = measured.iteration
    shares = ("peak_share", "bandwidth_share", "roofline_share", "bound_by")
    return {
        **asdict(measured), "step_seconds": measured.step_seconds,
        "images_per_s": measured.images_per_s, "share": measured.share,
        "memory_over_training": measured.memory_over_training, "change": changes,
        **{name: iteration and getattr(iteration, name) for name in shares},
    }  # fmt: skip


def advice(measured: Bench, config: JobConfig) -> list[str]:
    """Return what to change, one sentence each; the figures are in them."""
    cfg, share = config.method, measured.share
    official = cfg.name == "dlfd_official"
    changes = []
    if share["probe"] > PROBE_SHARE and not official:
        changes.append(_rarer_probes(measured, config))
    if share["data"] > DATA_SHARE:
        changes.append(
            f"Images take {share['data']:.0%} of the time: keep the decoded ones on a local disk "
            "(data.cache_dir)" + (", or leave out method.augment." if cfg.augment else ".")
        )
    if share["transport"] > TRANSPORT_SHARE:
        changes.append(_cheaper_transport(measured, config))
    if share["checkpoint"] > CHECKPOINT_SHARE:
        every = math.ceil(config.run.checkpoint_every * share["checkpoint"] / 0.02)
        changes.append(
            f"Checkpoints take {share['checkpoint']:.0%} of the time: "
            f"run.checkpoint_every={every} makes that about 2 %."
        )
    if measured.device.startswith("cuda") and config.runtime.autocast == "none":
        changes.append(
            "Forward and backward passes run in float32 on a CUDA device: try "
            "runtime.autocast=bfloat16 with runtime.channels_last=true."
        )
    if measured.iteration is not None:
        changes += _larger_batch(measured, measured.iteration)
    if measured.memory_over_training > MEMORY_RATIO:
        changes.append(
            f"A step needs {measured.memory_over_training:.2f} times the memory of training: lower "
            "method.global_batch_size, or use more ranks."
        )
    return changes


def _larger_batch(measured: Bench, iteration: Iteration) -> list[str]:
    """Return what to change where an iteration waits for something else than arithmetic."""
    if measured.share["transport"] > TRANSPORT_SHARE:
        return []
    if iteration.over_floor > FLOOR_RATIO:
        return [
            f"An iteration costs {iteration.over_floor:.2f} times its floor: the batch of "
            f"{measured.batch} is too small for this model and device, or other work shares it."
        ]
    if iteration.roofline_share < ROOFLINE_SHARE:
        return [
            f"An iteration does {iteration.peak_share:.0%} of the arithmetic and "
            f"{iteration.bandwidth_share:.0%} of the memory traffic that the device can do: raise "
            "method.global_batch_size, or try runtime.channels_last=true."
        ]
    return []


def _rarer_probes(measured: Bench, config: JobConfig) -> str:
    cfg, share = config.method, measured.share["probe"]
    every = cfg.probe_every or 1
    rest = 1 - share
    fewer = math.ceil(every * share / rest * (1 - PROBE_SHARE / 2) / (PROBE_SHARE / 2))
    sentence = (
        f"Probes take {share:.0%} of the time: method.probe_every={fewer} makes that about 10 %"
    )
    if isinstance(cfg, DLFDConfig) and cfg.probe_images is None:
        return sentence + ", or method.probe_images=300 lets a probe end early."
    return sentence + "."


def _cheaper_transport(measured: Bench, config: JobConfig) -> str:
    sentence = f"Transport takes {measured.share['transport']:.0%} of the time: "
    on_device, may_lag = measured.device.startswith("cuda"), isinstance(config.method, DLFDConfig)
    if on_device and config.ot.solver != "entropic":
        if may_lag and not config.ot.lag:
            return sentence + "try ot.lag=1, with which the device goes on while the host solves."
        return (
            sentence + "try ot.solver=entropic with ot.lag=0, which stays on the device, or "
            "ot.scope=rank."
        )
    if config.ot.solver == "entropic" and not on_device:
        return sentence + "on the CPU ot.solver=exact is the faster one up to 2048 rows."
    return sentence + "lower method.global_batch_size, or solve per rank (ot.scope=rank)."


def table(measured: Bench, config: JobConfig, changes: list[str]) -> str:
    """Return what a person reads."""
    passes = measured.share["forward"] + measured.share["backward"]
    nothing = [f"Nothing stands out: {passes:.0%} of the time is forward and backward passes."]
    lines = [
        f"{config.method.name}, {config.model.name} at {config.data.image_size} px, batch "
        f"{measured.batch}, one rank on {measured.device}; {measured.num_measured} steps timed",
        "",
        *(f"{name:28} {value:>10}   {note}".rstrip() for name, value, note in _figures(measured)),
        "",
        f"{'phase':28} {'s per step':>10}   share",
    ]
    for name, seconds in measured.seconds.items():
        share = measured.share[name]
        bar = "#" * round(share * 40)
        lines.append(f"{name:28} {seconds:10.4f}   {share:6.1%} {bar}".rstrip())
    return "\n".join([*lines, "", "What to change:", *(f"- {line}" for line in changes or nothing)])


def _figures(measured: Bench) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and note of each figure."""
    yield "images/s", f"{measured.images_per_s:.1f}", ""
    yield "s per step", f"{measured.step_seconds:.3f}", ""
    note = f"{measured.num_steps} steps, {measured.num_probes} probes, without the evaluation at "
    yield "whole run", duration(measured.num_steps * measured.step_seconds), f"{note}the end"
    if (iteration := measured.iteration) is not None:
        floor = "floor: one forward and one input backward pass"
        yield "iteration / floor", f"{iteration.over_floor:.2f}", floor
        note = (
            f"{iteration.flops / 1e9:.1f} GFLOP in {iteration.seconds * 1e3:.1f} ms; the device "
            f"does {iteration.peak_flops / 1e9:.0f} in a second"
        )
        yield "arithmetic / peak", f"{iteration.peak_share:.1%}", note
        note = (
            f"{iteration.bytes / 1e9:.2f} GB in that time; the device copies "
            f"{iteration.peak_bandwidth / 1e9:.0f} in a second"
        )
        yield "memory traffic / peak", f"{iteration.bandwidth_share:.1%}", note
        times = f"{1 / iteration.roofline_share:.1f} times what the device needs for that"
        note = f"bounds an iteration, which takes {times} at its peak"
        yield "roofline", iteration.bound_by, note
    memory = measured.memory_mb
    note = f"{memory['unlearn']:.0f} of {memory['train']:.0f} MB, beyond libraries"
    yield "memory / plain training", f"{measured.memory_over_training:.2f}", note
