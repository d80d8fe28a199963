"""An ensemble audit as a campaign on the lab: cancelled, gone on, refined, equal to a local one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fakes.command_line import ended
from tests.slurm.cluster import slurm, states, wait_for
from tests.slurm.conftest import SETTINGS

MODELS = 3
RUNS_OF_A_MODEL = 4
"""Original, Retrained, control and Fine-tune."""


def words_of(out: Path, models: int) -> list[str]:
    """All shadows forget the same three people, so that three models are enough to fit."""
    request = out.parent / "request.txt"
    request.write_text("person_001\nperson_003\nperson_006\n")
    plain = [word for word in SETTINGS if not word.startswith(("forget.", "synthesis."))]
    return [
        *plain, f"forget.request={request}", "method=finetune", "train.max_steps=3",
        "method.max_steps=2", "audit.num_bootstrap=50", f"audit.models={models}", f"run.dir={out}",
    ]  # fmt: skip


def results(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")}


def worlds(out: Path) -> dict[str, Any]:
    """Return the figures of every world without the pseudonyms, whose salt is each audit's own."""
    found = json.loads(
        (out / "audit.json").read_text(), parse_float=lambda text: round(float(text), 6)
    )
    assert found["missing"] == []
    return {
        name: {key: world[key] for key in ("num_models", "ulira", "rmia", "klom")}
        for name, world in found["worlds"].items()
    }


def test_an_audit_is_cancelled_goes_on_is_refined_and_equals_a_local_one(dlfd, tmp_path: Path):
    out, local = tmp_path / "audit", tmp_path / "local"
    # The runs of a pack are done by one process.
    cluster = ["cluster=slurm_lab", "cluster.mem_gb=1", "cluster.max_tasks_per_node=1"]
    words = [*words_of(out, MODELS), *cluster]
    status, said = dlfd("submit", "audit", "ulira", *words, "--json")
    assert status == 0
    told = json.loads(said)
    assert len(told["runs"]) == RUNS_OF_A_MODEL * MODELS
    waiting = slurm("squeue", "-h", "-o", "%E", "-j", ",".join(told["job_ids"]))
    assert "afterok" in waiting or "aftercorr" in waiting
    wait_for(lambda: len(results(out)) >= 2)
    assert dlfd("cancel", out)[0] == 0
    wait_for(lambda: not slurm("squeue", "-h", "-o", "%i", "-j", ",".join(told["job_ids"])))
    before = results(out)
    assert 2 <= len(before) < RUNS_OF_A_MODEL * MODELS

    assert dlfd("submit", "audit", "ulira", *words)[0] == 0
    wait_for(lambda: (out / "report.html").is_file())
    assert {run["state"] for run in states(dlfd, out).values()} == {"finished"}
    assert before.items() <= results(out).items()
    assert len(results(out)) == RUNS_OF_A_MODEL * MODELS
    assert ended(["audit", "ulira", *words_of(local, MODELS)], tmp_path).status == 0
    assert worlds(out) == worlds(local)

    before = results(out)
    more = [*words_of(out, MODELS + 1), *cluster]
    _, said = dlfd("submit", "audit", "ulira", *more, "--json")
    assert len(json.loads(said)["runs"]) == RUNS_OF_A_MODEL
    wait_for(lambda: worlds(out)["finetune"]["num_models"] == MODELS + 1)
    assert before.items() <= results(out).items()
