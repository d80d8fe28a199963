"""The projects in examples/ run as their READMEs say, at a small size."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dlfd_dist as dlfd
from dlfd_dist.compose import compose_job
from dlfd_dist.jobs import run_job
from dlfd_dist.models import build_model, load_weights
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.examples import EXAMPLES, PROJECTS, QUICK, Project, modules, project_in

OWN_NETWORKS = [project for project in PROJECTS if project.folder != "timm_grey"]


@pytest.fixture(params=OWN_NETWORKS, ids=lambda project: project.folder)
def project(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with project_in(monkeypatch, request.param.folder):
        yield request.param


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
    named = [f"model.factory={project.factory}", "data.factory=forget:splits"]
    named.append(f"method={project.method}")
    assert_named_run_is_the_same(run, named, weights, tmp_path, size=16, channels=1)


def assert_named_run_is_the_same(
    run: dlfd.Run, named: list[str], weights: str, folder: Path, *, size: int, channels: int
) -> None:
    """The same run by names, as on the command line, has the same weights."""
    words = [f"{name}={value}" for name, value in QUICK.items()]
    config = compose_job(
        "unlearn", [*named, *words, f"checkpoint={weights}", f"run.dir={folder / 'named'}"]
    )
    run_job(config, Collectives(), StopFlag())
    model = build_model(config.model, image_size=size, num_outputs=2, seed=0, channels=channels)
    load_weights(model, folder / "named")
    torch.testing.assert_close(
        model.module.double().state_dict(), run.model.double().state_dict(), rtol=1e-9, atol=1e-9
    )


def test_a_timm_network_forgets_a_person_of_grey_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("timm", reason="timm is not installed: pip install 'dlfd-dist[timm]'")
    with project_in(monkeypatch, "timm_grey"):
        _forget_with_timm(tmp_path)


def _forget_with_timm(tmp_path: Path) -> None:
    project, added = modules()
    weights = str(tmp_path / "model.pth")
    project.train(weights, epochs=1, people=5)
    before = torch.load(weights, weights_only=True)["state_dict"]
    run = added.forget(weights, str(tmp_path / "run"), **QUICK)
    assert run.result["num_images"]["forget"] == 6
    assert type(run.model) is type(project.network())
    state = run.model.state_dict()
    moved = {n for n, t in state.items() if not torch.equal(t.float(), before[n].float())}
    assert moved
    assert all(n.startswith(("blocks.4.", "blocks.5.", "norm.", "head.")) for n in moved)
    named = [
        "model=timm", "model.name=test_vit", "data.factory=forget:splits", "data.mean=[0.5]",
        "data.std=[0.5]", "method=cf_k", "method.k=3",
    ]  # fmt: skip
    assert_named_run_is_the_same(run, named, weights, tmp_path, size=32, channels=1)


@pytest.mark.parametrize("folder", [project.folder for project in PROJECTS])
def test_what_is_added_is_at_most_ten_lines(folder: str):
    source = (EXAMPLES / folder / "forget.py").read_text().split("import dlfd_dist")[1]
    body = source.split("if __name__")[0].splitlines()[1:]
    assert len([line for line in body if line.strip()]) <= 10
