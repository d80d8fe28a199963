"""What strangers get from the model: those of a batch, or all of them by class and difficulty.

A forget image is compared with strangers of its own class who are as difficult. To Original its
loss says little, as Original was trained on it, so that what counts is its place among the forget
images of its class, beside the place of a stranger among the strangers of that class. To a model
that was not trained on it, its place is among those strangers too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import Classifier, task_loss, task_prediction
from ..runtime.collectives import Collectives
from .base import StepBatch


class Target(NamedTuple):
    """Strangers under the model, the same on every rank: those of a batch, or all that were met.

    classes, forget_classes : what is matched to what, of strangers and of the forget batch
    labelled : off, classes are those the original model says, and confidence is that of the class
        the model itself predicts, for forget images too
    """

    features: Tensor
    confidence: Tensor
    classes: Tensor
    forget_classes: Tensor
    labelled: bool


class Memory:
    """Columns of rows by sample id, in ascending order; a row that comes again is replaced."""

    def __init__(self) -> None:
        self.columns: dict[str, Tensor] = {}

    def add(self, ids: Tensor, **columns: Tensor) -> None:
        new = {"ids": ids, **columns}
        if self.columns:
            stays = ~torch.isin(self.columns["ids"], ids)
            new = {name: torch.cat([self.columns[name][stays], new[name]]) for name in new}
        order = new["ids"].argsort()
        self.columns = {name: column[order] for name, column in new.items()}

    def holds(self, ids: Tensor) -> bool:
        return bool(self.columns) and bool(torch.isin(ids, self.columns["ids"]).all())

    def rows(self, ids: Tensor) -> Tensor:
        """Return the numbers of the rows of ids that it holds."""
        return torch.searchsorted(self.columns["ids"], ids)

    def __getitem__(self, column: str) -> Tensor:
        return self.columns[column]


def levels(values: Tensor, groups: Tensor) -> Tensor:
    """Return the place of each value among those of its group, the middle of its rank, in 0..1."""
    shares = torch.empty(len(values), dtype=torch.float64, device=values.device)
    for group in groups.unique():
        rows = torch.nonzero(groups == group).flatten()
        order = values[rows].argsort(stable=True)
        shares[rows[order]] = (torch.arange(len(rows)).to(shares) + 0.5) / len(rows)
    return shares


def levels_among(values: Tensor, own: Tensor, scale: Tensor, groups: Tensor) -> Tensor:
    """Return the place of each value among those of a scale in its group, in 0..1.

    Half of the equal values count as smaller. A group that the scale lacks has the place 0.

    Parameters
    ----------
    values, own : (n,) and their groups
    scale, groups : (m,) and theirs
    """
    places = torch.zeros(len(values), dtype=torch.float64, device=values.device)
    for group in own.unique():
        ruler = scale[groups == group].sort().values
        rows = torch.nonzero(own == group).flatten()
        if len(ruler):
            smaller = torch.searchsorted(ruler, values[rows])
            not_larger = torch.searchsorted(ruler, values[rows], right=True)
            places[rows] = (smaller + not_larger).to(places) / (2 * len(ruler))
    return places


def cells(
    forget: Memory, strangers: Memory, num_bins: int, one_scale: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the cell, a class and a bin of difficulty, of every forget image and every stranger.

    Bins are quantiles of either side within a class: the hardest quarter of the forget images of a
    class meets the hardest quarter of its strangers. A class has no more bins than strangers, so
    that none of them is empty; a class without strangers has cells that no stranger is in.

    Parameters
    ----------
    forget, strangers : with the columns difficulty (n,) and classes, (n,) or (n, L)
    one_scale : bins are those of the strangers on either side: a forget image harder than three
        quarters of the strangers of its class meets the hardest quarter of them
    """
    classes = torch.cat([forget["classes"], strangers["classes"]])
    codes = torch.unique(classes, dim=0, return_inverse=True)[1]
    sides = codes.split([len(forget["ids"]), len(strangers["ids"])])
    counts = torch.bincount(sides[1], minlength=int(codes.max()) + 1)
    bins = counts.clamp(1, num_bins)
    own, ruler = forget["difficulty"], strangers["difficulty"]
    places = levels_among(own, sides[0], ruler, sides[1]) if one_scale else levels(own, sides[0])
    of_forget, of_strangers = (
        side * num_bins + (place * bins[side]).long().clamp(max=bins[side] - 1)
        for place, side in zip((places, levels(ruler, sides[1])), sides, strict=True)
    )
    return of_forget, of_strangers


