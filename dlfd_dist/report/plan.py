"""Which figures a set of runs has the ingredients for, and how each is to be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from . import figures, pictures
from .gap_figure import gap_against_cost, gap_and_cost
from .records import ORIGINAL, RETRAINED, RunRecord, of_label
from .summary import summarise
from .verdict import Row, unlearned_row


@dataclass(frozen=True)
class FigurePlan:
    """One figure of the page: how to draw it and how to read it."""

    name: str
    title: str
    caption: str
    draw: Callable[[bool], Figure]
    """draws the wide figure, or with True the narrow one"""


def representatives(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return Original, Retrained and the unlearned model, of one training where all have it."""
    row = unlearned_row(summarise(records), records)
    labels = [ORIGINAL, RETRAINED, *([row["method"]] if row else [])]
    groups = [group for label in labels if (group := of_label(records, label))]
    seeds = [{record.train_seed for record in group} for group in groups]
    common = set.intersection(*seeds) if seeds else set()
    wanted = min(common) if common else None
    return [next((r for r in group if r.train_seed == wanted), group[0]) for group in groups]


def _has_losses(record: RunRecord) -> bool:
    return record.tensor("forget.loss") is not None and record.tensor("test.loss") is not None


def _loss_plan(chosen: Sequence[RunRecord]) -> list[FigurePlan]:
    shown = [record for record in chosen if _has_losses(record)]
    if not shown:
        return []
    seed = f"Seed {shown[-1].seed}. "
    caption = (
        "How surprised each model is by the forgotten images (red) and by images it never saw "
        "(teal, dashed). A model that remembers is less surprised by the forgotten ones: their "
        "curve lies further left. After unlearning the two curves should lie over each other."
    )
    return [
        FigurePlan("losses", "Do forgotten images still stand out?", seed + caption,
                   lambda narrow: figures.loss_distributions(shown, narrow=narrow))
    ]  # fmt: skip


def _trade_off_plan(rows: Sequence[Row], records: Sequence[RunRecord]) -> list[FigurePlan]:
    if sum(figures.in_trade_off(row) for row in rows) < 2:
        return []
    caption = (
        "Up is a more useful model, left is a model that betrays less; every grey line joins "
        "points of equal NoMUS. "
    )
    if not all(row["one_seed"] for row in rows):
        caption += "Bars are 95 % intervals over seeds, small marks are single runs."
    return [
        FigurePlan("trade_off", "What forgetting costs", caption,
                   lambda narrow: figures.trade_off(rows, records, narrow=narrow))
    ]  # fmt: skip


def _gap_plan(rows: Sequence[Row]) -> list[FigurePlan]:
    if len(gap_and_cost(rows)) < 2:
        return []
    caption = (
        "Down is nearer to the model that never saw the forgotten people, left is cheaper: the "
        "best corner is below on the left. Retraining has no gap and costs all of it. "
    )
    if not all(row["one_seed"] for row in rows):
        caption += "Bars are 95 % intervals over seeds."
    return [
        FigurePlan("gap_cost", "How near to never having seen them, and at what cost", caption,
                   lambda narrow: gap_against_cost(rows, narrow=narrow))
    ]  # fmt: skip


def _trajectory_plan(records: Sequence[RunRecord]) -> list[FigurePlan]:
    if not any(len(record.probes) > 1 for record in records):
        return []
    caption = (
        "The probes taken on validation data while unlearning; bold lines are means over runs, "
        "thin ones, where drawn, single runs. "
    )
    if any("synthesis" in probe for record in records for probe in record.probes):
        caption += (
            "Synthesis acts in the shaded steps. A hollow ring marks a probe that switched it off "
            "because the score had fallen to the threshold, a filled one a probe that switched it "
            "on again. "
        )
    if any(record.result.get("selected_step") is not None for record in records):
        caption += "A star marks the weights that were delivered."
    return [
        FigurePlan("trajectory", "How the run went", caption,
                   lambda narrow: figures.trajectories(records, narrow=narrow))
    ]  # fmt: skip


def _separation_plan(records: Sequence[RunRecord]) -> list[FigurePlan]:
    if not any(figures.has_separation(record) for record in records):
        return []
    caption = (
        "How far apart the classes lie in the features of validation images, mean over runs. Where "
        "a line falls the method destroys what the model knew of everybody, instead of forgetting "
        "some people."
    )
    return [
        FigurePlan("separation", "Do the classes stay apart?", caption,
                   lambda narrow: figures.separation_curves(records, narrow=narrow))
    ]  # fmt: skip


def _embedding_plans(chosen: Sequence[RunRecord]) -> list[FigurePlan]:
    pair = pictures.embedding_pair(chosen)
    if pair is None:
        return []
    captions = {
        "pca": "Both models in the same two principal components, so positions compare.",
        "tsne": "One t-SNE map per model: neighbourhoods can be read, distances and axes cannot.",
    }
    lead = (
        "Each mark is an image, its colour the class, its place what the model sees in it; "
        "forgotten images are ringed. Unlearning should leave the classes apart and the ringed "
        "images no closer to their class than images never seen (diamonds). "
    )
    plans = []
    for method, name in (("pca", "PCA"), ("tsne", "t-SNE")):
        if pictures.can_embed(*pair, method):
            embedding = pictures.embed_features(*pair, method)
            caption = (lead if method == "pca" else "") + captions[method]
            draw = _embedding_drawer(embedding)
            plans.append(FigurePlan(f"features_{method}", f"Features ({name})", caption, draw))
    return plans


def _embedding_drawer(embedding: pictures.Embedding) -> Callable[[bool], Figure]:
    return lambda narrow: pictures.feature_embeddings(embedding, narrow=narrow)


def _faces_plan(chosen: Sequence[RunRecord]) -> list[FigurePlan]:
    shown = [r for r in chosen if pictures.may_show_faces(r) and r.synthesised() is not None]
    if not shown:
        return []
    record = shown[-1]
    whose = (
        "All faces are synthetic: no real person is shown. "
        if record.result.get("synthetic")
        else "These are retained people; nobody who was forgotten is shown. "
    )
    caption = whose + (
        "DLFD changes retained images so that their features move away from those of the "
        "forgotten ones. Bottom row: brighter pixels in red, darker pixels in blue."
    )
    return [
        FigurePlan("faces", "What synthesis does to an image", caption,
                   lambda narrow: pictures.synthesised_faces(record, narrow=narrow))
    ]  # fmt: skip


def _training_plan(records: Sequence[RunRecord]) -> list[FigurePlan]:
    if not any(record.epochs for record in records):
        return []
    caption = "Training of the models that unlearning starts from and is compared with."
    return [
        FigurePlan("training", "Training", caption,
                   lambda narrow: figures.training_curves(records, narrow=narrow))
    ]  # fmt: skip


def plan_figures(records: Sequence[RunRecord], rows: Sequence[Row]) -> list[FigurePlan]:
    """Return the figures that these records have the ingredients for, in the page's order."""
    chosen = representatives(records)
    return [
        *_loss_plan(chosen),
        *_gap_plan(rows),
        *_trade_off_plan(rows, records),
        *_trajectory_plan(records),
        *_separation_plan(records),
        *_embedding_plans(chosen),
        *_faces_plan(chosen),
        *_training_plan(records),
    ]
