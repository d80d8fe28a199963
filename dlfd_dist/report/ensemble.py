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
from ..metrics.told_apart import Attack, Ranking, pair_aucs, paired_auc, told_apart
from ..run_dir import RunDir
from .intervals import t_interval

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
    for shadow in sorted(shadows, key=lambda shadow: order.get(shadow.role, 1)):
        if shadow.world not in worlds:
            seconds = {"wall_seconds": 0.0, "device_seconds": 0.0}
            empty = np.full(shape, np.nan), np.zeros(shape, bool)
            worlds[shadow.world] = World(shadow.role, *empty, seconds)
        if shadow.path is not None:
            _read(RunDir(shadow.path), worlds[shadow.world], shadow.place)
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
        people = self.person_of_image
        parts = {
            "forget": forgotten,
            "retain": both & ~other.forgotten & ~self.is_val,
            "val": both & self.is_val,
        }
        pairs = {name: self._of_both(world, here) for name, here in parts.items()}
        kloms = {name: klom.klom(*reversed(pair)) for name, pair in pairs.items()}
        scores = self._ratios(*pairs["forget"])
        # RMIA looks at more than the forgotten: its population are validation images.
        whole = self._of_both(world, both)
        figures = {
            "ulira": self._told(self._ratios, *pairs["forget"], people),
            "ulira_person": self._told(
                self._ratios_of_people, *pairs["forget"], np.arange(len(self.names))
            ),
            "rmia": self._told(self._dominance, *whole, people),
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

    def _ratios(self, own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return lira.log_ratios(own, other, pooled=is_pooled(self.audit))

    def _ratios_of_people(
        self, own: np.ndarray, other: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        ratios, num_people = self._ratios(own, other), len(self.names)
        of_own, of_other = (lira.by_person(r, self.person_of_image, num_people) for r in ratios)
        return of_own, of_other

    def _dominance(self, own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        forgotten = self.retrained.forgotten & ~(np.isnan(own) | np.isnan(other))
        original = self.worlds["original"].confidence
        return rmia.shadow_scores(own, other, original, forgotten, np.flatnonzero(self.is_val))

    def _told(self, attack: Attack, own: np.ndarray, other: np.ndarray, people: np.ndarray) -> Any:
        figures = told_apart(attack, own, other, people, num_bootstrap=self.audit.num_bootstrap)
        return figures.to_dict() if figures else None

    def _klom(self, values: np.ndarray) -> Any:
        return klom.summary(values, self.person_of_image, num_bootstrap=self.audit.num_bootstrap)


def _roc(own: np.ndarray, other: np.ndarray) -> dict[str, list[float]]:
    """Return the ROC curve thinned to what a log-log figure shows."""
    ranking = Ranking(own, other)
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
            paired_auc(values, other[:, mine]), float(np.nanmean(values)),
            float(known.mean()) if len(known) else float("nan"),
        )  # fmt: skip


def most_exposed(judged: Judged, top: int) -> list[Exposure]:
    """Return the people told best, with 95 % t-intervals over models, the fits kept."""
    exposed = sorted(exposures(judged), key=lambda person: -person.auc)[:top]
    own, other = judged.scores
    out = []
    for person in exposed:
        mine = np.flatnonzero(judged.person_of_image == person.number)
        aucs, _ = pair_aucs(own[:, mine], other[:, mine])
        around = t_interval(aucs) if np.ptp(aucs) else None  # agreement is no measure of error
        limits = None if around is None else [max(0.0, around[0]), min(1.0, around[1])]
        out.append(replace(person, auc_interval=limits))
    return out
