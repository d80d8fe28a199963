"""Shadow models judged: what each world of an audit betrays against Retrained.

Legend: K shadow models, N images of the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open

from ..config import AuditConfig
from ..metrics import klom, lira, rmia
from ..run_dir import RunDir

_ROC_POINTS = 120


class Shadow(NamedTuple):
    """A run of an audit."""

    world: str
    """original, retrained, control, or a method and its variant"""
    role: str
    """original, retrained, control or method"""
    place: int
    """Which of the K shadow models it belongs to."""
    path: Path | None
    """None: it has not finished."""


@dataclass(frozen=True)
class World:
    """What the K models of one world say of all N images of the data."""

    role: str
    confidence: np.ndarray
    """(K, N) logit-scaled; NaN where there is no model or it was not asked."""
    forgotten: np.ndarray
    """(K, N) whether the people of shadow k include that of the image."""
    seconds: dict[str, float]


def is_pooled(audit: AuditConfig) -> bool:
    few = audit.models < lira.POOLED_BELOW
    return audit.variance == "pooled" or (audit.variance == "auto" and few)


def read_worlds(shadows: Iterable[Shadow], num_models: int, num_images: int) -> dict[str, World]:
    """Return the worlds by name, Original first, Retrained and its control last."""
    order, shape = {"original": 0, "retrained": 2, "control": 3}, (num_models, num_images)
    worlds: dict[str, World] = {}
    for one in sorted(shadows, key=lambda one: order.get(one.role, 1)):
        if one.world not in worlds:
            seconds = {"wall_seconds": 0.0, "device_seconds": 0.0}
            empty = np.full(shape, np.nan), np.zeros(shape, bool)
            worlds[one.world] = World(one.role, *empty, seconds)
        if one.path is not None:
            _read(RunDir(one.path), worlds[one.world], one.place)
    return worlds


def _read(run: RunDir, world: World, row: int) -> None:
    result = run.read_result()
    for name in world.seconds:
        world.seconds[name] += result[name]
    with safe_open(run.samples, framework="numpy") as file:
        for part in ("retain", "forget", "val"):
            if f"{part}.ids" in file.keys():  # noqa: SIM118 - it is no dictionary
                ids = file.get_tensor(f"{part}.ids")
                world.confidence[row, ids] = file.get_tensor(f"{part}.confidence")
                world.forgotten[row, ids] = part == "forget"


@dataclass(frozen=True)
class Judged:
    """What an audit says of one world against Retrained."""

    role: str
    num_models: int
    figures: dict[str, Any]
    roc: dict[str, list[float]]
    scores: tuple[np.ndarray, np.ndarray]
    """(K, N) log likelihood ratios of this world's models and of Retrained's."""
    klom_forget: np.ndarray
    person_of_image: np.ndarray


class Judge:
    """Judges worlds against Retrained.

    Parameters
    ----------
    people : (N,) the person of each image
    val : row numbers of the validation images
    """

    def __init__(
        self, worlds: Mapping[str, World], people: np.ndarray, val: np.ndarray, audit: AuditConfig
    ):
        self.worlds, self.retrained = worlds, worlds["retrained"]
        self.names, self.person_of_image = np.unique(people, return_inverse=True)
        self.audit = audit
        self.is_val = np.isin(np.arange(len(people)), val)

    def world(self, title: str) -> Judged:
        world, other = self.worlds[title], self.retrained
        both = ~(np.isnan(world.confidence) | np.isnan(other.confidence))
        forgotten = both & other.forgotten
        scores = lira.log_ratios(
            *self._of_both(world, forgotten), pooled=is_pooled(self.audit)
        )  # fmt: skip
        people = self.person_of_image
        of_people = (lira.by_person(scores[0], people), lira.by_person(scores[1], people))
        parts = {
            "forget": forgotten,
            "retain": both & ~other.forgotten & ~self.is_val,
            "val": both & self.is_val,
        }
        kloms = {
            name: klom.klom(*reversed(self._of_both(world, here))) for name, here in parts.items()
        }
        original = self.worlds["original"].confidence
        attacked = rmia.shadow_scores(
            world.confidence, other.confidence, original, forgotten, np.flatnonzero(self.is_val)
        )
        figures = {
            "ulira": self._told(*scores, people),
            "ulira_person": self._told(*of_people, np.arange(of_people[0].shape[1])),
            "rmia": self._told(*attacked, people),
            "klom": {name: self._klom(values) for name, values in kloms.items()},
        }
        return Judged(
            world.role, int(both.any(1).sum()), figures, _roc(*scores), scores, kloms["forget"],
            people,
        )  # fmt: skip

    def _of_both(self, world: World, here: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of a world and of Retrained that count, NaN elsewhere."""
        own, other = (np.where(here, w.confidence, np.nan) for w in (world, self.retrained))
        return own, other

    def _told(self, own: np.ndarray, other: np.ndarray, people: np.ndarray) -> Any:
        """Return AUC and TPR of scores that tell the worlds apart, by whatever attack."""
        found = lira.ulira(own, other, people, num_bootstrap=self.audit.num_bootstrap)
        return found.to_dict() if found else None

    def _klom(self, values: np.ndarray) -> Any:
        return klom.summary(values, self.person_of_image, num_bootstrap=self.audit.num_bootstrap)


