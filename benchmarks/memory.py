"""Peak memory of a rank in steps of DLFD against plain training at the same batch.

    python benchmarks/memory.py [--batch 32] [--image-size 128] [--repeats 3] [--write]

ResNet18 on drawn faces. Of each kind two steps are taken in a fresh process
(`dlfd_dist/jobs/memory.py`, which `dlfd bench` uses too): how far its peak resident memory, or on
CUDA that of the device, rises above what it was before the model was made. So both count weights,
gradients, momentum, images and activations, and neither the libraries. A synthesis iteration frees
what it kept before the next begins, so that three stand for fifteen. Probes and the evaluation at
the end are left out: both jobs end with one, of metrics.eval_batch_size images without gradient.
The last line is `ratio R`: the largest median of (unlearning / training) over the variants.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from results import pick_device, spread, write_result

from dlfd_dist.compose import compose_job
from dlfd_dist.jobs.memory import step_memory
from dlfd_dist.models import build_model, save_weights

LIMIT = 1.2
VARIANTS = {
    "float32": [],
    "bfloat16, channels_last": ["runtime.autocast=bfloat16", "runtime.channels_last=true"],
}


def measure(args: argparse.Namespace, folder: Path, words: list[str]) -> dict[str, np.ndarray]:
    config = compose_job("unlearn", [
        "method=dlfd", "data=synthetic", f"data.image_size={args.image_size}",
        "forget.fraction=0.2", f"checkpoint={folder / 'model.safetensors'}",
        f"data.cache_dir={folder}", f"method.global_batch_size={args.batch}",
        "synthesis.steps=3", "runtime.threads_per_rank=1", f"run.dir={folder / 'run'}", *words,
    ])  # fmt: skip
    if not (folder / "model.safetensors").exists():
        model = build_model(config.model, image_size=args.image_size, num_outputs=2, seed=0)
        save_weights(model, folder / "model.safetensors")
    rows = []
    for number in range(args.repeats):
        rows.append(step_memory(config))
        print(f"{' '.join(words) or 'float32'}: {number + 1}/{args.repeats}", rows[-1], flush=True)
    return {kind: np.array([row[kind] for row in rows]) for kind in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    lines = [
        "| variant | training, MB | unlearning, MB | unlearning / training: median (min to max) |",
        "| --- | ---: | ---: | ---: |",
    ]
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for name, words in VARIANTS.items():
            found = measure(args, Path(folder), words)
            ratio = found["unlearn"] / found["train"]
            ratios.append(float(np.median(ratio)))
            lines.append(
                f"| {name} | {np.median(found['train']):.0f} | {np.median(found['unlearn']):.0f} | "
                f"{spread(ratio)} |"
            )
    text = "\n".join(lines) + f"\n\nTo reach: {LIMIT}."
    print(text)
    if args.write:
        write_result("memory", "Peak memory of a rank", text, max(ratios), device=pick_device())
    print(f"ratio {max(ratios):.3f}")


if __name__ == "__main__":
    main()
