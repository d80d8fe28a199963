"""The report: what is read back, the tables, the figures, the verdict and the page."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dlfd_dist.errors import RunDirError
from dlfd_dist.report import (
    csv_table,
    load_comparison,
    load_run,
    load_with_references,
    markdown_table,
    read_comparison,
    summarise,
    text_table,
)
from dlfd_dist.report.figures import (
    loss_distributions,
    loss_edges,
    synthesis_spans,
    synthesis_switches,
    trade_off,
    training_curves,
    trajectories,
)
from dlfd_dist.report.html import write_report
from dlfd_dist.report.pictures import (
    can_embed,
    embed_features,
    feature_embeddings,
    synthesised_faces,
)
from dlfd_dist.report.plan import plan_figures, representatives
from dlfd_dist.report.records import of_label
from dlfd_dist.report.style import CLASS_COLORS, ROLE_COLORS, role_styles
from dlfd_dist.report.tables import METRICS, labels_in_order
from dlfd_dist.report.verdict import forgetting_interval, forgotten, judge
from tests.fakes.run_dirs import IDENTITIES, SIZES, write_comparison, write_run

ALL_METHODS = ("dlfd", "dlfd_official", "finetune")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Path:
    return write_comparison(tmp_path_factory.mktemp("a b's") / "compare", methods=ALL_METHODS)


@pytest.fixture(scope="module")
def records(comparison):
    return load_comparison(comparison)


@pytest.fixture(scope="module")
def rows(records):
    return summarise(records)


@pytest.fixture(scope="module")
def page(records, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(records, out, title="Two people", missing=["Retrained, seed 3"])
    return out.read_text(encoding="utf-8")


def first(records, label):
    return of_label(records, label)[0]


def with_result(record, **changes):
    return dataclasses.replace(record, result={**record.result, **changes})


def with_attack(record, accuracy: float, **changes):
    """Return the record with another attack accuracy, its interval 0.01 to each side."""
    mia = {**record.mia, "accuracy": accuracy, "interval": [accuracy - 0.01, accuracy + 0.01]}
    return with_result(record, mia={**mia, **changes}, forgetting_score=abs(accuracy - 0.5))


# Reading


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


# Tables


def test_rows_come_in_order(rows, records):
    wanted = ["Original", "Retrained", "Fine-tune", "DLFD (authors' code)", "DLFD"]
    assert [row["method"] for row in rows] == wanted
    other = dataclasses.replace(records[0], label="scrub")
    assert labels_in_order([*records, other])[3] == "scrub"


@pytest.mark.parametrize("metric", ["nomus", "test_accuracy", "wall_seconds", "gap_to_retrained"])
def test_interval_matches_scipy(rows, records, metric):
    values = [record.result[metric] for record in of_label(records, "DLFD")]
    row = rows[-1]
    wanted = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert row[metric] == pytest.approx(np.mean(values))
    assert row[f"{metric}_interval"] == pytest.approx(wanted)


def test_attack_metrics_come_from_the_attack(rows, records):
    runs = of_label(records, "DLFD")
    assert rows[-1]["mia_auc"] == pytest.approx(np.mean([run.mia["auc"] for run in runs]))
    assert rows[-1]["mia_paper"] == pytest.approx(np.mean([r.result["mia_paper"] for r in runs]))


def test_metric_that_no_run_has_stays_empty(rows):
    assert rows[1]["gap_to_retrained"] is None
    assert rows[1]["gap_to_retrained_interval"] is None


def test_null_values_are_left_out_of_the_mean(records):
    runs = of_label(records, "DLFD")
    runs = [with_result(runs[0], gap_to_retrained=None), *runs[1:]]
    (row,) = summarise(runs)
    wanted = np.mean([run.result["gap_to_retrained"] for run in runs[1:]])
    assert row["gap_to_retrained"] == pytest.approx(wanted)


def test_floor_needs_most_of_the_seeds(records):
    runs = of_label(records, "DLFD")
    rest = [with_attack(run, 0.52, floor=False, floor_reason="") for run in runs]
    assert summarise([*runs[:2], rest[2]])[0]["floor"]
    assert not summarise([runs[0], *rest[1:]])[0]["floor"]


def test_one_seed_is_marked(records):
    (row,) = summarise([first(records, "DLFD")])
    assert row["one_seed"]
    assert row["nomus_interval"] is None
    text = text_table([row])
    assert "1*" in text
    assert "* One seed" in text
    assert "±" not in text


def test_text_table_is_aligned_and_explains_its_marks(rows):
    lines = text_table(rows).splitlines()
    assert lines[0].split() == ["Method", "Seeds", "NoMUS", "Test", "acc.", "Forgetting", "Gap"]
    column = lines[0].index("Seeds")
    assert all(line[column] == "3" for line in lines[2:7])
    assert lines[6].startswith("DLFD ")
    assert "†" in lines[6]
    assert lines[7].startswith("† The attack is at its floor")
    assert "One seed" not in text_table(rows)


def test_runs_with_other_settings_in_one_row_are_marked(records):
    runs = of_label(records, "DLFD")
    changed = {**runs[1].config, "method": {**runs[1].config["method"], "lr": 0.1}}
    assert "DLFD‡" in text_table(summarise([runs[0], dataclasses.replace(runs[1], config=changed)]))
    assert "‡" not in text_table(summarise(runs))


def test_markdown_table_escapes_what_would_break_it(records):
    (row,) = summarise([dataclasses.replace(first(records, "DLFD"), label="a|b")])
    lines = markdown_table([row]).splitlines()
    assert lines[1].startswith("| --- | ---:")
    assert "a\\|b" in lines[2]
    assert "1\\*" in lines[2]


def test_csv_table_keeps_full_precision(rows):
    table = list(csv.DictReader(io.StringIO(csv_table(rows))))
    assert len(table) == len(rows)
    assert float(table[-1]["nomus"]) == rows[-1]["nomus"]
    assert float(table[-1]["nomus_lo"]) == rows[-1]["nomus_interval"][0]
    assert table[-1]["seeds"] == "0 1 2"
    assert table[1]["gap_to_retrained"] == ""
    assert {f"{metric}_hi" for metric in METRICS} <= set(table[0])


def test_run_without_a_forget_set_gives_a_row(tmp_path):
    (row,) = summarise([load_run(write_run(tmp_path / "run", "original", nobody=True))])
    assert row["forgetting_score"] is None
    assert "–" in text_table([row])


# Figures


def drawn(fig) -> bool:
    """Whether the figure renders to something other than white."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="rgba", dpi=40)
    return np.ptp(np.frombuffer(buffer.getvalue(), np.uint8).reshape(-1, 4)[:, :3]) > 100