def _roc(own: np.ndarray, other: np.ndarray) -> dict[str, list[float]]:
    """Return the ROC curve thinned to what a log-log figure shows."""
    ranking = lira.Ranking(own, other)
    if not ranking.here.any():
        return {"fpr": [], "tpr": []}
    fpr, tpr = ranking.roc()
    grid = np.geomspace(1 / max(2, int(ranking.here.sum())), 1, _ROC_POINTS)
    # The last point at or below each rate of the grid, so that no step looks higher than it is.
    kept = np.unique(np.r_[np.searchsorted(fpr, grid + 1e-12, side="right") - 1, len(fpr) - 1])
    return {"fpr": fpr[kept].tolist(), "tpr": tpr[kept].tolist()}


# --- people and images


@dataclass(frozen=True)
class Exposure:
    """How well the models that forgot a person, or an image, are told from Retrained by it."""

    number: int
    num_images: int
    num_models: int
    auc: float
    mean_log_ratio: float
    """Of the unlearned models, in nats."""
    klom_forget: float
    """NaN where no image has one."""
    auc_interval: list[float] | None = None


def exposures(judged: Judged, *, by_image: bool = False) -> Iterator[Exposure]:
    """Yield every person who was forgotten and can be judged, or every image of theirs."""
    own, other = judged.scores
    groups = np.arange(own.shape[1]) if by_image else judged.person_of_image
    columns = np.flatnonzero(~np.isnan(own).all(0))
    order = columns[np.argsort(groups[columns], kind="stable")]
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    for mine in np.split(order, cuts) if len(order) else []:
        values, kloms = own[:, mine], judged.klom_forget[mine]
        known = kloms[~np.isnan(kloms)]
        yield Exposure(
            int(groups[mine[0]]), len(mine), int((~np.isnan(values)).any(1).sum()),
            lira.area(*lira.Ranking(values, other[:, mine]).roc()), float(np.nanmean(values)),
            float(known.mean()) if len(known) else float("nan"),
        )  # fmt: skip


def most_exposed(judged: Judged, top: int) -> list[Exposure]:
    """Return the people told best, with intervals over models."""
    found = sorted(exposures(judged), key=lambda one: -one.auc)[:top]
    own, other = judged.scores
    out = []
    for one in found:
        mine = np.flatnonzero(judged.person_of_image == one.number)
        whole = lira.ulira(own[:, mine], other[:, mine], np.zeros(len(mine), int))
        out.append(replace(one, auc_interval=whole.auc_interval if whole else None))
    return out
