"""Synthesis of retain images far from the forget set."""

from .album import Album
from .perturb import Objective, Synthesised, SynthesisLoss, frozen, layer_output, perturb
from .schedule import linear_weight

__all__ = [
    "Album",
    "Objective",
    "SynthesisLoss",
    "Synthesised",
    "frozen",
    "layer_output",
    "linear_weight",
    "perturb",
]
