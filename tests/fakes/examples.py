"""The projects of examples/ as a test imports them, each by the names `project` and `forget`."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUICK = {
    "method.max_steps": 4, "method.select": "last", "metrics.num_bootstrap": 5,
    "metrics.resurface_steps": 0, "runtime.dtype": "float64", "train_mode": "sync_bn",
}  # fmt: skip
"""Settings of a run of seconds whose figures do not depend on the number of ranks."""


@dataclass(frozen=True)
class Project:
    """A project of examples/ and what it forgets with."""

    folder: str
    factory: str
    """of the model"""
    method: str
    images: int
    """of a person"""


PROJECTS = [
    Project("plain_pytorch", "project:SmileNet", "scrub", images=6),
    Project("two_heads", "forget:Logits", "dlfd", images=8),
    Project("timm_grey", "project:network", "cf_k", images=6),
]


@contextlib.contextmanager
def project_in(monkeypatch: pytest.MonkeyPatch, folder: str) -> Iterator[None]:
    """Let a project and what it adds be imported; both are forgotten again."""
    monkeypatch.syspath_prepend(str(EXAMPLES / folder))
    try:
        yield
    finally:
        for name in ("forget", "project"):
            sys.modules.pop(name, None)


def modules() -> tuple[ModuleType, ModuleType]:
    """Return the project itself and the script that it adds."""
    return importlib.import_module("project"), importlib.import_module("forget")
