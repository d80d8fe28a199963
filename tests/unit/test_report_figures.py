"""The figures of the report: what they show and when they are left out."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest

from dlfd_dist.config import METHOD_CONFIGS
from dlfd_dist.report import load_comparison, load_run, summarise
from dlfd_dist.report.figures import (
    loss_distributions,
    loss_edges,
    separation_curves,
    synthesis_spans,
    synthesis_switches,
    trade_off,
    training_curves,
    trajectories,
)
from dlfd_dist.report.gap_figure import gap_against_cost, gap_and_cost
from dlfd_dist.report.pictures import (
    can_embed,
    embed_features,
    feature_embeddings,
    synthesised_faces,
)
from dlfd_dist.report.plan import plan_figures, representatives
from dlfd_dist.report.records import METHOD_LABELS, of_label
from dlfd_dist.report.style import CLASS_COLORS, ROLE_STYLES, role_styles
from tests.fakes.reports import first, with_result
from tests.fakes.run_dirs import SIZES, write_comparison, write_run


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


def test_many_methods_are_drawn_as_means_and_few_with_their_runs(tmp_path):
    names = [name for name in METHOD_CONFIGS if not name.startswith("dlfd")]
    path = write_comparison(tmp_path / "c", methods=tuple(names), seeds=(0, 1))
    many = load_comparison(path)
    few = [run for run in many if run.label in ("NegGrad", "SCRUB")]
    assert len(trajectories(many).axes[1].lines) == len(names)
    assert len(trajectories(few).axes[1].lines) == 2 * (2 + 1)
    assert drawn(trajectories(many, narrow=True))


def test_separation_curves_show_the_numbers_of_the_probes(tmp_path):
    path = write_comparison(
        tmp_path / "c", methods=("neggrad", "dlfd"), seeds=(0,), separation=True
    )
    found = load_comparison(path)
    fig = separation_curves(found)
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles == ["Silhouette", "Linear probe accuracy", "Between / within scatter"]
    assert legend_labels(fig) == ["NegGrad", "DLFD"]
    probes = first(found, "NegGrad").probes
    line = fig.axes[2].lines[0].get_xydata().tolist()
    assert line == [[probe["step"], probe["scatter_ratio"]] for probe in probes]
    assert drawn(fig)
    alone = of_label(found, "NegGrad")
    assert "separation" in [plan.name for plan in plan_figures(alone, summarise(alone))]


def test_separation_is_left_out_where_no_probe_recorded_it(records):
    alone = of_label(records, "Fine-tune")
    names = [plan.name for plan in plan_figures(alone, summarise(alone))]
    assert "trajectory" in names
    assert "separation" not in names


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


def test_gap_against_cost_places_each_method_by_its_share_of_retraining(rows):
    fig = gap_against_cost(rows)
    (ax,) = fig.axes
    whole = next(row["device_seconds"] for row in rows if row["method"] == "Retrained")
    unlearned = [row for row in rows if row["unlearned"]]
    points = [c.lines[0].get_xydata()[0] for c in ax.containers]
    wanted = [(100 * r["device_seconds"] / whole, r["gap_to_retrained"]) for r in unlearned]
    assert np.allclose(points, wanted)
    said = ["Retrained", "doing nothing (Original)", "Retrained with another seed"]
    assert legend_labels(fig)[-3:] == said
    assert [line.get_ydata()[0] for line in ax.lines if line.get_ls() == ":"] == [
        rows[1]["gap_to_retrained"]
    ]
    assert ax.get_ylim()[0] == 0
    assert drawn(fig)
    assert drawn(gap_against_cost(rows, narrow=True))


def test_gap_against_cost_needs_the_cost_of_retraining(rows):
    assert gap_and_cost(rows)
    assert not gap_and_cost([row for row in rows if row["method"] != "Retrained"])


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
    assert set(METHOD_LABELS.values()) <= set(ROLE_STYLES)
    styles = role_styles([*ROLE_STYLES, "a new method", "another"])
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
