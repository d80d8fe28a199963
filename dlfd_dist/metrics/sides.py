"""The two sides of an attack in one row: forgotten samples (members) and samples never seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .people import as_numbers, most_frequent
from .sample_losses import attack_signals
from .thresholds import Signals

LABELS_DIFFER = 0.05
"""Difference of a label's share from which sides are compared within labels."""


@dataclass(frozen=True)
class Samples:
    """What an attack may know of one side.

    signals : of each name (n,), growing with membership
    labels : (n,) classes or (n, L) zeros and ones
    people : (n,) whom each sample shows
    """

    signals: Mapping[str, np.ndarray]
    labels: np.ndarray
    people: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray, people: np.ndarray) -> Samples:
        return cls(attack_signals(logits, labels), labels, people)

    def __len__(self) -> int:
        return len(self.people)


def labels_differ(members: np.ndarray, nonmembers: np.ndarray) -> bool:
    """Whether the share of a class, or of a label of several, differs by more than .05."""
    if members.ndim == 2:
        shares = [side.mean(0) for side in (members, nonmembers)]
    else:
        classes = np.unique(np.r_[members, nonmembers])
        shares = [(side[:, None] == classes).mean(0) for side in (members, nonmembers)]
    return bool(np.abs(shares[0] - shares[1]).max() > LABELS_DIFFER + 1e-12)


@dataclass(frozen=True)
class Sides:
    """Both sides, members first.

    people : (N,) numbers from 0
    classes : (N,) numbers of the classes within which sides weigh the same; all 0 where they are
        compared whole
    """

    is_member: np.ndarray
    people: np.ndarray
    classes: np.ndarray
    within_labels: bool

    @classmethod
    def of(cls, members: Samples, nonmembers: Samples) -> Sides:
        num = len(members) + len(nonmembers)
        labels = np.concatenate([members.labels, nonmembers.labels])
        apart = labels_differ(members.labels, nonmembers.labels)
        classes = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
        return cls(
            np.arange(num) < len(members),
            as_numbers(np.concatenate([members.people, nonmembers.people])),
            classes if apart else np.zeros(num, np.int64),
            apart,
        )

    @property
    def num_people(self) -> tuple[int, int]:
        """Members and unseen people that have an image in a class which both sides have."""
        member, unseen = (len(np.unique(self.people[rows])) for rows in self.compared)
        return member, unseen

    @property
    def compared(self) -> tuple[np.ndarray, np.ndarray]:
        """Which images of members, and of unseen people, are of a class that both sides have."""
        counted = self.weights > 0
        return self.is_member & counted, ~self.is_member & counted

    @property
    def weights(self) -> np.ndarray:
        """(N,) weights with which both sides have the same classes; each side sums to one."""
        counts = np.stack([
            np.bincount(self.classes[side], minlength=self.classes.max() + 1)
            for side in (self.is_member, ~self.is_member)
        ])  # fmt: skip
        size = counts.prod(0) / counts.sum(0).clip(1)
        each = size / max(size.sum(), 1e-300) / np.maximum(counts, 1)
        return each[np.where(self.is_member, 0, 1), self.classes]

    @property
    def member_of_person(self) -> np.ndarray:
        """(P,) which people are members"""
        is_member = np.zeros(int(self.people.max()) + 1, bool)
        is_member[self.people] = self.is_member
        return is_member

    @property
    def kind_of_person(self) -> np.ndarray:
        """(P,) the class of most images of each person"""
        return most_frequent(self.classes, self.people)

    def signals(self, values: np.ndarray) -> Signals:
        """Return signals (S, N) ready for attacks."""
        return Signals(values, self.people, self.classes)
