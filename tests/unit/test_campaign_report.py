"""launch/results/campaign.py: the report of a campaign asks the plan file, and no command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launch.execute.journal import Ledger
from launch.plan import audit as audit_planning
from launch.plan.campaign import plan_campaign
from launch.plan.compare import comparison_of
from launch.plan.comparison import measurement_runs, training_runs
from launch.plan.comparison import unlearning_runs as unlearnings_of
from launch.plan.contrasts import named_contrasts
from launch.plan.runs import Plan, Run
from launch.plan.tuning import tuning_record
from launch.results import audit as audits
from launch.results import campaign as results
from tests.unit.test_campaign import GIVEN, plan


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Callable[[Plan], SimpleNamespace]:
    """Return what gives a campaign whose runs are finished its report, and says what it wrote."""
    written = SimpleNamespace()
    monkeypatch.setattr(
        audits, "_write", lambda out, kind, audit, wanted, done, rows: vars(written).update(
            kind=kind, audit=audit, wanted=wanted, rows=rows
        ),
    )  # fmt: skip
    monkeypatch.setitem(
        results.WRITERS, "comparison", lambda ended: vars(written).update(ended=ended)
    )

    def make(campaign: Plan) -> SimpleNamespace:
        (campaign.path / "plans").mkdir(parents=True)
        (campaign.path / "plans" / campaign.plan_name).write_text(campaign.text())
        folder = campaign.path / "done"
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"title": "a set"}))
        reused = {run.key: str(folder) for run in campaign.runs}
        with Ledger(campaign.path).locked() as ledger:
            ledger.append("planned", plan=campaign.plan_name, reused=reused, joined=[])
        assert results.write_campaign_report(campaign.path) == 0
        return written

    return make


def shown(planned: Run) -> tuple[Any, ...]:
    """Return what a report makes a row of."""
    return (
        planned.label, planned.role, planned.train_seed, planned.method, planned.variant,
        planned.draw, planned.seed,
    )  # fmt: skip


def test_an_audit_is_reported_as_if_its_words_were_read_again(report, tmp_path: Path):
    words = [
        "klom", *GIVEN, "method=finetune,ssd", "audit.models=3", "audit.num_bootstrap=7",
        f"run.dir={tmp_path}/campaign",
    ]  # fmt: skip
    campaign = plan_campaign("audit", words)
    written = report(campaign)
    asked = audit_planning.audit_of(campaign.words)
    wanted = [*audit_planning.trainings(asked), *audit_planning.unlearnings(asked)]
    assert (written.kind, astuple(written.audit)) == ("klom", astuple(asked.settings))
    assert sorted(map(shown, written.wanted), key=str) == sorted(map(shown, wanted), key=str)
    worlds = [list(dict.fromkeys(run.title for run in w)) for w in (written.wanted, wanted)]
    assert worlds[0] == worlds[1]
    assert written.wanted[0].config.forget == wanted[0].config.forget
    assert len(written.rows.manifest.image_paths) > 0


@pytest.mark.parametrize("tune", ["0", "2"])
def test_a_comparison_is_reported_as_if_its_words_were_read_again(
    report, tmp_path: Path, tune: str
):
    words = ["method=dlfd,scrub", "seed=0,1", f"compare.tune={tune}", "compare.margin=0.07"]
    campaign = plan("compare", tmp_path, *words)
    ended = report(campaign).ended
    asked = comparison_of(campaign.words)
    runs = [*training_runs(asked), *measurement_runs(asked), *unlearnings_of(asked)]
    assert list(map(shown, ended.wanted)) == list(map(shown, runs))
    assert ended.contrasts == named_contrasts(asked)
    assert ended.tuning == json.loads(json.dumps(tuning_record(asked, {})))
    assert (ended.tuning is None) is (tune == "0")
