"""The projects in examples/ give on two ranks what they give on one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives
from tests.fakes.examples import EXAMPLES, PROJECTS, QUICK


def forgotten(group: Collectives | None, folder: Path, weights: Path, out: Path) -> dict[str, Any]:
    """Return the weights without person 7."""
    sys.path.insert(0, str(folder))
    try:
        run = importlib.import_module("forget").forget(str(weights), str(out), **QUICK)
        return dict(run.model.state_dict())
    finally:
        sys.path.remove(str(folder))
        for name in ("forget", "project"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("name", [project.folder for project in PROJECTS])
def test_two_ranks_give_the_weights_of_one(tmp_path: Path, ranks, monkeypatch, name: str):
    folder, weights = EXAMPLES / name, tmp_path / "model.pth"
    monkeypatch.syspath_prepend(str(folder))
    importlib.import_module("project").train(str(weights), epochs=1)
    sys.modules.pop("project")
    alone = forgotten(None, folder, weights, tmp_path / "one")
    together = ranks(forgotten, 2, folder, weights, tmp_path / "two")
    assert RunDir(tmp_path / "two").read_result()["world_size"] == 2
    for state in together:
        torch.testing.assert_close(state, alone, rtol=1e-9, atol=1e-9)