def legend_labels(fig) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


@pytest.mark.parametrize("narrow", [False, True])
def test_loss_distributions_share_their_axes(records, narrow):
    fig = loss_distributions(representatives(records), narrow=narrow)
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles == ["Original", "Retrained", "DLFD"]
    assert len({ax.get_xlim() for ax in fig.axes}) == len({ax.get_ylim() for ax in fig.axes}) == 1
    assert fig.axes[0].get_xscale() == "log"
    assert "forgotten images" in legend_labels(fig)
    assert drawn(fig)


def test_loss_axis_is_linear_when_losses_are_alike():
    rng = np.random.default_rng(0)
    assert not loss_edges(rng.uniform(0.5, 2, 100), 10)[1]
    edges, is_log = loss_edges(np.exp(rng.normal(0, 3, 100)), 10)
    assert is_log
    assert np.all(np.diff(edges) > 0)
    assert np.all(np.diff(loss_edges(np.zeros(10), 10)[0]) > 0)


def test_trajectories_mark_where_synthesis_acts(records):
    fig = trajectories(records)
    labels = legend_labels(fig)
    assert {"Fine-tune", "DLFD", "synthesis acts", "threshold 0.05", "delivered"} <= set(labels)
    assert "Original" not in labels
    assert [ax.get_xlabel() for ax in fig.axes] == ["unlearning step"] * 2
    assert fig.axes[0].patches
    assert drawn(fig)


