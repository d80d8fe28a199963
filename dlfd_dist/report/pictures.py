"""Figures drawn from images and features: embeddings before and after, synthesised faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .records import RunRecord
from .style import CLASS_COLORS, FORGET, MUTED, legend_above, panels, styled

# Part, marker and name in the legend; the forget set comes last, on top.
_PARTS = (("retain", "o", "retained"), ("test", "D", "never seen"), ("forget", "o", "forgotten"))
_MAX_TSNE = 2000
_MAX_PER_PART = 700


@dataclass(frozen=True)
class Embedding:
    """Two-dimensional positions of the features of two models, for the same images."""

    method: str
    """pca: one projection for both models; tsne: one map per model, each with its own axes"""
    names: tuple[str, str]
    points: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
    labels: dict[str, np.ndarray]
    label_names: list[str]
    num_images: dict[str, int]


def _features(record: RunRecord) -> dict[str, np.ndarray]:
    known = {part: record.tensor(f"{part}.features") for part, _, _ in _PARTS}
    return {part: features for part, features in known.items() if features is not None}


def can_embed(before: RunRecord, after: RunRecord, method: str = "pca") -> bool:
    """Whether both runs kept features of equal width, and few enough if t-SNE is asked for."""
    pair = _features(before), _features(after)
    widths = {features.shape[1] for side in pair for features in side.values()}
    same = all(side.keys() >= {"retain", "forget", "test"} for side in pair) and len(widths) == 1
    num = sum(map(len, pair[0].values()))
    return same and (method == "pca" or num <= _MAX_TSNE)


def _project(stacked: np.ndarray, method: str) -> np.ndarray:
    if method == "pca":
        from sklearn.decomposition import PCA

        return PCA(n_components=2, random_state=0).fit_transform(stacked)
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(stacked) - 1) / 3)
    return TSNE(random_state=0, init="pca", perplexity=perplexity).fit_transform(stacked)


def _split(points: np.ndarray, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    cuts = np.cumsum(list(sizes.values()))[:-1]
    return dict(zip(sizes, np.split(points, cuts), strict=True))


def _first_label(labels: np.ndarray) -> np.ndarray:
    return labels if labels.ndim == 1 else labels[:, 0]


def _class_names(result: dict[str, Any], multi_label: bool) -> list[str]:
    names = list(map(str, result.get("label_names") or []))
    return [f"not {names[0]}", names[0]] if multi_label and names else names


def embed_features(before: RunRecord, after: RunRecord, method: str = "pca") -> Embedding:
    """Project the features of two models to the plane.

    PCA is fitted to both models together, so that positions compare between them; t-SNE draws a
    map per model. The positions are the same each time.
    """
    sides = [_features(record) for record in (before, after)]
    sizes = {part: len(features) for part, features in sides[0].items()}
    stacks = [np.concatenate([side[part] for part in sizes]) for side in sides]
    if method == "pca":
        flat = np.split(_project(np.concatenate(stacks), "pca"), 2)
    else:
        flat = [_project(stack, method) for stack in stacks]
    raw = {part: before.require(f"{part}.labels") for part in sizes}
    return Embedding(
        method=method,
        names=(before.label, after.label),
        points=(_split(flat[0], sizes), _split(flat[1], sizes)),
        labels={part: _first_label(values) for part, values in raw.items()},
        label_names=_class_names(before.result, raw["retain"].ndim > 1),
        num_images=sizes,
    )


def _scatter(ax: Axes, points: np.ndarray, labels: np.ndarray, part: str, marker: str) -> None:
    kept = np.random.default_rng(0).permutation(len(points))[:_MAX_PER_PART]
    colors = [CLASS_COLORS[int(label) % len(CLASS_COLORS)] for label in labels[kept]]
    x, y = points[kept].T
    if part == "retain":
        ax.scatter(x, y, s=9, c=colors, alpha=0.35, linewidths=0, marker=marker)
    elif part == "test":
        ax.scatter(x, y, s=15, facecolors="none", edgecolors=colors, linewidths=0.8, marker=marker)
    else:
        ax.scatter(x, y, s=24, c=colors, edgecolors="white", linewidths=0.5, marker=marker)
        ax.scatter(x, y, s=58, facecolors="none", edgecolors=FORGET, linewidths=1.0)


def _embedding_legend(embedding: Embedding) -> list[Line2D]:
    classes = np.unique(np.concatenate(list(embedding.labels.values())))
    names = embedding.label_names
    handles = [
        Line2D([], [], marker="s", ls="", ms=7, color=CLASS_COLORS[c % len(CLASS_COLORS)],
               label=names[c] if c < len(names) else f"class {c}")
        for c in map(int, classes[: len(CLASS_COLORS)])
    ]  # fmt: skip
    grey: dict[str, Any] = {"linestyle": "", "color": MUTED}
    ring: dict[str, Any] = {
        "markeredgecolor": FORGET,
        "markeredgewidth": 1.2,
        "markerfacecolor": MUTED,
    }
    return [
        *handles,
        Line2D([], [], marker="o", ms=4, label="retained", **grey),
        Line2D([], [], marker="D", ms=5, markerfacecolor="none", label="never seen", **grey),
        Line2D([], [], marker="o", ms=8, linestyle="", label="forgotten", **ring),
    ]


@styled
def feature_embeddings(embedding: Embedding, *, narrow: bool = False) -> Figure:
    """Draw the features of two models side by side, by class, the forget set ringed (fig. 2, 4)."""
    shared = embedding.method == "pca"
    fig, axes = panels(2, narrow=narrow, height=3.3, share_x=shared, share_y=shared)
    for ax, name, points in zip(axes, embedding.names, embedding.points, strict=True):
        for part, marker, _ in _PARTS:
            _scatter(ax, points[part], embedding.labels[part], part, marker)
        ax.set_title(name)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
        kind = "principal component" if shared else "t-SNE dimension"
        ax.set_xlabel(f"{kind} 1")
        ax.set_ylabel(f"{kind} 2")
    handles = _embedding_legend(embedding)
    legend_above(fig, handles, columns=2 if narrow else min(6, len(handles)))
    return fig


def may_show_faces(record: RunRecord) -> bool:
    """Whether the data set's licence lets its images be shown, or nobody real is in them."""
    return bool(record.result.get("may_show") or record.result.get("synthetic"))


