"""dlfd demo: real faces, three seeds, Original, Retrained, Fine-tune and DLFD, and a page."""

from __future__ import annotations

from collections.abc import Sequence

from .compare import run_compare

SETTINGS = ["experiment=demo", "run.dir=runs/demo"]


def run_demo(overrides: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Run the demo comparison; further overrides win over its settings."""
    return run_compare([*SETTINGS, *overrides], dry_run=dry_run, as_json=as_json, title="dlfd demo")
