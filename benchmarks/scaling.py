"""Bytes between ranks, measured against the model of the planner; 8 to 1,024 GPUs by that model.

    python benchmarks/scaling.py [--write]

One, two, four and eight ranks (gloo, one thread each) take one outer step of DLFD on ResNet18; what
the collectives and DDP's buckets were handed is compared with launch/plan/scaling.py. Then that
model is drawn for 8 to 1,024 GPUs: a simulation, no measurement. It is fed with the seconds of a
pass and of a plan that the result files of a GPU hold; the links are stated. The last line is
`ratio R`: the bytes measured on rank 0 / those of the model, summed over the numbers of ranks.
"""

import argparse
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from figures import newest
from matplotlib.figure import Figure
from results import write_result
from torch.nn.parallel import DistributedDataParallel

from dlfd_dist.config import DLFDConfig, ModelConfig, SynthesisConfig, TransportConfig
from dlfd_dist.methods import Updater
from dlfd_dist.models import build_model
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.synthesis import Objective, layer_output, perturb
from launch.plan.scaling import Link, Step, step_bytes, step_seconds

BATCH, ITERATIONS, RANKS = 16, 3, (1, 2, 4, 8)
CARD = "nvidia-h100-80gb-hbm3"
"""The GPU whose result files feed the model."""
LINKS = [
    Link("NVLink in a node, 300 GB/s, 5 us", 300e9, 5e-6),
    Link("InfiniBand NDR, 50 GB/s, 10 us", 50e9, 10e-6),
    Link("Ethernet 25 Gbit/s, 3 GB/s, 50 us", 3e9, 50e-6),
]
NDR = LINKS[1]
FREE = "entropic, alike, launches free"
WORLDS = [8, 16, 32, 64, 128, 256, 512, 1024]


def figures_of(theme: str, pattern: str) -> list[float]:
    """Return the last figures of this pattern in the newest result file of a theme on CARD."""
    path = newest(f"{theme}_{CARD}")
    matches = list(re.finditer(pattern, path.read_text(encoding="utf-8")))
    if not matches:
        raise ValueError(f"{path.name} has no figure {pattern}")
    return [float(figure) for figure in matches[-1].groups()]


class Way(NamedTuple):
    """A step by how its plans are had, and that of one GPU which it is held against."""

    step: Step
    base: Step
    link: Link = NDR

    def gained(self, ranks: int) -> float:
        return step_seconds(self.base, 1) / step_seconds(self.step, ranks, self.link)


def ways() -> dict[str, Way]:
    """Return an outer step of 1,024 images, 15 iterations, ResNet18, by how its plan is had."""
    forward = r"\| forward pass, float32 \| \S+ \|(?: \|)? (\S+) \|"
    small = re.search(forward, newest(f"iteration_{CARD}").read_text(encoding="utf-8"))
    assert small is not None  # of 32 images; the last one is of 256 images of 224 px
    steps = {}
    for kind in ("alike", "classes"):
        row = rf"\| 1,024 \| {kind} \| (\S+) \| (\S+) \|"
        exact_ms, entropic_ms = figures_of("transport", row)
        exact = Step(
            batch=1024, iterations=15, width=512, parameters=11_200_000,
            images_per_s=256 / figures_of("iteration", forward)[0], pass_s=float(small[1]),
            transport_s=exact_ms / 1000,
        )  # fmt: skip
        entropic = replace(exact, transport_s=entropic_ms / 1000)
        steps |= {
            f"exact, {kind}": Way(exact, exact),
            f"exact, ot.lag=1, {kind}": Way(replace(exact, lag=True), exact),
            f"entropic, {kind}": Way(entropic, exact),
        }
    alike = steps["entropic, alike"]
    steps[FREE] = alike._replace(step=replace(alike.step, pass_s=0.0))
    return steps


