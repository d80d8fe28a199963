"""Metrics of other packages: what they get, and what they may return."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dlfd_dist.config import signature
from dlfd_dist.errors import ConfigError, MetricError
from dlfd_dist.metrics import ModelOutputs, Outputs, custom_figures, custom_metrics
from dlfd_dist.report import csv_table, summarise
from dlfd_dist.report.page_tables import details
from dlfd_dist.report.records import RunRecord
from dlfd_dist.trackers.tracking import figures_of
from launch.cli import main


def outputs(size: int = 4) -> Outputs:
    rows = np.arange(size)
    logits = np.column_stack([rows, -rows]).astype(float)
    return Outputs(rows, rows.astype(str), rows % 2, logits, logits)


MODEL = ModelOutputs(outputs(), outputs(2), outputs(), outputs())


@pytest.fixture
def metric() -> Iterator[Callable[..., None]]:
    """Return what registers a metric that returns a value; it is gone afterwards."""
    names: list[str] = []

    def register(name: str, returned: Any) -> None:
        custom_metrics.register(name)(returned if callable(returned) else lambda _: returned)
        names.append(name)

    yield register
    for name in names:
        del custom_metrics._entries[name]


def test_figures_are_plain_numbers_of_the_outputs(metric):
    metric("people", lambda model: {"forgotten": len(model.forget.ids)})
    metric("loss", lambda model: {"test_loss": model.test.losses.mean(), "half": np.float32(0.5)})
    figures = custom_figures(["people", "loss"], MODEL)
    assert figures == {"forgotten": 2.0, "test_loss": MODEL.test.losses.mean(), "half": 0.5}
    assert {type(value) for value in figures.values()} == {float}
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        ({"ece": float("nan")}, r"\[m\] returned ece=nan: a figure is a finite number; leave it"),
        ({"ece": float("inf")}, "returned ece=inf: a figure is a finite number"),
        ({"ece": "0.5"}, "returned ece='0.5', a str: a figure is a plain number"),
        ({"ece": True}, "returned ece=True, a bool"),
        ({"ece": None}, "returned ece=None, a NoneType"),
        ({"ece": np.array([1.0])}, r"returned ece=array\(\[1.\]\), a ndarray"),
        ({}, "returned an empty dictionary: it must return a dictionary of figures by name"),
        (0.5, "returned a float: it must return a dictionary"),
        ({"Anna Smith": 0.5}, "returned a figure named 'Anna Smith': a name has small letters"),
        ({3: 0.5}, "returned a figure named 3"),
        ({"nomus": 0.5}, "returned a figure nomus, which dlfd itself has too"),
        ({"taken": 0.5}, "returned a figure taken, which another metric has too"),
        (lambda _: 1 // 0, r"\[m\] failed \(ZeroDivisionError: .*\): correct the metric"),
    ],
)
def test_what_is_no_figure_is_one_sentence(metric, returned: Any, match: str):
    metric("first", {"taken": 1})
    metric("m", returned)
    with pytest.raises(MetricError, match=match) as said:
        custom_figures(["first", "m"], MODEL, taken=["nomus"])
    assert len(str(said.value).splitlines()) == 1


def test_a_metric_is_chosen_by_name_and_counts_where_it_is_chosen(tiny):
    config = tiny("train", "metrics.custom=spread")
    assert config.metrics.custom == ["spread"]
    assert tiny("train", "metrics.custom=a,b").metrics.custom == ["a", "b"]
    assert signature(config, {}) != signature(tiny("train"), {})
    assert signature(tiny("train", "metrics.custom=[]"), {}) == signature(tiny("train"), {})
    with pytest.raises(ConfigError, match=r"metrics.custom=\[a,a\] lists a twice: list it once"):
        tiny("train", "metrics.custom=[a,a]")


def test_a_metric_that_is_not_known_is_refused_before_anything_is_trained(metric, capsys):
    metric("evenness", {"x": 1})
    assert main(["train", "data=synthetic", "metrics.custom=[eveness]", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "metrics.custom=eveness is not known. Available: " in said
    assert "Did you mean 'evenness'?" in said


def test_the_list_has_metrics_with_their_sentence_and_package(monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(custom_metrics, "_entries", {})
        assert main(["metrics"]) == 0
    assert capsys.readouterr().out.startswith("No metrics of other packages: give plugins=")
    assert main(["metrics", "plugins=[tests.fakes.metrics]"]) == 0
    assert "spread  Spread of the losses on forgotten images" in capsys.readouterr().out


def test_page_csv_and_trackers_have_the_figures(records: list[RunRecord]):
    told = [
        replace(record, result={**record.result, "custom_metrics": {"ece": 0.1 + number / 1000}})
        if record.label == "DLFD"
        else record
        for number, record in enumerate(records)
    ]
    rows = summarise(told)
    title, (column,) = details(rows)[-1]
    assert (title, column["title"]) == ("Metrics of other packages", "ece")
    assert column["cells"].count("–") == len(rows) - 1
    assert sum(cell.startswith("0.1") and "±" in cell for cell in column["cells"]) == 1
    head = csv_table(rows).splitlines()[0].split(",")
    assert head[-3:] == ["custom_metrics.ece", "custom_metrics.ece_lo", "custom_metrics.ece_hi"]
    assert figures_of({"custom_metrics": {"ece": 0.12345}}) == {"result/custom_metrics.ece": 0.1235}
