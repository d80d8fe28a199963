"""data.groups: what the result, the table and the page of a run say of the groups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlfd_dist.compose import compose_job
from dlfd_dist.jobs import run_job
from dlfd_dist.report.html import write_report
from dlfd_dist.report.records import load_with_references
from dlfd_dist.report.summary import summarise
from dlfd_dist.report.tables import markdown_table
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.groups import words, write_groups


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_groups(tmp_path_factory.mktemp("set"))


def test_result_table_and_page_tell_whom_forgetting_cost_most(folder, tmp_path):
    groups = ["data.groups=gender", "train.epochs=20"]
    train = compose_job("train", words(folder, *groups, f"run.dir={tmp_path / 'original'}"))
    before = run_job(train, Collectives(), StopFlag())["groups"]["gender"]["test"]
    assert before["worst"] is None
    unlearn = compose_job("unlearn", words(
        folder, *groups, "method=neggrad", "method.lr=0.1", f"checkpoint={tmp_path / 'original'}",
        f"run.dir={tmp_path / 'run'}",
    ))  # fmt: skip
    result = run_job(unlearn, Collectives(), StopFlag())
    test = json.loads((tmp_path / "run" / "result.json").read_text())["groups"]["gender"]["test"]
    found = test["groups"]
    assert list(found) == ["<b>f</b>", "m", "unknown"]
    assert [g["people"] for g in found.values()] == [17, 18, 1]
    for name, group in found.items():
        assert group["before"] == before["groups"][name]["accuracy"]
        assert group["change"] == pytest.approx(group["accuracy"] - group["before"])
    weighted = sum(g["accuracy"] * g["images"] for g in found.values()) / 36
    assert weighted == pytest.approx(result["test_accuracy"])
    changes = {name: g["change"] for name, g in found.items() if not g["too_small"]}
    assert test["worst"]["group"] == min(changes, key=lambda name: changes[name])

    records = load_with_references(tmp_path / "run")
    line = f"NegGrad: the test accuracy of gender={test['worst']['group']} changed by"
    table = markdown_table(summarise(records))
    assert line in table.replace("\\", "")
    assert "gender=unknown" in table
    both = (f"{g['before']:.3f} to {g['accuracy']:.3f}" for g in found.values())
    shown = zip(("<b>f</b>", "m", "unknown"), both, strict=True)
    every = ", ".join(f"{name} {figures}" for name, figures in shown)
    assert f"NegGrad, test accuracy before and after by gender: {every}." in table
    write_report(records, tmp_path / "page.html", title="Groups")
    page = (tmp_path / "page.html").read_text()
    assert "Accuracy by group" in page
    assert "lost most" in page
    assert "too small" in page
    assert "<b>f</b>" not in page


def test_without_groups_nothing_is_told_of_them(folder, tmp_path):
    config = compose_job("train", words(folder, "train.max_steps=1", f"run.dir={tmp_path / 'run'}"))
    assert "groups" not in run_job(config, Collectives(), StopFlag())
    records = load_with_references(tmp_path / "run")
    write_report(records, tmp_path / "page.html", title="No groups")
    assert "Accuracy by group" not in (tmp_path / "page.html").read_text()