def test_trajectories_without_synthesis_shade_nothing(records):
    fig = trajectories(of_label(records, "Fine-tune"))
    assert legend_labels(fig) == ["Fine-tune"]
    assert not fig.axes[0].patches


def test_synthesis_spans_and_switches(records):
    flags = [True, True, False, True, False]
    probes = [{"step": 10 * i, "synthesis": flag} for i, flag in enumerate(flags)]
    run = dataclasses.replace(records[0], probes=probes)
    assert synthesis_spans(run) == [(0, 20), (30, 40)]
    switches = [(probe["step"], is_on) for probe, is_on in synthesis_switches(run)]
    assert switches == [(20, False), (30, True), (40, False)]


def test_trade_off_places_each_method(rows, records):
    fig = trade_off(rows, records)
    (ax,) = fig.axes
    assert legend_labels(fig) == [*(row["method"] for row in rows), "equal NoMUS"]
    points = [c.lines[0].get_xydata()[0] for c in ax.containers]
    wanted = [(row["forgetting_score"], row["test_accuracy"]) for row in rows]
    assert np.allclose(points, wanted)
    assert drawn(fig)


def test_trade_off_of_single_seeds_has_no_bars(records):
    fig = trade_off(summarise(representatives(records)))
    assert drawn(fig)
    assert len(fig.axes[0].containers) == 3


def test_training_curves_show_the_trained_models(records):
    fig = training_curves(records)
    assert legend_labels(fig) == ["Original", "Retrained"]
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["Training loss", "Validation accuracy"]
    assert drawn(fig)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_embeddings_show_both_models_and_ring_the_forgotten(records, method):
    pair = first(records, "Original"), first(records, "DLFD")
    embedding = embed_features(*pair, method)
    sizes = {part: len(points) for part, points in embedding.points[1].items()}
    assert sizes == {part: SIZES[part] for part in ("retain", "test", "forget")}
    fig = feature_embeddings(embedding)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["Original", "DLFD"]
    assert {"smile", "forgotten", "never seen"} <= set(legend_labels(fig))
    assert drawn(fig)


def test_embedding_is_the_same_each_time(records):
    pair = first(records, "Original"), first(records, "DLFD")
    one, two = (embed_features(*pair).points[1]["forget"] for _ in range(2))
    assert np.array_equal(one, two)


def test_embedding_needs_a_forget_set(tmp_path, records):
    nobody = load_run(write_run(tmp_path / "run", "original", nobody=True))
    assert not can_embed(nobody, first(records, "DLFD"))
    assert not can_embed(first(records, "Original"), nobody)


def test_faces_come_in_pairs_with_their_difference(records):
    fig = synthesised_faces(first(records, "DLFD"))
    names = [ax.get_ylabel() for ax in fig.axes if ax.get_ylabel()]
    assert names == ["original", "synthesised", "difference"]
    assert len(fig.axes) == 3 * 8 + 1
    assert "Synthetic" in fig.get_suptitle()
    assert drawn(fig)
    assert len(synthesised_faces(first(records, "DLFD"), narrow=True).axes) == 3 * 4 + 1


def test_faces_that_may_not_be_shown_are_refused(records):
    run = with_result(first(records, "DLFD"), may_show=False, synthetic=False)
    with pytest.raises(ValueError, match="no images that may be shown"):
        synthesised_faces(run)


def test_every_label_has_a_colour_of_its_own():
    styles = role_styles([*ROLE_COLORS, "scrub", "unsir"])
    assert len({color for color, _ in styles.values()}) == len(styles)
    assert len({marker for _, marker in styles.values()}) == len(styles)
    assert len(set(CLASS_COLORS)) == len(CLASS_COLORS)


