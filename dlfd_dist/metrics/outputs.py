"""What a model says of samples, as arrays: what every figure is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .accuracy import accuracy
from .sample_losses import logit_scaled_confidence, sample_losses
from .sides import Samples
from .similarity import predictions


@dataclass(frozen=True)
class Outputs:
    """What a model says of a set of N samples, in the order of their ids; the same on every rank.

    Attributes
    ----------
    ids : (N,) sample ids, ascending
    people : (N,) whom each shows
    labels : (N,) class numbers, or (N, L) zeros and ones of several labels
    logits : (N, C) or (N, L), float64
    features : (N, d), float64, what the last linear layer reads
    """

    ids: np.ndarray
    people: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    features: np.ndarray

    @property
    def losses(self) -> np.ndarray:
        """(N,) losses of the task in nats."""
        return sample_losses(self.logits, self.labels)

    @property
    def confidence(self) -> np.ndarray:
        """(N,) logit-scaled confidences in the label."""
        return logit_scaled_confidence(self.logits, self.labels)

    @property
    def accuracy(self) -> float | None:
        return accuracy(self.logits, self.labels)

    @property
    def predictions(self) -> np.ndarray:
        """The labels that the logits say, in the form of `labels`."""
        return predictions(self.logits, self.labels)

    @property
    def samples(self) -> Samples:
        """What attacks may know of them."""
        return Samples.of(self.logits, self.labels, self.people)

    def __getitem__(self, rows: slice) -> Outputs:
        parts = (self.ids, self.people, self.labels, self.logits, self.features)
        return Outputs(*(part[rows] for part in parts))


@dataclass(frozen=True)
class ModelOutputs:
    """What a model says of every part of the data.

    Attributes
    ----------
    retrained : what Retrained says of the same parts; None where the settings give no reference
    """

    retain: Outputs
    forget: Outputs
    val: Outputs
    test: Outputs
    retrained: ModelOutputs | None = None

    @classmethod
    def of(
        cls, parts: Mapping[str, Outputs], reference: Mapping[str, Outputs] | None = None
    ) -> ModelOutputs:
        """Return the outputs of a model, and of Retrained, that are given by the parts' names."""
        retain, forget, val, test = (parts[name] for name in ("retain", "forget", "val", "test"))
        retrained = None if reference is None else cls.of(reference)
        return cls(retain, forget, val, test, retrained)
