"""dlfd inspect: what a file of weights is, which model it fits, and the command that takes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlfd_dist.errors import ConfigError
from dlfd_dist.terminal import print_facts


def run_inspect(words: Sequence[str], *, as_json: bool) -> int:
    """Print what is known of a checkpoint; no code of it is run."""
    if len(words) != 1:
        given = f"{len(words)} words" if words else "nothing"
        raise ConfigError(f"'dlfd inspect' was given {given}: give a file of weights.")
    facts = inspect_checkpoint(Path(words[0]))
    if as_json:
        print(json.dumps(facts, indent=2, sort_keys=True))
        return 0
    numbers = f"{facts['num_parameters']:,} numbers"
    shown = [
        ("file", facts["file"]),
        ("tensors", f"{facts['num_tensors']}, {numbers}, {facts['types']}"),
        ("names", f"{facts['first_name']} ... {facts['last_name']}"),
        ("outputs", str(facts["num_outputs"] or "not known")),
        *(("fits", settings) for settings in facts["fits"]),
        ("command", facts["command"]),
    ]
    print_facts(shown, 12)
    return 0


def inspect_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a file of weights is; CheckpointError where it is none."""
    from dlfd_dist.huggingface import holds_model
    from dlfd_dist.models.weights import (
        fitting,
        library_networks,
        our_names,
        tensors_of,
        weights_path,
    )

    file = weights_path(path)
    tensors = tensors_of(file)
    names = sorted(tensors)
    fits = [
        f"model={name} model.head={head} model.small_stem={str(stem).lower()}"
        for name, head, stems in fitting(tensors)
        for stem in stems
    ]
    fits += [f"model={lib} model.name={name}" for lib, name in library_networks(file, tensors)]
    if holds_model(file.parent):
        fits = [f"model=huggingface model.folder={file.parent}"]
    head = [t for name, t in our_names(tensors).items() if name.startswith("head.") and t.ndim == 2]
    model = fits[0] if fits else "model.factory=MODULE:FUNCTION"
    return {
        "file": str(file),
        "num_tensors": len(tensors),
        "num_parameters": sum(t.numel() for t in tensors.values()),
        "types": ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()})),
        "first_name": names[0],
        "last_name": names[-1],
        "num_outputs": len(head[-1]) if head else None,
        "fits": fits,
        "command": f"dlfd unlearn {model} data=... checkpoint={file} forget.request=FILE",
    }
