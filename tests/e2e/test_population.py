"""A trial of a population goes on from the checkpoint of another trial; no Ray starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from launch.search.plan import make_plan
from launch.search.point import Point, Shared
from launch.search.trial import run_rank
from tests.fakes.tiny import LEARNED, TINY

Trained = Callable[..., Path]


def test_a_trial_goes_on_from_another_and_writes_down_whose_settings_held_until_then(
    tmp_path: Path, trained: Trained
):
    plan = make_plan([
        *TINY, f"checkpoint={trained(*LEARNED)}", "method=dlfd", "method.epochs=6",
        "method.dynamic=false", "method.select=last", "search=pbt", "search.num_samples=2",
        "search.objective=nomus", f"run.dir={tmp_path / 'search'}",
    ])  # fmt: skip
    shared = Shared(plan.config, replace(plan.search, pin=False), save_every=2)
    own = plan.own_settings()
    changed = {**own, "method.forget_weight": 2 * own["method.forget_weight"]}
    kept: dict[int, Path] = {}
    reports: list[dict[str, Any]] = []

    def report(figures: dict[str, Any], folder: Path | None = None) -> None:
        reports.append(figures)
        if folder is not None and figures["step"] not in kept:
            kept[figures["step"]] = tmp_path / f"step {figures['step']}"
            shutil.copytree(folder, kept[figures["step"]])

    run_rank(Point(own), shared, report, "first")
    whole = [figures["step"] for figures in reports]
    reports.clear()
    run_rank(Point(changed), shared, report, "second", kept[2])
    lineage = json.loads((Path(reports[-1]["run_dir"]) / "lineage.json").read_text())
    assert lineage == [{"step": 2, "settings": own}]
    assert [figures["step"] for figures in reports] == [step for step in whole if step > 2]
    # Restored under its own name and settings a trial has no other before it.
    reports.clear()
    run_rank(Point(own), shared, report, "first", kept[2])
    assert reports[-1]["finished"]
    assert not (Path(reports[-1]["run_dir"]) / "lineage.json").exists()
