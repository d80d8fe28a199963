"""A manifest of a million rows: load, validate, resolve a forget request, check the splits.

    python benchmarks/large_manifest.py [--rows 1000000] [--write]

In a process of its own for each size (a hundredth, a tenth and all of the rows), so that the peak
memory is that of the size: twenty images a person, five classes, a request of 1 % of the people and
a hundred single images. Then one epoch of synthesis over a sample of 64 images of the set, whose
pixels are one small file repeated: the cache that would hold them all is never made. Seconds are
processor seconds. The last line is `ratio R`: microseconds a row at all rows over a tenth of them,
1 being linear.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PER_PERSON, NUM_CLASSES, SAMPLE = 20, 5, 64
LIMIT_S, LIMIT_MB = 20, 1000


def write_set(folder: Path, num_rows: int) -> None:
    num_people = num_rows // PER_PERSON
    with (folder / "metadata.csv").open("w", encoding="utf-8") as file:
        file.write("image_path,identity,label,split\n")
        for row in range(num_rows):
            person = row // PER_PERSON
            split = ("val", "test")[person % 10] if person % 10 < 2 else "train"
            file.write(
                f"images/{person % 1000:03d}/p{person:07d}_{row % PER_PERSON:02d}.jpg,"
                f"person{person:07d},{row % NUM_CLASSES},{split}\n"
            )
    people = [p for p in range(0, num_people, 80) if p % 10 > 1]
    people += [p for p in range(5, num_people, 100)]
    single = [
        f"images/{p % 1000:03d}/p{p:07d}_03.jpg" for p in range(7, 100 * 10, 10) if p < num_people
    ]
    lines = [f"person{p:07d}" for p in people[: max(1, num_people // 100)]] + single
    (folder / "request.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def peak_mb() -> float:
    """Return this process's peak; getrusage would count what its parent held when it started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(folder: Path) -> dict[str, float]:
    """Return processor seconds and peak memory of this process, which does nothing else."""
    from dlfd_dist.config import DataConfig, ForgetConfig
    from dlfd_dist.data.forget_request import forget_rows
    from dlfd_dist.data.manifest import load_manifest
    from dlfd_dist.data.splits import assign_splits, make_splits

    cfg = DataConfig(root=str(folder), image_size=32)
    before = peak_mb()
    marks = [time.process_time()]
    manifest = load_manifest(cfg)
    marks.append(time.process_time())
    split_of_row = assign_splits(manifest, cfg)
    marks.append(time.process_time())
    request = forget_rows(ForgetConfig(request=str(folder / "request.txt")), manifest, split_of_row)
    splits = make_splits(split_of_row, request.rows)
    marks.append(time.process_time())
    peak = peak_mb()
    load, check, resolve = (b - a for a, b in zip(marks, marks[1:], strict=False))
    return {
        "rows": len(manifest), "forget": len(splits.forget), "load": load, "check": check,
        "resolve": resolve, "total": marks[-1] - marks[0], "before_mb": before, "peak_mb": peak,
        **synthesise(manifest, splits),
    }  # fmt: skip


def synthesise(manifest, splits) -> dict[str, float]:
    """Return seconds and added memory of one synthesis epoch over a sample of the retain set."""
    import numpy as np
    import torch

    from dlfd_dist.config import DataConfig, ModelConfig, SynthesisConfig, TransportConfig
    from dlfd_dist.data.forget_request import ResolvedRequest
    from dlfd_dist.data.loaders import Batches, ResolvedData
    from dlfd_dist.models import build_model
    from dlfd_dist.runtime.collectives import Collectives
    from dlfd_dist.synthesis import Objective, layer_output, perturb

    torch.set_num_threads(1)
    model = build_model(
        ModelConfig(small_stem=False), image_size=32, num_outputs=NUM_CLASSES, seed=0
    )
    pool = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
    # A view: a million images of the same pixels, at the price of one.
    images = np.broadcast_to(pool, (len(manifest), *pool.shape[1:]))
    data = ResolvedData(manifest, splits, ResolvedRequest([], splits.forget), images)
    batches = Batches(data, DataConfig(image_size=32), collectives=Collectives())
    sample = np.random.default_rng(1).choice(splits.retain, SAMPLE, replace=False)
    start = time.process_time()
    for ids in np.split(sample, SAMPLE // 32):
        x, y = batches.shard(ids)
        z, _ = batches.shard(splits.forget[:32])
        objective = Objective(
            layer_output(model, z, "features"), y, total=len(y), forget_weight=3.0,
            retain_weight=0.5, layer="features", ot=TransportConfig(), collectives=Collectives(),
        )  # fmt: skip
        cfg = SynthesisConfig(steps=5)
        perturb(model, x, objective, cfg=cfg, pixel_range=batches.pixel_range)
    peak = peak_mb()
    return {"synthesis": time.process_time() - start, "synthesis_peak_mb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    from results import write_result

    found = []
    for num_rows in (args.rows // 100, args.rows // 10, args.rows):
        with tempfile.TemporaryDirectory() as folder:
            write_set(Path(folder), num_rows)
            command = [sys.executable, __file__, "--measure", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout))
            print(found[-1])
    lines = [
        "| rows | forget images | load, s | split check, s | resolve, s | together, s | "
        "us per row | peak MB | before it | bytes per row | synthesis of 64, s | its peak MB |",
        "| ---: " * 12 + "|",
    ]
    for one in found:
        per_row = (one["peak_mb"] - one["before_mb"]) * 2**20 / one["rows"]
        lines.append(
            f"| {one['rows']:,} | {one['forget']:,} | {one['load']:.2f} | {one['check']:.2f} | "
            f"{one['resolve']:.2f} | {one['total']:.2f} | {one['total'] / one['rows'] * 1e6:.1f} | "
            f"{one['peak_mb']:.0f} | {one['before_mb']:.0f} | {per_row:.0f} | "
            f"{one['synthesis']:.1f} | {one['synthesis_peak_mb']:.0f} |"
        )
    last = found[-1]
    lines.append(
        f"\n{last['rows']:,} rows: {last['total']:.1f} s (to reach: {LIMIT_S}) and "
        f"{last['peak_mb']:.0f} MB at the peak (to reach: {LIMIT_MB}); a command that "
        f"trains holds torch beside it. Synthesis is that of 64 images drawn from all of them."
    )
    text = "\n".join(lines)
    print(text)
    ratio = (last["total"] / last["rows"]) / (found[-2]["total"] / found[-2]["rows"])
    if args.write:
        write_result("large_manifest", "A manifest of a million rows", text, ratio)
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
