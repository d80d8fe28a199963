"""What a run prints at its end: a figure that the attack cannot give is not printed as one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from dlfd_dist.run_dir import RunDir
from launch.verbs.run import show_result


@pytest.mark.parametrize(
    ("people", "shown"), [((1, 40), False), ((40, 15), False), ((16, 16), True)]
)
def test_scores_of_too_few_people_are_no_figures(
    people: tuple[int, int], shown: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = RunDir(tmp_path)
    mia = {"num_member_people": people[0], "num_nonmember_people": people[1], "accuracy": 0.5,
           "interval": [0.4, 0.6]}  # fmt: skip
    result = {"test_accuracy": 0.75, "forgetting_score": 0.0, "nomus": 0.875, "mia": mia,
              "guards": {}}  # fmt: skip
    run.result.write_text(json.dumps(result))
    show_result(SimpleNamespace(run_dir=run), as_json=False)  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert "0.7500" in printed
    assert ("0.8750" in printed) is shown
    assert ("cannot tell with fewer than 16 people" in printed) is not shown
