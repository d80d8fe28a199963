"""A small run directory as a finished unlearning run leaves it, and what certifies it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from dlfd_dist.compose import config_text
from dlfd_dist.config import DataConfig, DLFDConfig, ForgetConfig, JobConfig, RunConfig
from dlfd_dist.digests import file_digest
from dlfd_dist.evidence import Given, Recorded
from dlfd_dist.run_dir import RunDir, write_json, write_text

NAMES = ("Wilhelmina Featherstone", "Bartholomew-Quigley", "archive/Zenobia Ash/1987.png")
RECORDED = Recorded(
    {"version": "0.1.0", "revision": None, "diff_sha256": None},
    {"python": "3.11.2", "platform": "Linux x86_64", "packages": {"numpy": "2.4.6"}},
    "2026-01-31T23:59:59Z", "2026-01-31T23:50:00Z", "0.1.0", None,
)  # fmt: skip
STARTED = {
    "started": "2026-01-31T23:00:00Z",
    "code": {"version": "0.1.0", "revision": "ab" * 20, "diff_sha256": None},
    "environment": {"python": "3.12.1", "platform": "Linux x86_64", "packages": {"torch": "2.14"}},
}
LEAK = "exact,archive/Zenobia Ash/1987.png,forget,b.png,retain,1.0\n"
NOTHING = Given()


def make_run(folder: Path) -> RunDir:
    """Write a small run directory as a finished unlearning run leaves it."""
    run = RunDir(folder / "runs" / "a")
    run.model.parent.mkdir(parents=True)
    original = folder / "Zenobia Ash.safetensors"
    for path, value in ((original, 0.0), (run.model, 1.0)):
        save_file({"weight": np.full((2, 3), value, dtype=np.float32)}, path)
    parts = {f"{p}.ids": np.arange(i, i + 3) for i, p in enumerate(("retain", "forget", "val"))}
    save_file(parts, run.samples)
    config = JobConfig(
        verb="unlearn", checkpoint=str(original), method=DLFDConfig(name="dlfd"),
        data=DataConfig(root="/home/wilhelmina-featherstone/photos", label=["QuigleyBartholomew"]),
        forget=ForgetConfig(request="/tmp/forget bartholomew-quigley.txt"),
        run=RunConfig(name="wilhelmina_featherstone"),
    )  # fmt: skip
    write_text(run.config, config_text(config))
    inputs = {"data": "ab" * 32, "request": "cd" * 32, "checkpoint": file_digest(original)}
    write_json(run.identity, {"signature": "80fbd39f", "inputs": inputs})
    lines = "".join(
        f"{i},{name},{'image' if '/' in name else 'identity'},matched,4\n"
        for i, name in enumerate(NAMES, start=1)
    )
    write_text(run.request, "line,entry,kind,status,num_images\n" + lines)
    removed = "archive/Zenobia Ash/1987.png,forget,leak,b.png,retain\n"
    write_text(run.removed, "image_path,part,reason,kept_path,kept_part\n" + removed)
    write_text(run.leaks, "kind,image_path,part,other_path,other_part,similarity\n" + LEAK)
    run.record_start(STARTED)
    write_text(run.metrics, '{"event": "step", "step": 1, "loss": 0.5}\n')
    write_json(run.result, _result(file_digest(run.model)))
    return run


def _result(model_sha256: str) -> dict[str, Any]:
    mia = {"accuracy": 0.52, "floor": True, "floor_reason": "The interval holds 0.5."}
    return {
        "test_accuracy": 0.75, "nomus": 0.86, "forgetting_score": 0.02, "mia": mia,
        "over_forgetting": {"flag": False, "reason": "", "p_value": 0.7},
        "leaks": {
            "counts": {"exact": {"retain-forget": 1}, "near": {}}, "pairs": 1, "across_parts": 1,
            "forget_retain": 1, "lines_told": 1, "similarity": 0.99, "digest": "ef" * 32,
        },
        "gap_to_retrained": None, "verb": "unlearn", "seed": 0, "world_size": 1, "device": "cpu",
        "signature": "80fbd39f", "title": "Photos of W. Featherstone (Wilhelmina Featherstone)",
        "synthetic": False, "label_names": ["Wilhelmina Featherstone"], "credit": "",
        "num_images": {"retain": 3, "forget": 3, "val": 3, "test": 0}, "selected_step": 3,
        "selection": "the weights after the last step", "num_steps": 3, "wall_seconds": 1.5,
        "device_seconds": 1.5, "peak_memory_mb": 100.0, "model_sha256": model_sha256,
    }  # fmt: skip