def test_labels_with_dollar_signs_are_drawn_as_they_are(records):
    run = dataclasses.replace(first(records, "Original"), label="cost $x_{ method")
    assert drawn(loss_distributions([run]))


def test_figures_without_ingredients_are_left_out(tmp_path):
    run = load_run(write_run(tmp_path / "run", "original", nobody=True))
    assert [plan.name for plan in plan_figures([run], summarise([run]))] == ["training"]


def test_representatives_are_of_one_seed(records):
    fewer = [r for r in records if (r.label, r.seed) != ("Retrained", 0)]
    chosen = [(r.label, r.seed) for r in representatives(fewer)]
    assert chosen == [("Original", 1), ("Retrained", 1), ("DLFD", 1)]


# Verdict


def verdict_of(*records):
    return judge(summarise(records), records)


def test_verdict_names_counts_and_all_three_models(rows, records):
    verdict = judge(rows, records)
    assert verdict.tone == "good"
    assert "DLFD was asked to forget 2 people and 1 single image (60 images)" in verdict.sentence
    score = 100 * rows[-1]["forgetting_score"]
    assert f"{score:.1f} percentage points away from a coin flip" in verdict.sentence
    assert f"Retrained {rows[1]['nomus']:.3f}" in verdict.sentence
    assert any("at its floor on DLFD" in caveat for caveat in verdict.caveats)


@pytest.mark.parametrize(
    ("before", "after", "tone", "words"),
    [
        (0.70, 0.52, "good", "clearly less"),
        (0.53, 0.52, "unclear", "within the uncertainty"),
        (0.60, 0.61, "bad", "as much as before"),
        (0.60, 0.35, "bad", "as much as before"),
    ],
)
def test_judgement_follows_the_intervals(records, before, after, tone, words):
    original = with_attack(first(records, "Original"), before)
    verdict = verdict_of(original, with_attack(first(records, "DLFD"), after))
    assert verdict.tone == tone
    assert words in verdict.judgement


def test_verdict_says_when_the_attack_fails_on_original(records):
    original = with_attack(first(records, "Original"), 0.51, floor=True, floor_reason="Few images.")
    verdict = verdict_of(original, first(records, "DLFD"))
    assert verdict.tone == "unclear"
    assert any("cannot show" in c and c.endswith("Few images.") for c in verdict.caveats)


def test_verdict_says_what_overlaps(records):
    trio = [first(records, name) for name in ("Original", "Retrained", "DLFD")]
    same = verdict_of(*(with_attack(run, 0.53) for run in trio)).caveats
    assert any("Original overlap" in caveat for caveat in same)
    assert any("Retrained overlap" in caveat for caveat in same)
    apart = [with_attack(run, value) for run, value in zip(trio, (0.7, 0.6, 0.53), strict=True)]
    assert not any("overlap" in caveat for caveat in verdict_of(*apart).caveats)


def test_verdict_marks_one_seed_and_a_lone_run(records):
    verdict = verdict_of(first(records, "DLFD"))
    assert verdict.judgement == "No Original to compare with"
    assert any("Only one seed was run of DLFD" in caveat for caveat in verdict.caveats)


def test_verdict_names_over_forgetting_and_lost_accuracy(records):
    runs = [r for r in records if r.label in ("Original", "Retrained")]
    for run in of_label(records, "DLFD"):
        run = with_attack(run, 0.52, auc=0.4 + 0.001 * run.seed)
        runs.append(with_result(run, test_accuracy=0.5 + 0.001 * run.seed))
    caveats = " ".join(verdict_of(*runs).caveats)
    assert "over-forgetting" in caveats
    assert "percentage points below Retrained" in caveats


def test_report_without_an_unlearned_model_says_so(records):
    verdict = verdict_of(first(records, "Original"), first(records, "Retrained"))
    assert verdict.judgement == "Nothing was unlearned"
    assert "Original, Retrained" in verdict.sentence


