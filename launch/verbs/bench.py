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
from dlfd_dist.logs import duration, setup_console

if TYPE_CHECKING:
    from dlfd_dist.jobs.bench import Bench

STEPS = 5
PROBE_SHARE, DATA_SHARE, TRANSPORT_SHARE, CHECKPOINT_SHARE = 0.2, 0.1, 0.1, 0.1
"""Shares of the time above which something is to be changed."""
FLOOR_RATIO, MEMORY_RATIO = 1.15, 1.2


def run_bench(words: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Time some steps, print where their time goes and what to change."""
    steps, config = read(words)
    if dry_run:
        print(dry_run_text(steps, config, as_json=as_json))
        return 0
    from dlfd_dist.jobs.bench import bench
    from dlfd_dist.runtime.env import rank_info
    from dlfd_dist.runtime.init import process_group

    setup_console()
    with scratch(config) as placed, process_group(config.runtime, rank_info()) as collectives:
        found = bench(placed, steps, collectives)
    told = advice(found, config)
    values = as_values(found, told)
    text = json.dumps(values, indent=2, sort_keys=True)
    if config.run.dir is not None:
        from dlfd_dist.run_dir import write_text

        write_text(Path(config.run.dir) / "bench.json", text + "\n")
    print(text if as_json else table(found, config, told))
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


def dry_run_text(steps: int, config: JobConfig, *, as_json: bool) -> str:
    """Return what would be timed, and the files that would be written."""
    from dlfd_dist.compose import config_text
    from dlfd_dist.jobs.plan import plan

    # The last line is on the run directory, and there is none.
    lines = plan(replace(config, run=replace(config.run, dir=None)))["plan"][:-1]
    lines.append(f"bench: {steps} steps are timed, {steps + 2} are done")
    files = [] if config.run.dir is None else [str(Path(config.run.dir) / "bench.json")]
    if as_json:
        values = {"dry_run": True, "config": to_dict(config), "plan": lines, "files": files}
        return json.dumps(values, indent=2, sort_keys=True)
    return "\n".join([
        "# bench: resolved configuration", config_text(config),
        "# plan", *(f"  {line}" for line in lines),
        "# files that would be written", *(f"  {file}" for file in files),
    ])  # fmt: skip


@contextlib.contextmanager
def scratch(config: JobConfig) -> Iterator[JobConfig]:
    """Yield the run in a folder that is removed: in run.dir, whose disk is then timed, if given."""
    if config.run.dir is not None:
        Path(config.run.dir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=config.run.dir) as folder:
        yield replace(config, run=replace(config.run, dir=str(Path(folder) / "run")))


def as_values(found: Bench, told: list[str]) -> dict[str, Any]:
    return {
        **asdict(found), "step_seconds": found.step_seconds, "images_per_s": found.images_per_s,
        "share": found.share, "memory_over_training": found.memory_over_training,
        "change": told,
    }  # fmt: skip


def advice(found: Bench, config: JobConfig) -> list[str]:
    """Return what to change, one sentence each; the figures are in them."""
    cfg, share = config.method, found.share
    official = cfg.name == "dlfd_official"
    told = []
    if share["probe"] > PROBE_SHARE and not official:
        told.append(_rarer_probes(found, config))
    if share["data"] > DATA_SHARE:
        told.append(
            f"Images take {share['data']:.0%} of the time: keep the decoded ones on a local disk "
            "(data.cache_dir)" + (", or leave out method.augment." if cfg.augment else ".")
        )
    if share["transport"] > TRANSPORT_SHARE:
        told.append(_cheaper_transport(found, config))
    if share["checkpoint"] > CHECKPOINT_SHARE:
        every = math.ceil(config.run.checkpoint_every * share["checkpoint"] / 0.02)
        told.append(
            f"Checkpoints take {share['checkpoint']:.0%} of the time: "
            f"run.checkpoint_every={every} makes that about 2 %."
        )
    if found.device.startswith("cuda") and config.runtime.autocast == "none":
        told.append(
            "Forward and backward passes run in float32 on a CUDA device: try "
            "runtime.autocast=bfloat16 with runtime.channels_last=true."
        )
    if (found.iteration_over_floor or 0) > FLOOR_RATIO and share["transport"] <= TRANSPORT_SHARE:
        told.append(
            f"An iteration costs {found.iteration_over_floor:.2f} times its floor: the batch of "
            f"{found.batch} is too small for this model and device, or other work shares it."
        )
    if found.memory_over_training > MEMORY_RATIO:
        told.append(
            f"A step needs {found.memory_over_training:.2f} times the memory of training: lower "
            "method.global_batch_size, or use more ranks."
        )
    return told


def _rarer_probes(found: Bench, config: JobConfig) -> str:
    cfg, share = config.method, found.share["probe"]
    every = cfg.probe_every or 1
    rest = 1 - share
    fewer = math.ceil(every * share / rest * (1 - PROBE_SHARE / 2) / (PROBE_SHARE / 2))
    told = f"Probes take {share:.0%} of the time: method.probe_every={fewer} makes that about 10 %"
    if isinstance(cfg, DLFDConfig) and cfg.probe_images is None:
        return told + ", or method.probe_images=300 lets a probe end early."
    return told + "."


def _cheaper_transport(found: Bench, config: JobConfig) -> str:
    told = f"Transport takes {found.share['transport']:.0%} of the time: "
    if found.device.startswith("cuda") and config.ot.solver != "entropic":
        return told + "try ot.solver=entropic, which stays on the device, or ot.scope=rank."
    if config.ot.solver == "entropic" and not found.device.startswith("cuda"):
        return told + "on the CPU ot.solver=exact is the faster one up to 2048 rows."
    return told + "lower method.global_batch_size, or solve per rank (ot.scope=rank)."


def table(found: Bench, config: JobConfig, told: list[str]) -> str:
    """Return what a person reads."""
    share = found.share
    lines = [
        f"{config.method.name}, {config.model.name} at {config.data.image_size} px, batch "
        f"{found.batch}, one rank on {found.device}; {found.num_measured} steps timed",
        "",
        f"{'images/s':28} {found.images_per_s:10.1f}",
        f"{'s per step':28} {found.step_seconds:10.3f}",
        f"{'whole run':28} {duration(found.num_steps * found.step_seconds):>10}   "
        f"{found.num_steps} steps, {found.num_probes} probes, without the evaluation at the end",
    ]
    if found.iteration_over_floor is not None:
        lines.append(
            f"{'iteration / floor':28} {found.iteration_over_floor:10.2f}   "
            "floor: one forward and one input backward pass"
        )
    lines += [
        f"{'memory / plain training':28} {found.memory_over_training:10.2f}   "
        f"{found.memory_mb['unlearn']:.0f} of {found.memory_mb['train']:.0f} MB, beyond libraries",
        "",
        f"{'phase':28} {'s per step':>10}   share",
    ]
    for name, seconds in found.seconds.items():
        bar = "#" * round(share[name] * 40)
        lines.append(f"{name:28} {seconds:10.4f}   {share[name]:6.1%} {bar}".rstrip())
    lines += ["", "What to change:"]
    passes = share["forward"] + share["backward"]
    nothing = [f"Nothing stands out: {passes:.0%} of the time is forward and backward passes."]
    lines += [f"- {sentence}" for sentence in told or nothing]
    return "\n".join(lines)