def expected_cost(values: Tensor, own: Tensor, reference: Tensor, others: Tensor) -> Tensor:
    """Return the sum of the smooth L1 between values and the mean reference of their cell.

    A value whose cell no reference is in costs nothing.

    Parameters
    ----------
    values, own : (n,) with gradient, and their cells
    reference, others : (m,) without gradient, and their cells
    """
    size = int(torch.cat([own, others]).max()) + 1
    sums = reference.new_zeros(size).index_add(0, others, reference)
    counts = torch.bincount(others, minlength=size)
    met = counts[own] > 0
    mean = sums[own][met] / counts[own][met]
    return F.smooth_l1_loss(values[met], mean, reduction="sum")


class Strangers:
    """All strangers that were met, as the model answered them when they were; and who is difficult.

    A stranger's row is as old as the last batch that held them. The judge of difficulty is asked
    once for every image, of forget and of strangers.

    Parameters
    ----------
    judge : returns the model whose loss is the difficulty, when it is first asked
    one_scale : the judge was trained on neither side
    """

    def __init__(
        self,
        judge: Callable[[], Classifier],
        num_bins: int,
        collectives: Collectives,
        *,
        one_scale: bool,
    ):
        self.judge, self.num_bins, self.collectives = judge, num_bins, collectives
        self.one_scale = one_scale
        self.memories = {"forget": Memory(), "met": Memory()}

    def widened(self, batch: StepBatch, target: Target) -> Target:
        """Keep the strangers of a batch; return all who were met, with cells for classes."""
        self._meet_forget(batch, target)
        self._meet_strangers(batch, target)
        forget, met = self.memories["forget"], self.memories["met"]
        of_forget, of_strangers = cells(forget, met, self.num_bins, self.one_scale)
        own = of_forget[forget.rows(self._here(batch.forget_ids))]
        return Target(met["features"], met["confidence"], of_strangers, own, target.labelled)

    def forget_strangers(self) -> None:
        """Let go of answers that are of long ago."""
        self.memories["met"] = Memory()

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}.{column}": values
            for name, memory in self.memories.items()
            for column, values in memory.columns.items()
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        for key, values in tensors.items():
            name, _, column = key.partition(".")
            self.memories[name].columns[column] = self._here(values)

    def _meet_forget(self, batch: StepBatch, target: Target) -> None:
        ids, total = self._here(batch.forget_ids), batch.forget_total
        if not self.memories["forget"].holds(ids):
            labels = batch.forget_labels if target.labelled else None
            difficulty = self._difficulty(batch.forget_images, labels, batch.forget_labels, total)
            self.memories["forget"].add(ids, difficulty=difficulty, classes=target.forget_classes)

    def _meet_strangers(self, batch: StepBatch, target: Target) -> None:
        assert batch.reference_ids is not None
        assert batch.reference_images is not None
        ids, met = self._here(batch.reference_ids), self.memories["met"]
        if met.holds(ids):
            difficulty = met["difficulty"][met.rows(ids)]
        else:
            difficulty = self._difficulty(
                batch.reference_images, batch.reference_labels, batch.forget_labels,
                batch.reference_total,
            )  # fmt: skip
        met.add(
            ids, features=target.features, confidence=target.confidence, classes=target.classes,
            difficulty=difficulty,
        )  # fmt: skip

    def _difficulty(
        self, images: Tensor, labels: Tensor | None, form: Tensor, total: int
    ) -> Tensor:
        """Return the judge's loss on all images of a batch, of its own answers without labels.

        form : labels of the task, of which only the number of dimensions is read
        """
        logits = self.judge()(images).logits
        judged = task_prediction(logits, form) if labels is None else labels
        return self.collectives.gather_rows(task_loss(logits, judged, "none"), total)

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.collectives.device)
