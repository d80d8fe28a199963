"""The projects in examples/ run as their READMEs say, at a small size."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script that the plain project adds, with the project beside it."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "plain_pytorch"))
    import forget  # type: ignore[import-not-found]

    yield forget
    for name in ("forget", "project"):
        sys.modules.pop(name, None)


def test_a_plain_project_forgets_a_person_in_ten_lines(forget: ModuleType, tmp_path: Path):
    import project  # type: ignore[import-not-found]

    weights = str(tmp_path / "model.pth")
    project.train(weights, epochs=2)
    run = forget.forget(weights, str(tmp_path / "run"), **QUICK)
    assert run.result["num_images"] == {"retain": 234, "forget": 6, "val": 60, "test": 60}
    assert type(run.model) is project.SmileNet
    named = ["model.factory=project:SmileNet", "data.factory=forget:splits", "method=scrub"]
    words = [f"{name}={value}" for name, value in QUICK.items()]
    config = compose_job(
        "unlearn", [*named, *words, f"checkpoint={weights}", f"run.dir={tmp_path / 'named'}"]
    )
    run_job(config, Collectives(), StopFlag())
    model = build_model(config.model, image_size=16, num_outputs=2, seed=0)
    load_weights(model, tmp_path / "named")
    torch.testing.assert_close(
        model.module.double().state_dict(), run.model.double().state_dict(), rtol=1e-9, atol=1e-9
    )


def test_what_is_added_is_at_most_ten_lines():
    source = (EXAMPLES / "plain_pytorch" / "forget.py").read_text().split("import dlfd_dist")[1]
    body = source.split("if __name__")[0].splitlines()[1:]
    assert len([line for line in body if line.strip()]) <= 10
