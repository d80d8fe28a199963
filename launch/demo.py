"""dlfd demo: real faces, three seeds, Original, Retrained, Fine-tune and DLFD, and a page."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .compare import run_compare


def run_demo(overrides: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Run the demo comparison; further overrides win over its settings."""
    ranks = 2 if len(os.sched_getaffinity(0)) > 1 else 1
    settings = [
        "experiment=demo",
        "method=finetune,dlfd",
        "seed=0,1,2",
        f"runtime.world_size={ranks}",
        "run.dir=runs/demo",
    ]
    given = {o.split("=", 1)[0] for o in overrides}
    kept = [s for s in settings if s.split("=", 1)[0] not in given]
    # A step of 32 small faces is too short for two ranks on one machine: the all-reduce of 45 MB of
    # gradients takes longer than the second rank saves. Synthesis has no such step.
    return run_compare(
        [*kept, *overrides],
        dry_run=dry_run,
        as_json=as_json,
        title="dlfd demo",
        training_world_size=1,
    )