def rank(number: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=ranks
    )
    collectives = Collectives(number, ranks)
    model = build_model(ModelConfig(), image_size=32, num_outputs=8, seed=0)
    updater = Updater(model, DLFDConfig(), collectives=collectives)
    buckets: list[int] = []

    def count(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        buckets.append(bucket.buffer().nbytes)
        done = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
        return done.then(lambda one: one.value()[0] / ranks)

    if ranks > 1:  # one rank has no replicas
        assert isinstance(updater.forward, DistributedDataParallel)
        updater.forward.register_comm_hook(None, count)
    rows = collectives.shard(BATCH)
    images, forget = torch.rand(2, BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(BATCH)[rows] % 8
    own = layer_output(model, forget[rows], "features")
    objective = Objective(
        collectives.gather_rows(own, BATCH), labels, total=BATCH, forget_weight=3.0,
        retain_weight=0.5, layer="features", ot=TransportConfig(), collectives=collectives,
    )  # fmt: skip
    limits = (torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
    cfg = SynthesisConfig(steps=ITERATIONS)
    made = perturb(model, images[rows], objective, cfg=cfg, pixel_range=limits)
    updater.classify(made.images, labels, total=BATCH, report=made.report())
    if number == 0:
        ring = 2 * (ranks - 1) / ranks
        found = {
            "features": collectives.gathered_bytes, "gradients": ring * sum(buckets),
            "scalars": ring * collectives.reduced_bytes,
            "parameters": sum(p.numel() for p in model.parameters()),
        }  # fmt: skip
        torch.save(found, Path(folder) / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


def measured(ranks: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank, (ranks, folder), ranks)
        return torch.load(Path(folder) / "found.pt", weights_only=True)


def drawing(steps: dict[str, Way]) -> Figure:
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    links = {link.name: steps["entropic, alike"]._replace(link=link) for link in LINKS}
    for axis, lines, title in (
        (axes[0], steps, f"ways to the plan, {NDR.name}"),
        (axes[1], links, "links, entropic plan, features alike"),
    ):
        for name, way in lines.items():
            axis.plot(WORLDS, [way.gained(w) for w in WORLDS], marker="o", label=name)
        axis.plot(WORLDS, WORLDS, color="0.7", linestyle=":", label="linear")
        axis.set(xscale="log", yscale="log", xlabel="GPUs", title=title)
        axis.set_xticks(WORLDS, [str(w) for w in WORLDS])
        axis.title.set_fontsize(9)
        axis.minorticks_off()
        axis.legend(fontsize=8)
    axes[0].set_ylabel("speed-up over one GPU with exact plans (simulated)")
    figure.suptitle(
        "Simulation, not a measurement: one outer step, batch 1,024, 15 iterations, ResNet18 at "
        "224 px", fontsize=9,
    )  # fmt: skip
    return figure


def compared() -> tuple[str, float]:
    """Return the table of bytes by ranks, and all that were measured over all of the model."""
    lines = [
        "| ranks | bytes of a rank and step | measured | model |",
        "| ---: | --- | ---: | ---: |",
    ]
    sums = [0.0, 0.0]
    for ranks in RANKS:
        counted = measured(ranks)
        step = Step(BATCH, ITERATIONS, 512, int(counted.pop("parameters")), 1.0)
        for name, planned in step_bytes(step, ranks).items():
            lines.append(f"| {ranks} | {name} | {counted[name]:,.0f} | {planned:,.0f} |")
            sums = [sums[0] + counted[name], sums[1] + planned]
    return "\n".join(lines), sums[0] / sums[1]


def simulated(steps: dict[str, Way]) -> str:
    """Return the table of speed-ups by way and link, and what it is made of."""
    columns = dict(steps)
    for link in (LINKS[0], LINKS[2]):
        columns[f"entropic, alike, {link.name}"] = steps["entropic, alike"]._replace(link=link)
    lines = [
        "| GPUs | " + " | ".join(columns) + " |",
        "| ---: " * (1 + len(columns)) + "|",
    ]
    for world in [1, *WORLDS]:
        cells = (f"{way.gained(world):.1f}" for way in columns.values())
        lines.append(f"| {world} | " + " | ".join(cells) + " |")
    alike, classes = (steps[f"exact, {kind}"].step for kind in ("alike", "classes"))
    late, soon = (steps[f"entropic, {kind}"].step for kind in ("classes", "alike"))
    return "\n".join(lines) + (
        "\n\nThe second table is the simulated speed-up of an outer step over one GPU that waits "
        f"for exact plans of the same features, over {NDR.name} where nothing else is said: batch "
        "1,024 in all, 15 iterations, 512 features, 11.2 million parameters. Measured on "
        f"{CARD}: {alike.images_per_s:,.0f} images/s forward (224 px), at least "
        f"{1000 * alike.pass_s:.0f} ms a forward pass, however few its images; plans of 1,024 "
        f"rows, features alike: exact {1000 * alike.transport_s:.0f} ms, entropic "
        f"{1000 * soon.transport_s:.0f} ms; features in classes: exact "
        f"{1000 * classes.transport_s:.0f} ms, entropic {1000 * late.transport_s:.0f} ms. Assumed: "
        "the links, no contention, no stragglers. The gather of an iteration is waited for; the "
        "forget gather hides behind a forward pass and the gradients' ring behind half of the "
        "update's backward pass. A plan that every rank solves by itself bounds the speed-up; "
        "where it is a short one, the launches do. The way without launches is one that no "
        "measurement shows yet."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    (bytes_of_ranks, ratio), steps = compared(), ways()
    text = f"{bytes_of_ranks}\n\n{simulated(steps)}"
    print(text)
    if args.write:
        path = write_result("scaling", "Bytes between ranks, and more ranks", text, ratio)
        drawing(steps).savefig(path.with_suffix(".png"), dpi=130)
    print(f"ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
