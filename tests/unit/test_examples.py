"""The projects in examples/ run as their READMEs say, at a small size."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dlfd_dist.compose import compose_job
from dlfd_dist.jobs import run_job
from dlfd_dist.models import build_model, load_weights
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUICK = {
    "method.max_steps": 6, "method.select": "last", "metrics.num_bootstrap": 5,
    "metrics.resurface_steps": 0, "runtime.dtype": "float64",
}  # fmt: skip


@dataclass(frozen=True)
class Project:
    """A project of examples/ and what it forgets with."""

    folder: str
    factory: str
    """of the model"""
    method: str
    outputs: int
    images: int
    """of a person"""


PROJECTS = [
    Project("plain_pytorch", "project:SmileNet", "scrub", outputs=2, images=6),
    Project("two_heads", "forget:Logits", "dlfd", outputs=2, images=8),
]


@pytest.fixture(params=PROJECTS, ids=lambda project: project.folder)
def project(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.syspath_prepend(str(EXAMPLES / request.param.folder))
    yield request.param
    for name in ("forget", "project"):
        sys.modules.pop(name, None)


def modules() -> tuple[ModuleType, ModuleType]:
    """Return the project itself and the script that it adds."""
    return importlib.import_module("project"), importlib.import_module("forget")


def test_a_project_forgets_a_person_in_ten_lines(project: Project, tmp_path: Path):
    itself, added = modules()
    weights = str(tmp_path / "model.pth")
    itself.train(weights, epochs=2)
    run = added.forget(weights, str(tmp_path / "run"), **QUICK)
    assert run.result["num_images"] == {
        "retain": 39 * project.images, "forget": project.images, "val": 10 * project.images,
        "test": 10 * project.images,
    }  # fmt: skip
    module, name = project.factory.split(":")
    assert type(run.model) is getattr(sys.modules[module], name)
    words: list[Any] = [f"{name}={value}" for name, value in QUICK.items()]
    words += [f"model.factory={project.factory}", "data.factory=forget:splits"]
    words += [f"method={project.method}", f"checkpoint={weights}", f"run.dir={tmp_path / 'named'}"]
    config = compose_job("unlearn", words)
    run_job(config, Collectives(), StopFlag())
    model = build_model(config.model, image_size=16, num_outputs=project.outputs, seed=0)
    load_weights(model, tmp_path / "named")
    torch.testing.assert_close(
        model.module.double().state_dict(), run.model.double().state_dict(), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.folder)
def test_what_is_added_is_at_most_ten_lines(project: Project):
    source = (EXAMPLES / project.folder / "forget.py").read_text().split("import dlfd_dist")[1]
    body = source.split("if __name__")[0].splitlines()[1:]
    assert len([line for line in body if line.strip()]) <= 10
