"""A whole batch of DLFD at the authors' MUFAC sizes, against their loop with its evaluations.

    python benchmarks/whole_batch.py [--rounds 2] [--batches 10] [--share 1] [--cuda-graphs]
                                     [--write]

8,525 retain, 1,500 forget and 1,539 val images of 128 pixels (256 random ones, repeated), ResNet18
with the paper's head, batch 32, 15 synthesis iterations, synthesis on in every batch: else no
figure is written.

- authors: method=dlfd_official, and after the batch their four passes over whole sets: accuracy on
  val; losses on retain, forget and val for the attack (`train_dlfd` at 4ac0aa6; batches of 32)
- ours: method=dlfd, a probe every 10 batches, thinned to 300 + 300 images where that decides
- ours, channels_last: the same with runtime.channels_last; ours, bf16: also with
  runtime.autocast=bfloat16; with --cuda-graphs once more, with runtime.cuda_graphs (CUDA alone)
- retraining: a step of plain training on the same batch, in the same precision and memory format;
  100 epochs over the retain set are 100 of them for every batch of an epoch of ours

--share 0.1 lets the authors' passes look at every tenth image and counts their seconds tenfold,
which the result says: on a busy machine one whole batch of theirs takes many minutes.

A round times --batches of ours with their probe and one batch of the authors; every batch of a loop
is the same work. Seconds are those of the process on one thread, so that other processes of the
machine do not count; with CUDA all loops run on the device, and seconds are those of a clock. The
last line is `ratio R`: authors / ours in fp32, the median over rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import clock, pick_device, ratio_table, spread, write_result

from dlfd_dist.config import (
    DLFDConfig,
    ForgetConfig,
    JobConfig,
    MethodConfig,
    MetricsConfig,
    ModelConfig,
    RuntimeConfig,
    SynthesisConfig,
)
from dlfd_dist.config.sections import DataConfig
from dlfd_dist.data.forget_request import ResolvedRequest
from dlfd_dist.data.loaders import Batches, ResolvedData
from dlfd_dist.data.manifest import Manifest
from dlfd_dist.data.splits import Splits
from dlfd_dist.jobs.evaluation import probed_model, run_model, thinned_probe
from dlfd_dist.methods import MethodContext, Probe, StepBatch, Updater, methods
from dlfd_dist.metrics import mia_paper
from dlfd_dist.models import build_model
from dlfd_dist.runtime.collectives import Collectives

NUM_RETAIN, NUM_FORGET, NUM_VAL, NUM_CLASSES = 8525, 1500, 1539, 8
BATCH, SIZE, POOL = 32, 128, 256
IN_BFLOAT16: dict[str, Any] = {"autocast": "bfloat16", "channels_last": True}
OURS: dict[str, dict[str, Any]] = {
    "ours, fp32": {},
    "ours, fp32 and channels_last": {"channels_last": True},
    "ours, bf16 and channels_last": IN_BFLOAT16,
}
"""name -> settings of runtime"""
CAPTURED = {"ours, bf16, channels_last and CUDA graphs": {**IN_BFLOAT16, "cuda_graphs": True}}


BRIGHT = 96
"""What is added to the pixels of the bright half of the pool."""


class Repeated:
    """As many images as are asked for, out of a pool whose first half is bright.

    Forget images are bright, val images dark, and the retain set has both.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.pool = rng.integers(0, 256 - BRIGHT, (POOL, 3, SIZE, SIZE), dtype=np.uint8)
        self.pool[: POOL // 2] += BRIGHT

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        half = POOL // 2
        is_val = ids >= NUM_RETAIN + NUM_FORGET
        return self.pool[np.where(ids < NUM_RETAIN, ids % POOL, ids % half + half * is_val)]


def make_data(images: Repeated) -> ResolvedData:
    """Return the sets. Bright retain images have label 0, and no dark one: a model that learns that
    knows the forget images, all bright and of label 0, and not the dark val images of that label.
    So the attack succeeds, and synthesis is on by the rule of the loop itself."""
    ids = np.arange(NUM_RETAIN + NUM_FORGET + NUM_VAL)
    retain, forget, val = np.split(ids, [NUM_RETAIN, NUM_RETAIN + NUM_FORGET])
    names = np.array([str(i) for i in ids])
    others = np.random.default_rng(1).integers(1, NUM_CLASSES, len(ids))
    is_dark = (ids < NUM_RETAIN) & (ids % POOL >= POOL // 2)
    manifest = Manifest(
        Path(), list(names), names, np.where(is_dark, others, 0), names,
        [str(c) for c in range(NUM_CLASSES)], "random images",
    )  # fmt: skip
    splits = Splits(np.union1d(retain, forget), retain, forget, val, val[:0])
    return ResolvedData(manifest, splits, ResolvedRequest([], forget), images)


def make_config(name: str, runtime: RuntimeConfig) -> JobConfig:
    official = name == "dlfd_official"
    common = {"name": name, "lr": 0.008, "global_batch_size": BATCH}
    return JobConfig(
        verb="unlearn", checkpoint="random weights", forget=ForgetConfig(fraction=0.1),
        data=DataConfig(image_size=SIZE), model=ModelConfig(head="mlp"),
        method=MethodConfig(**common) if name == "finetune" else DLFDConfig(
            **common, forget_threshold=0.15,
            clip_norm=None if official else 5.0, probe_every=1 if official else 10,
            probe_images=None if official else 300, probe_attack="mia_paper" if official else "mia",
        ),
        synthesis=SynthesisConfig(
            steps=15, step_size=0.4, layer="logits" if official else "features"
        ),
        metrics=MetricsConfig(eval_batch_size=BATCH),
        runtime=runtime,
    )  # fmt: skip


class Loop:
    """A method on the data, from the same weights each."""

    def __init__(
        self, name: str, data: ResolvedData, folder: Path, device: torch.device,
        settings: Mapping[str, Any],
    ):  # fmt: skip
        runtime = RuntimeConfig(**settings)
        self.config = config = make_config(name, runtime)
        collectives = Collectives(device=device)
        self.model = build_model(
            config.model, image_size=SIZE, num_outputs=NUM_CLASSES, seed=0,
            bfloat16=runtime.update_in_bfloat16,
        ).to(device)  # fmt: skip
        if runtime.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batches = Batches(
            data, config.data, collectives=collectives, channels_last=runtime.channels_last
        )
        self.updater = Updater(
            self.model, config.method, collectives=collectives, cuda_graphs=runtime.cuda_graphs
        )
        context = MethodContext(
            config, self.model, lambda: self.model, collectives, -(-NUM_RETAIN // BATCH),
            NUM_CLASSES, self.batches.pixel_range, self.batches.to_uint8, folder,
            lambda: self.model,
        )  # fmt: skip
        self.method = methods.get(name)(context)
        self.every = 1
        self.done = self.synthesised = self.short = self.probes = 0

    def batch(self) -> None:
        splits, start = self.batches.data.splits, self.done * BATCH
        ids = splits.retain[start : start + BATCH]
        forget = splits.forget[np.arange(start, start + BATCH) % NUM_FORGET]
        images, labels = self.batches.shard(ids)
        forget_images, forget_labels = self.batches.shard(forget)
        step = StepBatch(
            self.done, 0, "unlearn", torch.from_numpy(ids), images, labels, BATCH,
            torch.from_numpy(forget), forget_images, forget_labels, BATCH,
        )  # fmt: skip
        numbers = self.method.step(step, self.updater, stop=False)
        self.synthesised += bool(numbers.get("synthesised"))
        self.done += 1

    def probe(self) -> None:
        with probed_model(self.method.context, self.batches) as model:
            found = thinned_probe(model, self.batches, self.config, self.done)
        self.short += found.standard_error is not None
        self.probes += 1
        self.method.observe(found)

    def their_evaluations(self) -> None:
        splits = self.batches.data.splits
        sets = [ids[:: self.every] for ids in (splits.retain, splits.forget, splits.val)]
        accuracy = run_model(self.model, self.batches, sets[2], BATCH).accuracy
        losses = [run_model(self.model, self.batches, ids, BATCH).losses for ids in sets]
        score = abs((mia_paper(losses[1], losses[2]) or 0.5) - 0.5)
        self.method.observe(Probe(self.done, accuracy or 0.0, 0.0, score, 0.5, 0.0))


def seconds(call: Callable[[], object], now: Callable[[], float], times: int = 1) -> float:
    start = now()
    for _ in range(times):
        call()
    return (now() - start) / times


def measure(
    rounds: int,
    batches: int,
    every: int,
    folder: Path,
    device: torch.device,
    ways: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, np.ndarray], str]:
    data = make_data(Repeated())
    authors = Loop("dlfd_official", data, folder, device, {})
    authors.every = every
    loops, training = (
        {name: Loop(method, data, folder, device, given) for name, given in ways.items()}
        for method in ("dlfd", "finetune")
    )
    now = clock(device)
    if device.type == "cuda":  # libraries load and choose their kernels
        for loop in [authors, *loops.values(), *training.values()]:
            loop.batch()
    rows = []
    for number in range(rounds):
        row = {}
        for name, loop in loops.items():
            row[f"{name}: synthesis and update"] = step = seconds(loop.batch, now, batches)
            thinned = seconds(loop.probe, now)
            row[name] = step + thinned / 10
            row[f"{name}: training"] = seconds(training[name].batch, now, batches)
        row["authors: synthesis and update"] = step = seconds(authors.batch, now)
        row["authors"] = step + every * seconds(authors.their_evaluations, now)
        rows.append(row)
        print(f"round {number + 1}/{rounds}", *(f"{k}={v:.2f}s" for k, v in row.items()), sep="\n ")
    for name, loop in loops.items():
        if loop.synthesised < loop.done:
            sys.exit(f"{name}: synthesis rested, so that the batches are not those to be timed.")
    counts = [
        f"{name}: {loop.done} batches, {loop.synthesised} with synthesis, {loop.probes} probes, "
        f"{loop.short} of them short"
        for name, loop in {**loops, "authors": authors}.items()
    ]
    return {k: np.array([row[k] for row in rows]) for k in rows[0]}, "\n".join(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--cuda-graphs", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = pick_device()
    if args.cuda_graphs and device.type != "cuda":
        sys.exit(f"--cuda-graphs needs a CUDA device, and there is a {device.type} device alone.")
    ways = {**OURS, **(CAPTURED if args.cuda_graphs else {})}
    with tempfile.TemporaryDirectory() as folder:
        found, counts = measure(
            args.rounds, args.batches, round(1 / args.share), Path(folder), device, ways
        )
    text = ratio_table({k: found["authors"] / v for k, v in found.items()}, found, "authors / it")
    text += "\n\n" + "\n".join(f"- {line}" for line in counts.splitlines())
    text += (
        "\n\nSeconds per batch, of the process (user and system) on one thread or, with CUDA, of a "
        "clock; a probe counts a tenth. The authors' image decoding is left out on both sides."
    )
    text += "\n\nAn epoch of DLFD, probes included, over 100 epochs of training on the retain set: "
    text += ", ".join(
        f"{name} {spread(found[name] / (100 * found[f'{name}: training']), 3)}" for name in ways
    )
    text += " (to reach: 0.15)."
    if args.share < 1:
        text += (
            f" The authors' four passes were timed on {args.share:g} of their images and their "
            f"seconds multiplied by {1 / args.share:g}; nothing else is extrapolated."
        )
    ratio = float(np.median(found["authors"] / found["ours, fp32"]))
    print(text)
    if args.write:
        write_result(
            "whole_batch", "A whole batch against the authors' loop", text, ratio, device=device
        )
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