@pytest.mark.parametrize(
    ("interval", "wanted"),
    [([0.6, 0.7], [0.1, 0.2]), ([0.45, 0.52], [0.0, 0.05]), ([0.3, 0.4], [0.1, 0.2])],
)
def test_attack_interval_is_folded_at_a_coin_flip(records, interval, wanted):
    (row,) = summarise([with_attack(first(records, "DLFD"), 0.5, interval=interval)])
    assert forgetting_interval(row) == pytest.approx(wanted)


def test_request_of_images_only_is_counted_in_images(records):
    run = dataclasses.replace(first(records, "DLFD"), request=None)
    assert forgotten([run]) == "60 images"


# Page


class Resources(HTMLParser):
    """Collects what a page would load and the tags it is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.urls: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in ("src", "srcset", "href")]


def test_page_needs_nothing_from_outside(page):
    found = Resources(page)
    assert found.urls
    assert all(url.startswith("data:image/png;base64,") for url in found.urls)
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert "url(" not in page
    assert "@import" not in page


def test_page_has_every_figure_for_both_widths(page):
    found = Resources(page)
    assert found.tags.count("img") == found.tags.count("source") == 7


def test_page_never_names_the_forgotten(page):
    names = [*IDENTITIES, "Zenobia", "people-who-left", "/home/someone"]
    assert not any(name in page for name in names)


def test_page_states_definitions_limits_credit_and_missing_runs(page):
    for text in (
        "not a privacy guarantee",
        "Retrained, seed 3",
        "Faces drawn by dlfd-dist",
        "All images of this report are synthetic",
        "method.forget_threshold",
        "(test accuracy + 1 − 2 × forgetting score) / 2",
        "ab12ab12ab12ab12",
    ):
        assert text in page


def test_page_escapes_hostile_names(tmp_path):
    hostile = "<script>alert('x')</script>"
    path = write_comparison(
        tmp_path / "c", seeds=(0,), title=hostile, credit=hostile, label_names=[hostile, "b", "c"]
    )
    found = read_comparison(path)
    (out, *_) = write_report(
        found.records, tmp_path / "r.html", title=found.title, missing=[hostile]
    )
    text = out.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4


def test_files_are_written_beside_the_page(records, tmp_path):
    paths = write_report(representatives(records), tmp_path / "deep" / "my report.html", title="T")
    assert paths[0].name == "my report.html"
    assert {p.parent.name for p in paths[1:]} == {"my report_figures"}
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths[1:])
    left = {p for p in paths[0].parent.rglob("*") if p.is_file()}
    assert left == set(paths)


def test_images_disappear_when_they_may_not_be_shown(records, tmp_path):
    out = tmp_path / "r.html"
    run = first(records, "DLFD")
    assert "faces.png" in {path.name for path in write_report([run], out, title="T")}
    hidden = with_result(run, may_show=False, synthetic=False)
    assert "faces.png" not in {path.name for path in write_report([hidden], out, title="T")}
    assert not (tmp_path / "r_figures" / "faces.png").exists()
    assert "Images are not shown" in out.read_text(encoding="utf-8")


def test_report_of_no_run_is_refused(tmp_path):
    with pytest.raises(RunDirError, match="no finished run"):
        write_report([], tmp_path / "r.html", title="T")


def test_comparison_json_may_name_runs_by_absolute_path(tmp_path):
    run = write_run(tmp_path / "elsewhere", "dlfd")
    entry = {"role": "method", "method": "dlfd", "seed": 0, "run_dir": str(run)}
    content = json.dumps({"title": "T", "runs": [entry]})
    (tmp_path / "comparison.json").write_text(content, encoding="utf-8")
    assert load_comparison(tmp_path)[0].path == run


def test_report_loads_neither_torch_nor_hydra():
    code = "import sys, dlfd_dist.report.html; print({'torch', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_tables_load_no_matplotlib():
    code = "import sys, dlfd_dist.report; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