def _show(ax: Axes, image: np.ndarray, **kwargs: Any) -> Any:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return ax.imshow(image, **kwargs)


@styled
def synthesised_faces(record: RunRecord, *, narrow: bool = False) -> Figure:
    """Draw retain images, what synthesis made of them, and the signed difference, pair by pair.

    Raises ValueError where the images may not be shown, or none were kept.
    """
    pair = record.synthesised()
    if pair is None or not may_show_faces(record):
        raise ValueError(f"{record.path} has no images that may be shown.")
    num = min(len(pair[0]), 4 if narrow else 8)
    original, changed = (images[:num].transpose(0, 2, 3, 1) for images in pair)
    difference = changed.astype(float).mean(-1) - original.astype(float).mean(-1)
    limit = max(1.0, float(np.abs(difference).max()))
    width = 3.7 if narrow else 9.5
    height = 0.95 + 3 * (width - 0.6) / (num + 0.6)
    fig = Figure(figsize=(width, height), layout="constrained")
    axes = fig.subplots(3, num, squeeze=False)
    for column in range(num):
        _show(axes[0, column], original[column])
        _show(axes[1, column], changed[column])
    signed, *_ = (
        _show(ax, change, cmap="RdBu_r", vmin=-limit, vmax=limit)
        for ax, change in zip(axes[2], difference, strict=True)
    )
    for ax, name in zip(axes[:, 0], ("original", "synthesised", "difference"), strict=True):
        ax.set_ylabel(name, fontsize=8 if narrow else 9)
    bar = fig.colorbar(signed, ax=axes, location="bottom", shrink=0.45, aspect=30, pad=0.02)
    bar.set_label("change in brightness (grey levels of 255)", fontsize=8)
    bar.outline.set_visible(False)
    kind = "Synthetic faces" if record.result.get("synthetic") else "Retained images"
    fig.suptitle(
        f"{kind} before and after synthesis", x=0.01, ha="left", fontsize=10, weight="bold"
    )
    return fig


def embedding_pair(records: Sequence[RunRecord]) -> tuple[RunRecord, RunRecord] | None:
    """Return the first and the last of the records when their features can be compared."""
    pair = (records[0], records[-1]) if len(records) > 1 else None
    return pair if pair and can_embed(*pair) else None
