"""A manifest of ten million rows: load, validate, resolve a request, split, digest and shard.

    python benchmarks/large_manifest.py [--rows 10000000] [--write]

In a process of its own for each size (a hundredth and a tenth of the rows as CSV and as Parquet,
all as Parquet), so that the peak memory is that of the size: twenty images a person, five classes,
a request of 1 % of people and a hundred single images. Then one epoch of synthesis over 64 images
of the set, whose pixels are one small file repeated: the cache that would hold them all is never
made. Seconds are processor seconds. The last line is `ratio R`: microseconds a row of Parquet at
all rows over a tenth of them, 1 being linear.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PER_PERSON, NUM_CLASSES, SAMPLE = 20, 5, 64
LIMIT_S, LIMIT_MB = 30, 3000
RANKS, BATCH = 8, 512
STAGES = ("load", "check", "resolve", "digest", "shard")
COLUMNS = ("image_path", "identity", "label", "split")


def rows_of(num_rows: int) -> Iterator[tuple[str, str, int, str]]:
    for row in range(num_rows):
        person = row // PER_PERSON
        split = ("val", "test")[person % 10] if person % 10 < 2 else "train"
        path = f"images/{person % 1000:03d}/p{person:07d}_{row % PER_PERSON:02d}.jpg"
        yield path, f"person{person:07d}", row % NUM_CLASSES, split


def write_manifest(path: Path, num_rows: int) -> None:
    rows = rows_of(num_rows)
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8") as file:
            file.write(",".join(COLUMNS) + "\n")
            file.writelines(",".join(map(str, row)) + "\n" for row in rows)
        return
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    kinds = (pyarrow.string(), pyarrow.string(), pyarrow.int64(), pyarrow.string())
    schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    with ParquetWriter(path, schema) as writer:
        while part := list(itertools.islice(rows, 500_000)):
            columns = [list(column) for column in zip(*part, strict=True)]
            writer.write_table(pyarrow.table(columns, schema=schema))


def write_set(folder: Path, num_rows: int, name: str) -> None:
    num_people = num_rows // PER_PERSON
    write_manifest(folder / name, num_rows)
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


def measure(folder: Path, name: str) -> dict[str, Any]:
    """Return processor seconds and peak memory of this process, which does nothing else."""
    import numpy as np

    from dlfd_dist.config import DataConfig, ForgetConfig
    from dlfd_dist.data.forget_request import forget_rows
    from dlfd_dist.data.loaders import ResolvedRows
    from dlfd_dist.data.manifest import load_manifest
    from dlfd_dist.data.splits import assign_splits, make_splits
    from dlfd_dist.runtime.collectives import shard_slice
    from dlfd_dist.runtime.sampler import EpochSampler

    cfg = DataConfig(root=str(folder), manifest=name, image_size=32)
    before = peak_mb()
    marks = [time.process_time()]
    manifest = load_manifest(cfg)
    marks.append(time.process_time())
    split_of_row = assign_splits(manifest, cfg)
    marks.append(time.process_time())
    request = forget_rows(ForgetConfig(request=str(folder / "request.txt")), manifest, split_of_row)
    splits = make_splits(split_of_row, request.rows)
    marks.append(time.process_time())
    ResolvedRows(manifest, splits, request).digests()
    marks.append(time.process_time())
    sampler = EpochSampler(splits.retain, batch_size=BATCH, seed=0, purpose="train")
    steps = sampler.steps(0, sampler.steps_per_epoch)
    mine = [step.ids[shard_slice(len(step.ids), 0, RANKS)] for step in steps]
    shared = sum(map(len, mine)) / len(splits.retain)
    marks.append(time.process_time())
    peak = peak_mb()
    seconds = dict(zip(STAGES, np.diff(marks).tolist(), strict=True))
    return {
        "rows": len(manifest), "file": Path(name).suffix[1:], "forget": len(splits.forget),
        "share": shared, **seconds, "total": marks[-1] - marks[0], "before_mb": before,
        "peak_mb": peak,
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
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.measure[0]), args.measure[1])))
        return
    from results import write_result

    measured = []
    sizes = [(part, kind) for part in (100, 10) for kind in ("csv", "parquet")]
    for part, kind in [*sizes, (1, "parquet")]:
        name = f"metadata.{kind}"
        with tempfile.TemporaryDirectory() as folder:
            write_set(Path(folder), args.rows // part, name)
            command = [sys.executable, __file__, "--measure", folder, name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            measured.append(json.loads(done.stdout))
            print(measured[-1], flush=True)
    text = page(measured)
    print(text)
    tenth, whole = (row["total"] / row["rows"] for row in measured[-2:])
    if args.write:
        write_result("large_manifest", "A manifest of ten million rows", text, whole / tenth)
    print(f"ratio {whole / tenth:.2f}")


def page(measured: list[dict[str, Any]]) -> str:
    """Return the table of all sizes, and what is to be reached."""
    lines = [
        f"| rows | file | forget images | {', s | '.join(STAGES)}, s | together, s | us per row | "
        "peak MB | before it | bytes per row | synthesis of 64, s | its peak MB |",
        "| ---: | --- " + "| ---: " * (len(STAGES) + 8) + "|",
    ]
    for row in measured:
        per_row = (row["peak_mb"] - row["before_mb"]) * 2**20 / row["rows"]
        stages = " | ".join(f"{row[stage]:.2f}" for stage in STAGES)
        lines.append(
            f"| {row['rows']:,} | {row['file']} | {row['forget']:,} | {stages} | "
            f"{row['total']:.2f} | {row['total'] / row['rows'] * 1e6:.1f} | "
            f"{row['peak_mb']:.0f} | {row['before_mb']:.0f} | {per_row:.0f} | "
            f"{row['synthesis']:.1f} | {row['synthesis_peak_mb']:.0f} |"
        )
    last = measured[-1]
    lines.append(
        f"\n{last['rows']:,} rows: {last['total']:.1f} s (to reach: {LIMIT_S}) and "
        f"{last['peak_mb']:.0f} MB at the peak (to reach: {LIMIT_MB}); a command that trains holds "
        f"torch beside it. The digest is that of the run's inputs without the images; shard is one "
        f"epoch's order and one rank's share of every batch of {BATCH} on {RANKS} ranks. Synthesis "
        "is that of 64 images drawn from all of them."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
