"""Bytes between ranks, measured against the model of the planner; 8 to 1,024 GPUs by that model.

    python benchmarks/scaling.py [--write]

Two ranks (gloo, one thread each) take one outer step of DLFD on ResNet18; what the collectives and
DDP's buckets were handed is compared with launch/plan/scaling.py. Then that model, with stated
links and speeds, is drawn for 8 to 1,024 GPUs: a simulation, no measurement. The last line is
`ratio R`: bytes measured / bytes of the model.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from matplotlib.figure import Figure
from results import write_result

from dlfd_dist.config import DLFDConfig, ModelConfig, SynthesisConfig, TransportConfig
from dlfd_dist.methods import Updater
from dlfd_dist.models import build_model
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.synthesis import Objective, layer_output, perturb
from launch.plan.scaling import Link, Step, step_bytes, step_seconds

BATCH, ITERATIONS, RANKS = 16, 3, 2
LINKS = [
    Link("NVLink in a node, 300 GB/s, 5 us", 300e9, 5e-6),
    Link("InfiniBand NDR, 50 GB/s, 10 us", 50e9, 10e-6),
    Link("Ethernet 25 Gbit/s, 3 GB/s, 50 us", 3e9, 50e-6),
]
GPU = Step(
    batch=1024, iterations=15, width=512, parameters=11_200_000, images_per_s=10_000.0,
    transport_s=0.137,
)  # fmt: skip
WORLDS = [8, 16, 32, 64, 128, 256, 512, 1024]


def rank(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=RANKS
    )
    collectives = Collectives(number, RANKS)
    model = build_model(ModelConfig(), image_size=32, num_outputs=8, seed=0)
    updater = Updater(model, DLFDConfig(), collectives=collectives)
    buckets: list[int] = []

    def count(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        buckets.append(bucket.buffer().nbytes)
        done = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
        return done.then(lambda one: one.value()[0] / RANKS)

    updater.replica.register_comm_hook(None, count)
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
        ring = 2 * (RANKS - 1) / RANKS
        found = {
            "features": collectives.gathered_bytes, "gradients": ring * sum(buckets),
            "scalars": ring * collectives.reduced_bytes,
            "parameters": sum(p.numel() for p in model.parameters()),
        }  # fmt: skip
        torch.save(found, Path(folder) / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


def measured() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank, (folder,), RANKS)
        return torch.load(Path(folder) / "found.pt", weights_only=True)


def drawing() -> Figure:
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    exact, hidden = GPU, replace(GPU, transport_s=0.0)
    for axis, step, title in (
        (axes[0], exact, "exact plan of 1,024 rows on every host (137 ms an iteration)"),
        (axes[1], hidden, "plan of each rank's own rows (ot.scope=rank), its time left out"),
    ):
        for link in LINKS:
            alone = step_seconds(step, 1)
            axis.plot(WORLDS, [alone / step_seconds(step, w, link) for w in WORLDS],
                      marker="o", label=link.name)  # fmt: skip
        axis.plot(WORLDS, WORLDS, color="0.7", linestyle=":", label="linear")
        axis.set(xscale="log", yscale="log", xlabel="GPUs", title=title)
        axis.set_xticks(WORLDS, [str(w) for w in WORLDS])
        axis.title.set_fontsize(9)
        axis.minorticks_off()
    axes[0].set_ylabel("speed-up over one GPU (simulated)")
    axes[1].legend(fontsize=8)
    figure.suptitle(
        "Simulation, not a measurement: one outer step, batch 1,024, 15 iterations, ResNet18, "
        "10,000 images/s forward on a GPU", fontsize=9,
    )  # fmt: skip
    return figure


def tables(found: dict[str, float]) -> tuple[str, float]:
    step = Step(BATCH, ITERATIONS, 512, int(found.pop("parameters")), 1.0)
    model = step_bytes(step, RANKS)
    lines = ["| bytes of a rank and step | measured | model |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {found[name]:,.0f} | {model[name]:,.0f} |" for name in model]
    lines += ["", "| GPUs | " + " | ".join(link.name for link in LINKS) + " |"]
    lines += ["| ---: " * (1 + len(LINKS)) + "|"]
    alone = step_seconds(GPU, 1)
    lines += [
        f"| {w} | "
        + " | ".join(f"{alone / step_seconds(GPU, w, link):.1f}" for link in LINKS) + " |"
        for w in WORLDS
    ]  # fmt: skip
    lines.append(
        "\nThe second table is the simulated speed-up of an outer step over one GPU: batch 1,024 "
        "in all, 15 iterations, 512 features, 11.2 million parameters, 10,000 images/s forward on "
        "a GPU, the exact plan (137 ms) solved by every rank. The gather of an iteration is "
        "waited for; the forget gather hides behind a forward pass and the gradients' ring behind "
        "half of the update's backward pass; no contention, no stragglers. Assumed, not measured: "
        "links, GPU speed. The plan that is not shared bounds the speed-up: more ranks than a few "
        "need a larger batch, or ot.scope=rank."
    )
    return "\n".join(lines), sum(found.values()) / sum(model.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    text, ratio = tables(measured())
    print(text)
    if args.write:
        path = write_result("scaling", "Bytes between ranks, and more ranks", text, ratio)
        drawing().savefig(path.with_suffix(".png"), dpi=130)
    print(f"ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
