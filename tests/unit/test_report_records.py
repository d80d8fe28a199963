"""What the report reads back from run directories and comparisons."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from dlfd_dist.config import METHOD_CONFIGS
from dlfd_dist.errors import RunDirError
from dlfd_dist.report import load_comparison, load_run, load_with_references, read_comparison
from dlfd_dist.report.figures import loss_distributions
from dlfd_dist.report.records import METHOD_LABELS, of_label
from tests.fakes.reports import TUNING, first, with_result
from tests.fakes.run_dirs import IDENTITIES, SIZES, write_comparison, write_run


def test_run_is_read_back(comparison):
    run = load_run(comparison / "runs" / "dlfd-1")
    assert (run.label, run.seed, run.unlearned) == ("DLFD", 1, True)
    assert len(run.probes) == 9
    assert run.tensor("forget.loss").shape == (SIZES["forget"],)
    assert run.tensor("nothing.loss") is None
    assert run.synthesised()[0].shape == (8, 3, 48, 48)


def test_request_is_counted_and_not_kept(comparison):
    run = load_run(comparison / "runs" / "dlfd-0")
    assert dataclasses.astuple(run.request) == (3, 2, 1, 60, 0)
    assert not any(name in repr(run) for name in IDENTITIES)


def test_people_outside_training_do_not_count_as_forgotten(tmp_path):
    path = write_run(tmp_path / "run", "dlfd")
    lines = ["line,entry,kind,status,num_images", "1,a,identity,matched,4"]
    lines += ["2,b,identity,outside_train,0"]
    (path / "request.csv").write_text("\n".join(lines), encoding="utf-8")
    assert dataclasses.astuple(load_run(path).request) == (2, 1, 0, 4, 1)


@pytest.mark.parametrize(
    ("role", "label"),
    [
        ("original", "Original"),
        ("retrained", "Retrained"),
        ("finetune", "Fine-tune"),
        ("dlfd", "DLFD"),
        ("dlfd_official", "DLFD (authors' code)"),
    ],
)
def test_label_names_the_role(tmp_path, role, label):
    assert load_run(write_run(tmp_path / role, role)).label == label


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("result.json", "is not a finished run, it has no result.json"),
        ("config.yaml", "is not a run directory: it has no config.yaml"),
    ],
)
def test_unfinished_or_foreign_directory_is_refused(tmp_path, removed, message):
    path = write_run(tmp_path / "run", "dlfd")
    (path / removed).unlink()
    with pytest.raises(RunDirError, match=message):
        load_run(path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("result.json", "{", "result.json cannot be read"),
        ("config.yaml", "a: [", "config.yaml cannot be read"),
        ("config.yaml", "a: 1", "names no verb"),
    ],
)
def test_damaged_file_is_named(tmp_path, file, content, message):
    path = write_run(tmp_path / "run", "dlfd")
    (path / file).write_text(content, encoding="utf-8")
    with pytest.raises(RunDirError, match=message):
        load_run(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("verb: unlearn\nseed: ${oc.env:HOME}\n", "seed='${oc.env:HOME}' is no whole number"),
        ("verb: unlearn\nseed: true\n", "seed=True is no whole number"),
        ("verb: unlearn\nmethod: dlfd\n", "method='dlfd' is no section of settings"),
        ("verb: unlearn\n", "it has no method.name"),
        ("verb: train\ntrain:\n", "it has no train.on"),
    ],
)
def test_a_configuration_that_was_altered_is_refused_in_one_sentence(tmp_path, content, message):
    path = write_run(tmp_path / "run", "dlfd")
    (path / "config.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(
        RunDirError, match=f"is not the configuration of a run: {re.escape(message)}"
    ):
        load_run(path)


def test_damaged_samples_are_named(tmp_path):
    path = write_run(tmp_path / "run", "dlfd")
    (path / "samples.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RunDirError, match=r"samples.safetensors cannot be read"):
        load_run(path).tensor("forget.loss")


def test_absent_tensor_is_named(tmp_path):
    run = load_run(write_run(tmp_path / "run", "original", nobody=True))
    with pytest.raises(RunDirError, match=r"has no 'forget.loss'"):
        loss_distributions([run])


def test_missing_directory_is_refused(tmp_path):
    with pytest.raises(RunDirError, match="there is no such directory"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(RunDirError, match=r"has no comparison.json"):
        read_comparison(tmp_path)


def test_unfinished_runs_of_a_comparison_are_named(tmp_path):
    path = write_comparison(tmp_path / "c", seeds=(0, 1), unfinished=("dlfd-1", "retrained-0"))
    found = read_comparison(path)
    assert len(found.records) == 6
    assert found.missing == ["Retrained, seed 0 (retrained-0)", "DLFD, seed 1 (dlfd-1)"]
    assert len(load_comparison(path)) == 6


def test_references_of_a_run_are_found(tmp_path):
    write_run(tmp_path / "original-0", "original")
    path = write_run(tmp_path / "dlfd-0", "dlfd")
    assert [r.label for r in load_with_references(path)] == ["Original", "DLFD"]


def test_every_method_has_a_label():
    assert METHOD_LABELS.keys() == METHOD_CONFIGS.keys()
    assert len(set(METHOD_LABELS.values())) == len(METHOD_LABELS)


@pytest.mark.parametrize(
    ("metric", "section", "name"),
    [
        ("mia_auc", "mia", "auc"),
        ("tail_share", "over_forgetting", "tail_share"),
        ("silhouette", "separation", "silhouette"),
    ],
)
def test_value_looks_into_the_sections_of_a_result(records, metric, section, name):
    run = first(records, "DLFD")
    assert run.value(metric) == run.result[section][name]
    assert with_result(run, **{section: None}).value(metric) is None


def test_train_seed_is_that_of_the_comparison_else_the_seed(records, crossed):
    assert all(run.train_seed == run.seed for run in records)
    seeds = {(run.train_seed, run.seed) for run in of_label(crossed, "DLFD")}
    assert seeds == {(t, s) for t in (0, 1) for s in (5, 6, 7)}


def test_missing_run_of_another_train_seed_is_named_with_it(tmp_path):
    path = write_comparison(
        tmp_path / "c", train_seeds=(0,), seeds=(5,), unfinished=("original-0-0", "dlfd-0-5")
    )
    assert read_comparison(path).missing == [
        "Original, seed 0 (original-0-0)",
        "DLFD, seed 5 on train seed 0 (dlfd-0-5)",
    ]


def test_tuning_is_read_back(tmp_path, comparison):
    assert read_comparison(write_comparison(tmp_path / "c", tuning=TUNING)).tuning == TUNING
    assert read_comparison(comparison).tuning is None


def test_comparison_json_may_name_runs_by_absolute_path(tmp_path):
    run = write_run(tmp_path / "elsewhere", "dlfd")
    entry = {"role": "method", "method": "dlfd", "seed": 0, "run_dir": str(run)}
    content = json.dumps({"title": "T", "runs": [entry]})
    (tmp_path / "comparison.json").write_text(content, encoding="utf-8")
    assert load_comparison(tmp_path)[0].path == run
