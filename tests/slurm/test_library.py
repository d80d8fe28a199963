"""The projects of strangers forget a person on the cluster by `dlfd_dist.submit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dlfd_dist import Run, submit
from dlfd_dist.run_dir import RunDir
from tests.fakes.examples import EXAMPLES, PROJECTS, QUICK, Project, modules, project_in
from tests.slurm.cluster import REPOSITORY, states, wait_for

OF_TIMM = {"data.mean": [0.5], "data.std": [0.5], "method.k": 3}
ON_TWO_NODES = {"cluster.nodes": 2, "cluster.tasks_per_node": 1}


def forgotten_here(project: Project, folder: Path) -> Run:
    """Train the project's model and let it forget person 7 in this process."""
    itself, added = modules()
    itself.train(str(folder / "model.pth"), epochs=1)
    return added.forget(str(folder / "model.pth"), str(folder / "here"), **QUICK)


def submitted(project: Project, folder: Path) -> Path:
    settings = {**QUICK, **ON_TWO_NODES, "checkpoint": str(folder / "model.pth")}
    if project.folder == "timm_grey":
        settings |= OF_TIMM
    return submit(
        "unlearn", project.factory, "forget:splits", cluster="slurm_lab", method=project.method,
        out=folder / "there", settings=settings,
    )  # fmt: skip


def test_projects_of_others_forget_on_two_nodes_what_they_forget_here(
    dlfd: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("timm", reason="timm is not installed: pip install 'dlfd-dist[timm]'")
    campaigns: list[tuple[Run, Path]] = []
    for project in PROJECTS:
        folder = tmp_path / project.folder
        folder.mkdir()
        monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{EXAMPLES / project.folder}")
        with project_in(monkeypatch, project.folder):
            campaigns.append((forgotten_here(project, folder), submitted(project, folder)))
    ended = ("finished", "failed", "blocked", "lost")
    for here, campaign in campaigns:
        wait_for(lambda campaign=campaign: all(
            run["state"] in ended for run in states(dlfd, campaign).values()
        ))  # fmt: skip
        ((label, found),) = states(dlfd, campaign).items()
        assert found["state"] == "finished", (label, found["cause"], found["lines"])
        run = RunDir(Path(found["directory"]))
        assert run.read_result()["world_size"] == 2
        torch.testing.assert_close(
            load_file(run.model), load_file(RunDir(Path(here.path)).model), rtol=1e-9, atol=1e-9
        )
