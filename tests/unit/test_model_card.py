"""The model card: a head that Hugging Face reads, figures with intervals, and nobody named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dlfd_dist.errors import RunDirError
from dlfd_dist.report import summarise
from dlfd_dist.report.card import model_card
from dlfd_dist.report.officer import LIMITS, ONE_SEED, guards
from dlfd_dist.report.records import RunRecord, of_label
from dlfd_dist.report.verdict import judge
from launch.cli import main
from tests.fakes.run_dirs import IDENTITIES


@pytest.fixture(scope="module")
def card(records: list[RunRecord]) -> str:
    return model_card(records)


def head_of(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_head_has_the_figures_of_the_table(records: list[RunRecord], card: str):
    row = summarise(records)[-1]
    head = head_of(card)
    assert head["tags"] == ["image-classification", "machine-unlearning", "dlfd-dist"]
    assert "license" not in head
    assert "# license: for the owner" in card
    (model,) = head["model-index"]
    (result,) = model["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["accuracy"] == round(row["test_accuracy"], 3)
    assert values["nomus"] == round(row["nomus"], 3)
    assert result["dataset"] == {"name": "data of the owner", "type": "private"}


def test_hugging_face_reads_it(card: str, tmp_path: Path):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    read = hub.ModelCard(card)
    accuracy = next(r for r in read.data.eval_results if r.metric_type == "accuracy")
    assert accuracy.task_type == read.data.pipeline_tag == "image-classification"
    assert (
        accuracy.metric_value
        == head_of(card)["model-index"][0]["results"][0]["metrics"][0]["value"]
    )


def test_figures_have_intervals_and_guards_the_words_of_the_page(records, card: str):
    rows = summarise(records)
    row, verdict = rows[-1], judge(rows, records)
    low, high = row["test_accuracy_interval"]
    assert f"| Test accuracy | {row['test_accuracy']:.3f} | {low:.3f} to {high:.3f} |" in card
    assert verdict.sentence in card
    assert LIMITS in card
    guarded = [text for texts in list(guards(row, rows[0]).values())[:2] for text in texts]
    assert all(text in card for text in guarded if text != "No guard fired.")
    (single,) = of_label(records, "DLFD")[:1]
    alone = model_card([single])
    assert ONE_SEED in alone
    assert re.search(r"\| Accuracy of the attack \| \d\.\d{3} \| \d\.\d{3} to \d\.\d{3} \|", alone)


def test_nobody_and_no_place_is_named(records: list[RunRecord], card: str):
    names = [*IDENTITIES, "Zenobia", "people-who-left", "/home/someone", str(records[0].path)]
    names += [record.result["title"] for record in records]
    assert not [name for name in names if name in card]
    assert re.search(r"^# .* asked to forget \d+ people and 1 to 2 single images \(", card, re.M)


def test_a_card_is_of_an_unlearned_model(records: list[RunRecord]):
    with pytest.raises(RunDirError, match="a model card is for runs of unlearn"):
        model_card(of_label(records, "Original"))


def test_a_report_called_readme_is_the_card(comparison: Path, tmp_path: Path, card: str, capsys):
    assert main(["report", str(comparison), "--out", str(tmp_path / "README.md")]) == 0
    assert (tmp_path / "README.md").read_text() == card
